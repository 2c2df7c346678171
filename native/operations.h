// Operations of a program on tiles: rows x columns of scratch or memory.
#pragma once
#include "functions.h"
#include "program.h"

namespace {

// Where an operand of one tile lies: row r, vector v at at + r * row + v * vector. A number for all columns has vector = 0
// and a number for all rows row = 0.
template <class T> struct Tile {
  T* at;
  int64_t row, vector;
  bool memory;  // belongs to the user or to the call: nothing beyond the row may be touched
  bool flat(int64_t width) const { return vector ? row == width : row == 0; }
};

struct Extent {
  int64_t rows, columns;  // columns that exist
  int64_t width;          // columns of scratch, a multiple of the lanes
};

template <class T> struct Operands {
  Tile<T> in[3], to, also;
};

// f of N operands for every vector of the tile, to `to` and, where it is set, to `also`.
template <class T, int N, class F> INLINE void each(const Extent& e, const Operands<T>& o, F f) {
  bool flat = o.to.row == e.width && !o.also.at && e.columns == e.width;
  for (int i = 0; i < N; i++) flat = flat && o.in[i].flat(e.width);
  int64_t rows = flat ? 1 : e.rows, columns = flat ? e.rows * e.width : e.columns;
  int64_t whole = columns / lanes<T>, rest = columns % lanes<T>;
  int64_t a_step = o.in[0].vector, b_step = o.in[1].vector, c_step = o.in[2].vector;
  for (int64_t r = 0; r < rows; r++) {
    const T *a = o.in[0].at + r * o.in[0].row, *b = N > 1 ? o.in[1].at + r * o.in[1].row : a, *c = N > 2 ? o.in[2].at + r * o.in[2].row : a;
    T *to = o.to.at + r * o.to.row, *also = o.also.at ? o.also.at + r * o.also.row : nullptr;
    auto next = [&]() INLINE_LAMBDA {
      Vec<T> y = f(load(a), N > 1 ? load(b) : Vec<T>{}, N > 2 ? load(c) : Vec<T>{});
      store(to, y), a += a_step, to += lanes<T>;
      if (N > 1) b += b_step;
      if (N > 2) c += c_step;
      return y;
    };
    if (also) {
#pragma GCC unroll 2
      for (int64_t v = whole; v > 0; v--) store(also, next()), also += lanes<T>;
    } else {
#pragma GCC unroll 4
      for (int64_t v = whole; v > 0; v--) next();
    }
    if (rest) {
      auto last = [&](const T* p, const Tile<T>& in) { return in.memory && in.vector ? load_part(p, int(rest)) : load(p); };
      Vec<T> y = f(last(a, o.in[0]), N > 1 ? last(b, o.in[1]) : Vec<T>{}, N > 2 ? last(c, o.in[2]) : Vec<T>{});
      o.to.memory ? store_part(to, y, int(rest)) : store(to, y);
      if (also) store_part(also, y, int(rest));
    }
  }
}

template <class T> using Operation = void (*)(const Extent&, const Operands<T>&);

// A function of its own for each operation: their loops need all the registers.
template <class T> static Operation<T> operation(int32_t code) {
  typedef Vec<T> V;
#define CASE(CODE, N, RESULT) \
  case CODE: return [](const Extent& e, const Operands<T>& o) { each<T, N>(e, o, [](V a, [[maybe_unused]] V b, [[maybe_unused]] V c) INLINE_LAMBDA { return V(RESULT); }); };
  switch (code) {
    CASE(kAdd, 2, a + b)
    CASE(kSub, 2, a - b)
    CASE(kMul, 2, a * b)
    CASE(kDiv, 2, a / b)
    CASE(kNeg, 1, -a)
    CASE(kFma, 3, a* b + c)
    CASE(kAbs, 1, absolute<T>(a))
    CASE(kMax, 2, maximum<T>(a, b))
    CASE(kMin, 2, minimum<T>(a, b))
    CASE(kRelu, 1, a < T(0) ? V{} : a)
    CASE(kSigmoid, 1, sigmoid<T>(a))
    CASE(kTanh, 1, hyperbolic_tangent(a))
    CASE(kExp, 1, exponential<T>(a))
    CASE(kExpm1, 1, exponential_minus_one<T>(a))
    CASE(kLog, 1, logarithm<T>(a))
    CASE(kLog1p, 1, logarithm_of_one_plus<T>(a))
    CASE(kSqrt, 1, square_root<T>(a))
    CASE(kRsqrt, 1, T(1) / square_root<T>(a))
    CASE(kErf, 1, error_function<T>(a))
    CASE(kSoftplus, 1, softplus<T>(a))
    CASE(kDsigmoid, 2, (a * b) * (T(1) - b))
    CASE(kDtanh, 2, a*(T(1) - b * b))
    CASE(kGt, 2, one_or_zero<T>(a > b))
    CASE(kGe, 2, one_or_zero<T>(a >= b))
    CASE(kEq, 2, one_or_zero<T>(a == b))
    CASE(kSelect, 3, a != T(0) ? b : c)
    CASE(kCopy, 1, a)
    default: return nullptr;
  }
#undef CASE
}

}  // namespace

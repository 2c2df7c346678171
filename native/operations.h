// Operations of a program on tiles: rows x columns of scratch or memory. The numbers are those of recurra/program/ops.py
// (tests/test_native.py walks every row of that table through apply()).
#pragma once
#include "functions.h"

namespace {

enum Code : int32_t {
  kAdd = 3, kSub, kMul, kDiv, kNeg, kFma, kAbs, kMax, kMin, kRelu, kSigmoid, kTanh, kExp, kExpm1, kLog, kLog1p, kSqrt,
  kRsqrt, kErf, kSoftplus, kDsigmoid, kDtanh, kGt, kGe, kEq, kSelect, kRowsum, kRowmax, kCopy = 33,
};

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

template <class T, int N, class F> INLINE void each(Extent e, Tile<T> to, Tile<T> also, const Tile<T>* in, F f) {
  bool flat = to.row == e.width && !also.at && e.columns == e.width;
  for (int i = 0; i < N; i++) flat = flat && in[i].flat(e.width);
  int64_t rows = flat ? 1 : e.rows, columns = flat ? e.rows * e.width : e.columns;
  int64_t whole = columns / lanes<T>, rest = columns % lanes<T>;
  for (int64_t r = 0; r < rows; r++) {
    const T* p[3] = {};
    for (int i = 0; i < N; i++) p[i] = in[i].at + r * in[i].row;
    T *d = to.at + r * to.row, *d2 = also.at ? also.at + r * also.row : nullptr;
    const int64_t step[3] = {in[0].vector, in[N > 1].vector, in[2 * (N > 2)].vector};
    auto at = [&](int64_t v) INLINE_LAMBDA {
      return f(load(p[0] + v * step[0]), N > 1 ? load(p[N > 1] + v * step[1]) : Vec<T>{}, N > 2 ? load(p[2 * (N > 2)] + v * step[2]) : Vec<T>{});
    };
    if (d2) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < whole; v++) {
        Vec<T> y = at(v);
        store(d + v * lanes<T>, y);
        store(d2 + v * lanes<T>, y);
      }
    } else {
#pragma GCC unroll 4
      for (int64_t v = 0; v < whole; v++) store(d + v * lanes<T>, at(v));
    }
    if (rest) {
      Vec<T> x[3] = {};
      for (int i = 0; i < N; i++) {
        const T* last = p[i] + whole * in[i].vector;
        x[i] = in[i].memory && in[i].vector ? load_part(last, int(rest)) : load(last);
      }
      Vec<T> y = f(x[0], x[1], x[2]);
      to.memory ? store_part(d + whole * lanes<T>, y, int(rest)) : store(d + whole * lanes<T>, y);
      if (d2) store_part(d2 + whole * lanes<T>, y, int(rest));
    }
  }
}

template <class T> static void operate(int32_t code, Extent e, Tile<T> to, Tile<T> also, const Tile<T>* in) {
  typedef Vec<T> V;
#define CASE(CODE, N, RESULT) \
  case CODE: return each<T, N>(e, to, also, in, [](V a, [[maybe_unused]] V b, [[maybe_unused]] V c) { return V(RESULT); });
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
  }
#undef CASE
}

// Row reductions: one vector of partial results a row, column vector v added to it in order, whatever the tile; the lanes
// are added in order at the end. So the bits depend on the width alone.
template <class T> static void reduce_tile(int32_t code, Extent e, bool first, Tile<T> in, T* partial) {
  const T none = code == kRowsum ? T(0) : T(-__builtin_inf());
  for (int64_t r = 0; r < e.rows; r++) {
    Vec<T> sum = first ? splat(none) : load(partial + r * lanes<T>);
    const T* p = in.at + r * in.row;
    int64_t v = 0, whole = e.columns / lanes<T>, rest = e.columns % lanes<T>;
    for (; v < whole; v++) {
      Vec<T> x = load(p + v * in.vector);
      sum = code == kRowsum ? sum + x : maximum<T>(sum, x);
    }
    if (rest) {
      alignas(kVectorBytes) T last[lanes<T>];
      store(last, splat(none));
      for (int i = 0; i < rest; i++) last[i] = p[v * in.vector + (in.vector ? i : 0)];
      Vec<T> x = load(last);
      sum = code == kRowsum ? sum + x : maximum<T>(sum, x);
    }
    store(partial + r * lanes<T>, sum);
  }
}
template <class T> static T reduce_lanes(int32_t code, const T* partial) {
  T y = partial[0];
  for (int i = 1; i < lanes<T>; i++) {
    T x = partial[i];
    y = code == kRowsum ? y + x : (y != y || y > x ? y : x);
  }
  return y;
}

}  // namespace

// Products of a few rows with a packed matrix. Each output element is one chain of multiply-adds over k in order,
// whatever the number of rows, so that its bits do not depend on the batch; few rows widen the column block instead.
#pragma once
#include <utility>

#include "program.h"
#include "tiled.h"

namespace {

// Panels: the output columns of a group are taken in units of `across` vectors, gate by gate (vector v of a unit is gate
// v % gates, block v / gates), and cut into panels of at most kVectorsAcross vectors. A panel is
// [steps<P>(depth)][vectors][lanes].
struct Panels {
  int blocks;   // vectors of one gate in a unit
  int vectors;  // vectors in a unit
  int count;    // panels in a unit
  explicit Panels(int gates) {
    blocks = gates >= kVectorsAcross ? 1 : kVectorsAcross / gates;
    vectors = blocks * gates;
    count = int(parts(vectors, kVectorsAcross));
  }
  int first(int panel) const { return vectors * panel / count; }
};

template <class T, int S, int... I> INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, I...>) {
  Vec<T> low = __builtin_shufflevector(a, b, ((I & S) ? lanes<T> + I - S : I)...);
  b = __builtin_shufflevector(a, b, ((I & S) ? lanes<T> + I : I + S)...);
  a = low;
}
template <class T, int S> INLINE void transpose(Vec<T>* rows) {
  if constexpr (S > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; i++)
      if (!(i & S)) exchange<T, S>(rows[i], rows[i + S], std::make_integer_sequence<int, lanes<T>>{});
    transpose<T, S / 2>(rows);
  }
}

// One vector of output columns of W (columns, k) for a W^T: to[k * step] = W[0..lanes)[k], as P puts it.
template <class P, class T> static void pack_transposing(const T* W, int64_t stride, int columns, int64_t depth, Vec<T> by, T* to, int64_t step) {
  int64_t k = 0;
  for (; k + lanes<T> <= depth; k += lanes<T>) {
    Vec<T> rows[lanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; i++) rows[i] = i < columns ? load(W + i * stride + k) : Vec<T>{};
    transpose<T, lanes<T> / 2>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; i += P::fold) P::put(rows + i, by, to + (k + i) / P::fold * P::stored * step, step);
  }
  for (; k < depth; k += P::fold) {
    Vec<T> rows[P::fold] = {};
    for (int f = 0; f < smaller(P::fold, depth - k); f++)
      for (int i = 0; i < columns; i++) rows[f][i] = W[i * stride + k + f];
    P::put(rows, by, to + k / P::fold * P::stored * step, step);
  }
}
template <class P, class T> static void pack_straight(const T* W, int64_t stride, int columns, int64_t depth, Vec<T> by, T* to, int64_t step) {
  for (int64_t k = 0; k < depth; k += P::fold) {
    Vec<T> rows[P::fold] = {};
    for (int f = 0; f < smaller(P::fold, depth - k); f++) rows[f] = columns == lanes<T> ? load(W + (k + f) * stride) : load_part(W + (k + f) * stride, columns);
    P::put(rows, by, to + k / P::fold * P::stored * step, step);
  }
}

// The largest number of each column, without its sign.
template <class T> static Vec<T> largest(const T* W, int64_t column_stride, int64_t k_stride, int columns, int64_t depth) {
  alignas(kVectorBytes) T most[lanes<T>] = {};
  for (int i = 0; i < columns; i++)
    for (int64_t k = 0; k < depth; k++) {
      T x = __builtin_fabs(W[i * column_stride + k * k_stride]);
      most[i] = x > most[i] || x != x ? x : most[i];
    }
  return load(most);
}

template <class P, class T> static void pack_panel(const Group& group, const Call& call, int width, int64_t unit, int panel, T* to) {
  Panels p(group.gate_count);
  int first = p.first(panel), count = p.first(panel + 1) - first;
  int64_t step = int64_t(count) * lanes<T>;
  for (int z = 0; z < count; z++) {
    const Gate& gate = group.gates[(first + z) % group.gate_count];
    int64_t column = (unit * p.blocks + (first + z) / group.gate_count) * lanes<T>;
    int columns = int(larger(0, smaller(width - column, lanes<T>)));
    int64_t stride = call.strides[gate.matrix], c = gate.first_column + column, k = gate.first_row;
    const T* W = static_cast<const T*>(call.statics[gate.matrix]) + (gate.transposed ? k * stride + c : c * stride + k);
    T* own = to + z * lanes<T>;
    Vec<T> by{};
    if constexpr (P::scaled) {
      Vec<T> most = gate.transposed ? largest(W, 1, stride, columns, group.depth) : largest(W, stride, 1, columns, group.depth);
      store(own, most / T(127));
      by = most > T(0) ? T(127) / most : Vec<T>{};
      own += step;
    }
    if (columns && gate.transposed)
      pack_straight<P>(W, stride, columns, group.depth, by, own, step);
    else if (columns)
      pack_transposing<P>(W, stride, columns, group.depth, by, own, step);
    int64_t known = columns ? parts(group.depth, P::fold) * P::stored : 0;
    for (int64_t i = known; i < steps<P>(group.depth) - P::head; i++) store(own + i * step, Vec<T>{});
  }
}

// Never part of a fused multiply-add, which the compiler would make of it in the kernels for some numbers of rows only.
template <class T> INLINE Vec<T> rounded_product(Vec<T> a, Vec<T> b) {
  Vec<T> y = a * b;
#if defined(__x86_64__)
  __asm__("" : "+v"(y));
#endif
  return y;
}

template <class P, int R, int Z, int D, class T = typename P::Number>
static void multiply(const T* a, int64_t a_stride, const T* W, int64_t depth, const Block<T>& block) {
  Vec<T> sum[R][D * Z];
  auto start = [&](int r, int z) INLINE_LAMBDA { return block.start[z] ? load(block.start[z] + r * block.start_stride[z]) : Vec<T>{}; };
#pragma GCC unroll 8
  for (int z = 0; z < D * Z; z++)
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sum[r][z] = P::scaled ? Vec<T>{} : start(r, z);
  P::template chain<R, Z, D>(sum, a, a_stride, W, depth);
#pragma GCC unroll 8
  for (int z = 0; z < D * Z; z++)
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      if constexpr (P::scaled) sum[r][z] = rounded_product<T>(sum[r][z], load(W + (z / Z) * steps<P>(depth) * Z * lanes<T> + z % Z * lanes<T>)) + start(r, z);
      store(block.to[z] + r * block.to_stride, sum[r][z]);
    }
}

constexpr int rows_down(int vectors) {  // rows whose accumulators fill the registers
  return vectors >= 4 ? kRowsDown : vectors == 3 ? (kRowsDown == 6 ? 8 : 4) : kVectorsAcross == 2 && vectors == 2 ? kRowsDown : 8;
}
template <class P, int Z, int... R> constexpr auto choose(int rows, std::integer_sequence<int, R...>) {
  Multiply<typename P::Number> chosen = nullptr;
  ((rows == R + 1 ? void(chosen = multiply<P, R + 1, Z, 1>) : void()), ...);
  return chosen;
}
template <class P> static auto register_kernel(int rows, int vectors, bool pair) -> Multiply<typename P::Number> {
  if (pair) return vectors == kVectorsAcross ? multiply<P, 1, kVectorsAcross, 2> : nullptr;
  switch (vectors) {
    case 1: return choose<P, 1>(rows, std::make_integer_sequence<int, rows_down(1)>{});
    case 2: return choose<P, 2>(rows, std::make_integer_sequence<int, rows_down(2)>{});
    case 3: return choose<P, 3>(rows, std::make_integer_sequence<int, rows_down(3)>{});
    default: return choose<P, 4>(rows, std::make_integer_sequence<int, rows_down(4)>{});
  }
}
template <class P> static auto kernel(int rows, int vectors, bool pair) -> Multiply<typename P::Number> {
#if defined(RECURRA_TILES)
  if constexpr (P::tiled)
    return tiled_kernel<P::stored>(vectors);
  else
#endif
    return register_kernel<P>(rows, vectors, pair);
}
// The most rows of a block, and how many vectors of a panel go with `rows` rows in it.
template <class P> constexpr int block_rows(int vectors) { return P::tiled ? kTiledRows : rows_down(vectors); }
template <class P> constexpr int block_vectors(int64_t rows, int vectors) { return P::tiled && rows > kTileRows && vectors > 2 ? 2 : vectors; }

}  // namespace

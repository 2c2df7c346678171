// The gradient of a weight: left^T right over all rows, left (N, R), right (N, C). Rows are taken in chunks whose packed
// forms stay in cache: left as [block of rows of the result][n][kRowsDown], right as [n][columns of a panel], where n counts
// steps of P::fold rows, merged as weights are.
//
// By tiles, left is transposed and packed as P::left makes a left operand, and right as the panels of a weight: the gradient
// is a product then, to which each chunk adds.
#pragma once
#include "product.h"

namespace {

constexpr int64_t kGradientRows = 128;  // rows of left and right in a chunk
// Numbers from one packed block of left to the next: one line more than it has, or all blocks would meet in a few sets of
// the first-level cache.
template <class T> constexpr int64_t kBlockStride = kGradientRows * kRowsDown + 64 / int64_t(sizeof(T));

template <class P, int Z, class T = typename P::Number>
ALONE void gather(const T* left, const T* right, int64_t n, T* to, int64_t stride, int rows, int columns, bool add) {
  Vec<T> sum[kRowsDown][Z];
#pragma GCC unroll 8
  for (int r = 0; r < kRowsDown; r++)
#pragma GCC unroll 8
    for (int z = 0; z < Z; z++) sum[r][z] = Vec<T>{};
  for (int64_t k = 0; k < n; k++) {
    Vec<T> w[Z];
#pragma GCC unroll 8
    for (int z = 0; z < Z; z++) w[z] = load(right + (k * Z + z) * lanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRowsDown; r++) {
      Vec<T> x = splat(left[k * kRowsDown + r]);
#pragma GCC unroll 8
      for (int z = 0; z < Z; z++) sum[r][z] = P::multiply_add(x, w[z], sum[r][z]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRowsDown; r++)
#pragma GCC unroll 8
    for (int z = 0; z < Z; z++) {
      int rest = columns - z * lanes<T>;
      if (r >= rows || rest <= 0) continue;
      T* p = to + r * stride + z * lanes<T>;
      if (rest >= lanes<T>)
        store(p, add ? load(p) + sum[r][z] : sum[r][z]);
      else
        store_part(p, add ? load_part(p, rest) + sum[r][z] : sum[r][z], rest);
    }
}

// The rows of an operand of a gain, one after the other: those of an array, or of a shifted one.
template <class T> class Rows {
 public:
  Rows(const Procedure& program, const Call& call, const Operand& o) : call(call), column(o.column) {
    if (o.place == kNone) return;
    int32_t array = o.index;
    if (o.place == kShifted) {
      const Shifted& s = program.shifted[o.index];
      array = s.history, order = s.order;
      start = s.initial < 0 ? nullptr : static_cast<const T*>(call.arrays[s.initial]);
    }
    width = program.array_widths[array];
    rows = static_cast<const T*>(call.arrays[array]);
  }
  // Row n of all N; null: zeros. The cheapest when n grows.
  const T* at(int64_t n) {
    if (!order) return rows + n * width + column;
    if (n < offset(t)) t = 0;
    if (!call.offset) t = n / call.B;
    while (n >= offset(t + 1)) t++;
    int64_t r = n - offset(t), earlier = t - order;
    if (earlier >= 0 && earlier < call.T && r < offset(earlier + 1) - offset(earlier)) return rows + (offset(earlier) + r) * width + column;
    return start ? start + r * width + column : nullptr;
  }

 private:
  int64_t offset(int64_t time) const { return call.offset ? call.offset[time] : time * call.B; }
  const Call& call;
  const T *rows = nullptr, *start = nullptr;
  int64_t width = 0, column, t = 0;
  int order = 0;
};

// Rows [from, to) of the result; `memory` holds gradient_memory<P>(to - from) numbers.
template <class P, class T = typename P::Number> constexpr int64_t gradient_memory(int64_t rows) {
  int64_t left = P::tiled ? parts(rows, kTiledRows) * kTiledRows * P::left_width(kGradientRows * P::fold) : parts(rows, kRowsDown) * kBlockStride<T>;
  return left + kGradientRows * P::stored * kVectorsAcross * lanes<T>;
}
// `count` numbers of a row, zeros beyond; of no row: zeros.
template <class T> INLINE Vec<T> some(const T* row, int64_t count) {
  return !row || count <= 0 ? Vec<T>{} : count >= lanes<T> ? load(row) : load_part(row, int(count));
}
template <class P, class T = typename P::Number>
static void gather_rows(const Procedure& program, const Call& call, const Gain& g, int64_t from, int64_t to, T* target, bool add, T* memory) {
  constexpr int64_t panel = kVectorsAcross * lanes<T>, fold = P::fold;
  int64_t blocks = parts(to - from, kRowsDown);
  T *right = memory, *left = memory + kGradientRows * panel;
  Rows<T> left_rows(program, call, g.left), right_rows(program, call, g.right);
  for (int64_t first = 0; first < call.N || first == 0; first += kGradientRows * fold) {
    int64_t rows = smaller(kGradientRows * fold, call.N - first), n = parts(rows, fold);
    const T *lefts[kGradientRows * fold] = {}, *rights[kGradientRows * fold] = {};
    for (int64_t k = 0; k < rows; k++) lefts[k] = left_rows.at(first + k), rights[k] = right_rows.at(first + k);
    auto merged = [&](const T* const* of, int64_t k, int64_t column, int64_t count) INLINE_LAMBDA {
      Vec<T> own[fold];
      for (int64_t f = 0; f < fold; f++) own[f] = some(of[k * fold + f] ? of[k * fold + f] + column : nullptr, count);
      return P::merge(own);
    };
    // Numbers of both sizes come out even in a stretch of this many.
    constexpr int64_t stretch = lanes<T> * kRowsDown;
    for (int64_t k = 0; k < n; k++)
      for (int64_t r = from; r < to; r += stretch) {
        alignas(kVectorBytes) T numbers[stretch];
        for (int64_t i = 0; i < stretch && r + i < to; i += lanes<T>) store(numbers + i, merged(lefts, k, r + i, to - r - i));
        for (int64_t i = 0; i < stretch && r + i < to; i += kRowsDown)
          __builtin_memcpy(left + (r + i - from) / kRowsDown * kBlockStride<T> + k * kRowsDown, numbers + i, kRowsDown * sizeof(T));
      }
    for (int64_t c = 0; c < g.C; c += panel) {
      int64_t columns = smaller(panel, g.C - c);
      for (int64_t k = 0; k < n; k++)
        for (int64_t z = 0; z < kVectorsAcross; z++) store(right + k * panel + z * lanes<T>, merged(rights, k, c + z * lanes<T>, columns - z * lanes<T>));
      for (int64_t b = 0; b < blocks; b++) {
        int64_t r = from + b * kRowsDown;
        gather<P, kVectorsAcross>(left + b * kBlockStride<T>, right, n, target + r * g.C + c, g.C, int(smaller(kRowsDown, to - r)), int(columns), add || first > 0);
      }
    }
  }
}

#if defined(RECURRA_TILES)
// A block of the result: `vectors` vectors of columns, or, where `columns` says so, a part of one.
template <int S>
static void gather_tiles(const float* left, int64_t stride, const float* right, int64_t depth, float* target, int64_t C, int rows, int vectors, int columns, bool add) {
  alignas(64) float part[kTiledRows * 16];
  Block<float> block;
  block.rows = rows, block.to_stride = columns ? 16 : C;
  for (int z = 0; z < vectors; z++) {
    block.to[z] = columns ? part : target + z * 16;
    block.start[z] = add ? block.to[z] : nullptr, block.start_stride[z] = block.to_stride;
  }
  for (int r = 0; r < rows && columns && add; r++) store(part + r * 16, load_part(target + r * C, columns));
  tiled_kernel<S>(vectors)(left, stride, right, depth, block);
  for (int r = 0; r < rows && columns; r++) store_part(target + r * C, load(part + r * 16), columns);
}

template <class P>
static void tile_rows(const Procedure& program, const Call& call, const Gain& g, int64_t from, int64_t to, float* target, bool add, float* memory) {
  constexpr int64_t most = kGradientRows * P::fold, stride = P::left_width(most), S = P::stored;
  float *right = memory, *left = memory + kGradientRows * S * kVectorsAcross * 16;
  Rows<float> left_rows(program, call, g.left), right_rows(program, call, g.right);
  for (int64_t first = 0; first < call.N || first == 0; first += most) {
    int64_t rows = smaller(most, call.N - first), pairs = parts(rows, kTileDepth) * (kTileDepth / 2);
    const float *lefts[most] = {}, *rights[most] = {};
    for (int64_t k = 0; k < rows; k++) lefts[k] = left_rows.at(first + k), rights[k] = right_rows.at(first + k);
    auto put = [&](const float* const* of, int64_t k, int64_t column, int64_t count, float* to, int64_t step) INLINE_LAMBDA {
      const float *even = of[2 * k], *odd = of[2 * k + 1];
      Vec<float> own[2] = {some(even ? even + column : nullptr, count), some(odd ? odd + column : nullptr, count)};
      P::put(own, Vec<float>{}, to, step);
    };
    for (int64_t r = from; r < to; r += 16)
      for (int64_t k = 0; k < pairs; k += 16) {
        alignas(64) float across[16 * S * 16];
        for (int i = 0; i < 16; i++) put(lefts, k + i, r, to - r, across + i * S * 16, 16);
        for (int s = 0; s < S; s++) {
          Vec<float> down[16];
#pragma GCC unroll 16
          for (int i = 0; i < 16; i++) down[i] = load(across + (i * S + s) * 16);
          transpose<float, 8>(down);
#pragma GCC unroll 16
          for (int i = 0; i < 16; i++) store(left + (r - from + i) * stride + k * S + s * 16, down[i]);
        }
      }
    for (int64_t c = 0; c < g.C;) {
      int vectors = int(larger(1, smaller(kVectorsAcross, (g.C - c) / 16))), part = g.C - c < 16 ? int(g.C - c) : 0;
      for (int64_t k = 0; k < pairs; k++)
        for (int z = 0; z < vectors; z++) put(rights, k, c + z * 16, g.C - c - z * 16, right + (k * S * vectors + z) * 16, vectors * 16);
      for (int64_t r = from; r < to; r += kTiledRows)
        gather_tiles<S>(left + (r - from) * stride, stride, right, rows, target + r * g.C + c, g.C, int(smaller(kTiledRows, to - r)), vectors, part, add || first > 0);
      c += vectors * 16;
    }
  }
}
#endif

template <class P, class T = typename P::Number>
static void gradient_rows(const Procedure& program, const Call& call, const Gain& g, int64_t from, int64_t to, T* target, bool add, T* memory) {
#if defined(RECURRA_TILES)
  if constexpr (P::tiled)
    tile_rows<P>(program, call, g, from, to, target, add, memory);
  else
#endif
    gather_rows<P>(program, call, g, from, to, target, add, memory);
}

// Columns [from, to) of the sum of all rows. Sums of a chunk are added to the whole: a shorter chain, a smaller error.
template <class T> static void sum_rows(const Procedure& program, const Call& call, const Gain& g, int64_t from, int64_t to, T* target, bool add) {
  constexpr int64_t panel = kVectorsAcross * lanes<T>;
  Rows<T> rows(program, call, g.right);
  for (int64_t first = 0; first < call.N || first == 0; first += kGradientRows) {
    int64_t n = smaller(kGradientRows, call.N - first);
    bool onto = add || first > 0;
    const T* at[kGradientRows];
    for (int64_t k = 0; k < n; k++) at[k] = rows.at(first + k);
    int64_t c = from;
    for (; c + panel <= to; c += panel) {
      Vec<T> sum[kVectorsAcross] = {};
      for (int64_t k = 0; k < n; k++)
        if (at[k])
#pragma GCC unroll 8
          for (int z = 0; z < kVectorsAcross; z++) sum[z] += load(at[k] + c + z * lanes<T>);
      for (int z = 0; z < kVectorsAcross; z++) {
        T* p = target + c + z * lanes<T>;
        store(p, onto ? load(p) + sum[z] : sum[z]);
      }
    }
    for (; c < to; c++) {
      T sum = 0;
      for (int64_t k = 0; k < n; k++) sum += at[k] ? at[k][c] : T(0);
      target[c] = onto ? target[c] + sum : sum;
    }
  }
}

}  // namespace

// The gradient of a weight: left^T right over all rows, left (N, R), right (N, C). Rows are taken in chunks whose packed
// forms stay in cache: left as [block of rows of the result][n][kRowsDown], right as [n][columns of a panel].
#pragma once
#include "simd.h"

namespace {

constexpr int64_t kGradientRows = 128;  // rows of left and right in a chunk

template <class T, int Z> static void gather(const T* left, const T* right, int64_t n, T* to, int64_t stride, int rows, int columns, bool add) {
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
      for (int z = 0; z < Z; z++) sum[r][z] = x * w[z] + sum[r][z];
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

template <class T> struct Gradient {
  int64_t N, R, C, left_stride, right_stride;
  const T *left, *right;
  T* to;     // (R, C)
  bool add;  // to what is there already
};

// Rows [from, to) of the result; `memory` holds gradient_memory<T>(to - from) numbers.
template <class T> constexpr int64_t gradient_memory(int64_t rows) {
  return kGradientRows * (parts(rows, kRowsDown) * kRowsDown + kVectorsAcross * lanes<T>) + 2 * lanes<T>;
}
template <class T> static void gradient_rows(const Gradient<T>& g, int64_t from, int64_t to, T* memory) {
  constexpr int64_t panel = kVectorsAcross * lanes<T>;
  int64_t blocks = parts(to - from, kRowsDown);
  T *right = memory, *left = memory + kGradientRows * panel;
  for (int64_t first = 0; first < g.N || first == 0; first += kGradientRows) {
    int64_t n = smaller(kGradientRows, g.N - first);
    for (int64_t b = 0; b < blocks; b++) {
      int64_t r = from + b * kRowsDown;
      const T* p = g.left + first * g.left_stride + r;
      T* q = left + b * kGradientRows * kRowsDown;
      if (r + kRowsDown <= to)
        for (int64_t k = 0; k < n; k++) __builtin_memcpy(q + k * kRowsDown, p + k * g.left_stride, kRowsDown * sizeof(T));
      else
        for (int64_t k = 0; k < n; k++)
          for (int64_t i = 0; i < kRowsDown; i++) q[k * kRowsDown + i] = r + i < to ? p[k * g.left_stride + i] : T(0);
    }
    for (int64_t c = 0; c < g.C; c += panel) {
      int64_t columns = smaller(panel, g.C - c);
      const T* p = g.right + first * g.right_stride + c;
      for (int64_t k = 0; k < n; k++)
        for (int64_t z = 0; z < kVectorsAcross; z++) {
          int64_t rest = columns - z * lanes<T>;
          const T* from_row = p + k * g.right_stride + z * lanes<T>;
          store(right + k * panel + z * lanes<T>, rest >= lanes<T> ? load(from_row) : rest > 0 ? load_part(from_row, int(rest)) : Vec<T>{});
        }
      for (int64_t b = 0; b < blocks; b++) {
        int64_t r = from + b * kRowsDown;
        gather<T, kVectorsAcross>(left + b * kGradientRows * kRowsDown, right, n, g.to + r * g.C + c, g.C, int(smaller(kRowsDown, to - r)), int(columns), g.add || first > 0);
      }
    }
  }
}

}  // namespace

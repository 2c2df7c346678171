// How numbers are multiplied, one struct for each kind. A chain of multiply-adds goes over k in order, `fold` of them a step;
// weights are packed as one vector a step and vector of columns, in the bits of Number, zeros behind the last k.
#pragma once
#include "simd.h"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

// Numbers as they are.
template <class T> struct Plain {
  using Number = T;
  static constexpr int fold = 1;
  static constexpr bool prepares = false;  // whether the left operand has another form, made by `left`
  using Gain = Plain;                      // how gradients of weights are multiplied
  static Vec<T> merge(const Vec<T>* k) { return k[0]; }
  static void left(const T*, int64_t, int64_t, int64_t, T*) {}
  INLINE Vec<T> multiply_add(Vec<T> x, Vec<T> w, Vec<T> sum) { return x * w + sum; }
  // sum[r][z] += left row r times column vector z; where D = 2 column vectors are those of two panels.
  template <int R, int Z, int D> INLINE void chain(Vec<T> (&sum)[R][D * Z], const T* a, int64_t a_stride, const T* W, int64_t depth) {
    for (int64_t k = 0; k < depth; k++) {
      Vec<T> w[D * Z];
#pragma GCC unroll 8
      for (int z = 0; z < D * Z; z++) w[z] = load(W + (z / Z) * depth * Z * lanes<T> + (k * Z + z % Z) * lanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        Vec<T> x = splat(a[r * a_stride + k]);
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) sum[r][z] = multiply_add(x, w[z], sum[r][z]);
      }
    }
  }
};

// bfloat16 numbers, two to a float's bits: that of the even k below, that of the odd k above.
typedef Int<float> Bits;
INLINE Bits rounded_to_bf16(Vec<float> x) {  // in the upper halves; to the nearest, ties to even
  Bits b = (Bits)x, quiet = b | 0x400000;
  b += 0x7fff + ((b >> 16) & 1);
  return (x != x ? quiet : b) & int32_t(0xffff0000);
}
INLINE Vec<float> bf16_pair(Vec<float> even, Vec<float> odd) {
  return (Vec<float>)(((rounded_to_bf16(even) >> 16) & 0xffff) | rounded_to_bf16(odd));
}

// Products of bfloat16 numbers, summed in float. Where the processor has no such products, weights alone are bfloat16.
struct Brief {
  using Number = float;
  static constexpr int fold = 2;
  static Vec<float> merge(const Vec<float>* k) { return bf16_pair(k[0], k[1]); }
#if defined(__AVX512BF16__)
  static constexpr bool prepares = true;
  using Gain = Brief;
  // Rows of `depth` floats as rows of parts(depth, 2) pairs.
  static void left(const float* a, int64_t a_stride, int64_t rows, int64_t depth, float* to) {
    int64_t pairs = parts(depth, 2);
    for (int64_t r = 0; r < rows; r++, a += a_stride, to += pairs) {
      int64_t k = 0;
      for (; k + 32 <= depth; k += 32) {
        __m512bh halves = _mm512_cvtne2ps_pbh((__m512)load(a + k + 16), (__m512)load(a + k));
        __builtin_memcpy(to + k / 2, &halves, 64);
      }
      for (; k < depth; k += 2) {  // rounded as above, not by an instruction that takes one number
        Vec<float> pair = bf16_pair(splat(a[k]), splat(k + 1 < depth ? a[k + 1] : 0.f));
        __builtin_memcpy(to + k / 2, &pair, 4);
      }
    }
  }
  INLINE Vec<float> multiply_add(Vec<float> x, Vec<float> w, Vec<float> sum) { return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w); }
  template <int R, int Z, int D> INLINE void chain(Vec<float> (&sum)[R][D * Z], const float* a, int64_t, const float* W, int64_t depth) {
    int64_t pairs = parts(depth, 2);
    for (int64_t k = 0; k < pairs; k++) {
      Vec<float> w[D * Z];
#pragma GCC unroll 8
      for (int z = 0; z < D * Z; z++) w[z] = load(W + (z / Z) * pairs * Z * lanes<float> + (k * Z + z % Z) * lanes<float>);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        Vec<float> x = splat(a[r * pairs + k]);
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) sum[r][z] = multiply_add(x, w[z], sum[r][z]);
      }
    }
  }
#else
  static constexpr bool prepares = false;
  using Gain = Plain<float>;
  static void left(const float*, int64_t, int64_t, int64_t, float*) {}
  template <int R, int Z, int D> INLINE void chain(Vec<float> (&sum)[R][D * Z], const float* a, int64_t a_stride, const float* W, int64_t depth) {
    int64_t pairs = parts(depth, 2);
    for (int64_t k = 0; k < depth; k++) {
      Vec<float> w[D * Z];
#pragma GCC unroll 8
      for (int z = 0; z < D * Z; z++) {
        Bits pair = (Bits)load(W + (z / Z) * pairs * Z * lanes<float> + (k / 2 * Z + z % Z) * lanes<float>);
        w[z] = (Vec<float>)(k & 1 ? pair & int32_t(0xffff0000) : pair << 16);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        Vec<float> x = splat(a[r * a_stride + k]);
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) sum[r][z] = x * w[z] + sum[r][z];
      }
    }
  }
#endif
};

}  // namespace

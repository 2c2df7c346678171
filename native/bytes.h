// Weights as whole numbers from -127 to 127, times a factor for each column: its largest number over 127.
#pragma once
#include "multiply.h"

namespace {

INLINE Bits nearest(Vec<float> x) { return (Bits)(x + round_magic<float>()) - (Bits)round_magic<float>(); }

#if defined(__AVX512BW__)
// The left operand as whole numbers of sixteen bits, times a factor for each row, so that weights alone are rounded to any
// amount: sums of products are exact as long as they stay within 32 bits, and put together in float.
struct Bytes : Plain<float> {
  static constexpr int fold = 4, whole = 4, head = 1;
  static constexpr bool prepares = true, scaled = true;
  static constexpr int64_t kExact = 256;  // products of 127 and 32767 in a sum of 32 bits, with room to spare
  static int64_t left_width(int64_t depth) { return (1 + parts(depth, 32)) * 16; }
  // The factor, and from number 16 on pairs of k, k + 1.
  static void left(const float* a, int64_t a_stride, int64_t rows, int64_t depth, float* to) {
    for (int64_t r = 0; r < rows; r++, a += a_stride, to += left_width(depth)) {
      Vec<float> largest{};
      each_pair(a, depth, [&](int64_t, Vec<float> even, Vec<float> odd) INLINE_LAMBDA { largest = maximum<float>(largest, maximum<float>(absolute<float>(even), absolute<float>(odd))); });
      float most = 0;
      for (int i = 0; i < lanes<float>; i++) most = largest[i] > most || largest[i] != largest[i] ? largest[i] : most;
      to[0] = most / 32767;
      Vec<float> by = splat(most > 0 ? 32767 / most : 0.f);
      each_pair(a, depth, [&](int64_t at, Vec<float> even, Vec<float> odd) INLINE_LAMBDA { store(to + 16 + at, (Vec<float>)((nearest(even * by) & 0xffff) | nearest(odd * by) << 16)); });
    }
  }
  // Those of k and k + 1 of all columns, then those of k + 2 and k + 3. by: 127 over the largest number of each column.
  INLINE void put(const Vec<float>* k, Vec<float> by, float* to, int64_t) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      Bits pair = (nearest(k[2 * half] * by) & 255) | nearest(k[2 * half + 1] * by) << 8;
      typedef int16_t Half __attribute__((vector_size(32)));
      Half packed = __builtin_convertvector(pair, Half);
      __builtin_memcpy(to + 8 * half, &packed, sizeof packed);
    }
  }
  INLINE __m512i widened(const float* at) {
    // masked, because GCC 12 warns of the undefined operand of the other form
    return _mm512_maskz_cvtepi8_epi16(__mmask32(-1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  INLINE __m512i add_products(__m512i sum, __m512i x, __m512i w) {
#if defined(__AVX512VNNI__)
    return _mm512_dpwssd_epi32(sum, x, w);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(x, w));
#endif
  }
  template <int R, int Z, int D> INLINE void chain(Vec<float> (&sum)[R][D * Z], const float* a, int64_t a_stride, const float* W, int64_t depth) {
    const int64_t panel = steps<Bytes>(depth) * Z * lanes<float>;
    W += Z * lanes<float>;
    for (int64_t first = 0; first < depth; first += kExact) {
      __m512i exact[R][D * Z] = {};
      for (int64_t k = first; k < smaller(depth, first + kExact); k += 4)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
          __m512i w[D * Z];
#pragma GCC unroll 8
          for (int z = 0; z < D * Z; z++) w[z] = widened(W + (z / Z) * panel + (k / 4 * Z + z % Z) * lanes<float> + 8 * half);
#pragma GCC unroll 8
          for (int r = 0; r < R; r++) {
            __m512i x = (__m512i)splat(a[r * a_stride + 16 + k / 2 + half]);
#pragma GCC unroll 8
            for (int z = 0; z < D * Z; z++) exact[r][z] = add_products(exact[r][z], x, w[z]);
          }
        }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) sum[r][z] += __builtin_convertvector((Bits)exact[r][z], Vec<float>) * splat(a[r * a_stride]);
    }
  }
};
#else
struct Bytes : Widened<Bytes, 4, 1> {
  static constexpr bool scaled = true;
  INLINE Vec<float> widened(Bits four, int f) { return __builtin_convertvector(four << (24 - 8 * f) >> 24, Vec<float>); }
  // by: 127 over the largest number of each column.
  INLINE void put(const Vec<float>* k, Vec<float> by, float* to, int64_t) {
    Bits four{};
#pragma GCC unroll 4
    for (int f = 0; f < 4; f++) four |= (nearest(k[f] * by) & 255) << (8 * f);
    store(to, (Vec<float>)four);
  }
};
#endif

}  // namespace

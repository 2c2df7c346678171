// How numbers are multiplied, one struct for each kind. A chain of multiply-adds goes over k in order; a vector of columns of
// a weight is packed as one or more vectors for every `fold` of k, in the bits of Number, with zeros behind the last k.
#pragma once
#include "functions.h"
#include "tiles.h"
#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace {

// Numbers as they are.
template <class T> struct Plain {
  using Number = T;
  using Gain = Plain;                      // how gradients of weights are multiplied
  struct Ready {};                         // what a thread has while it multiplies
  static constexpr int fold = 1;           // consecutive k that are packed together
  static constexpr int whole = 1;          // k come in multiples of this, with zeros behind the last
  static constexpr int stored = 1;         // the vectors that come of them
  static constexpr int head = 0;           // vectors before those of the first k
  static constexpr bool prepares = false;  // whether the left operand has another form, made by `left`
  static constexpr bool scaled = false;    // whether the head holds a factor for each column
  static constexpr bool tiled = false;     // whether products go through the matrix unit
  static int64_t left_width(int64_t) { return 0; }
  static void left(const T*, int64_t, int64_t, int64_t, T*) {}
  INLINE Vec<T> merge(const Vec<T>* k) { return k[0]; }
  INLINE void put(const Vec<T>* k, Vec<T>, T* to, int64_t) { store(to, merge(k)); }
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

// Numbers that a packed vector holds for each column; they make one panel vector, heads included.
template <class P> constexpr int64_t steps(int64_t depth) { return P::head + parts(depth, P::whole) * (P::whole / P::fold) * P::stored; }

template <class T> struct Block {  // what one register block reads and writes; one entry a vector of columns
  T* to[2 * kVectorsAcross];
  const T* start[2 * kVectorsAcross];  // null: zero
  int64_t start_stride[2 * kVectorsAcross];
  int64_t to_stride;
  int rows;
};
template <class T> using Multiply = void (*)(const T*, int64_t, const T*, int64_t, const Block<T>&);

typedef Int<float> Bits;

#if defined(__AVX512BW__)
// f(k, numbers from k on, the vector after them) for all of a row, zeros behind its end.
template <class F> INLINE void each_two(const float* a, int64_t depth, F f) {
  constexpr int64_t n = lanes<float>;
  int64_t k = 0;
  for (; k + 2 * n <= depth; k += 2 * n) f(k, load(a + k), load(a + k + n));
  if (k < depth) f(k, k + n <= depth ? load(a + k) : load_part(a + k, int(depth - k)), load_part(a + k + n, int(depth - k - n)));
}
// f(position of the pair k, k + 1 in its row, even numbers, odd numbers) for all pairs of a row, a vector of them at a time.
template <class F, int... I> INLINE void each_pair(const float* a, int64_t depth, F f, std::integer_sequence<int, I...>) {
  each_two(a, depth, [&](int64_t k, Vec<float> first, Vec<float> second) INLINE_LAMBDA { f(k / 2, __builtin_shufflevector(first, second, 2 * I...), __builtin_shufflevector(first, second, 2 * I + 1 ...)); });
}
template <class F> INLINE void each_pair(const float* a, int64_t depth, F f) { each_pair(a, depth, f, std::make_integer_sequence<int, lanes<float>>{}); }
#endif

// Weights of fewer bits, `Fold` in those of a float, each of which is made a float (Own::widened) and multiplied as such.
template <class Own, int Fold, int Head> struct Widened : Plain<float> {
  using Gain = Plain<float>;
  static constexpr int fold = Fold, whole = Fold, head = Head;
  template <int R, int Z, int D> INLINE void chain(Vec<float> (&sum)[R][D * Z], const float* a, int64_t a_stride, const float* W, int64_t depth) {
    const int64_t panel = steps<Own>(depth) * Z * lanes<float>;
    W += Head * Z * lanes<float>;
    auto group = [&](int64_t k, int count) INLINE_LAMBDA {
#pragma GCC unroll 4
      for (int f = 0; f < count; f++) {
        Vec<float> w[D * Z];
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) w[z] = Own::widened((Bits)load(W + (z / Z) * panel + (k / Fold * Z + z % Z) * lanes<float>), f);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          Vec<float> x = splat(a[r * a_stride + k + f]);
#pragma GCC unroll 8
          for (int z = 0; z < D * Z; z++) sum[r][z] = x * w[z] + sum[r][z];
        }
      }
    };
    int64_t k = 0;
    for (; k + Fold <= depth; k += Fold) group(k, Fold);
    if (k < depth) group(k, int(depth - k));
  }
};

// bfloat16 numbers, two to a float's bits: that of the even k below, that of the odd k above.
#if !defined(__AVX512BF16__)
INLINE Bits rounded_to_bf16(Vec<float> x) {  // in the upper halves; to the nearest, ties to even
  Bits b = (Bits)x, quiet = b | 0x400000;
  b += 0x7fff + ((b >> 16) & 1);
  return (x != x ? quiet : b) & int32_t(0xffff0000);
}
#endif
INLINE Vec<float> bf16_pair(Vec<float> even, Vec<float> odd) {
#if defined(__AVX512BF16__)
  const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (Vec<float>)_mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
#else
  return (Vec<float>)(((rounded_to_bf16(even) >> 16) & 0xffff) | rounded_to_bf16(odd));
#endif
}
INLINE Vec<float> bf16_widened(Bits pair, int f) { return (Vec<float>)(f ? pair & int32_t(0xffff0000) : pair << 16); }

#if defined(__AVX512BF16__)
INLINE Vec<float> add_products(Vec<float> x, Vec<float> w, Vec<float> sum) { return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w); }

// A pair in each of a float's bits, multiplied by tiles where there are any. Prepared rows are an odd number of lines long, so
// that those of a tile do not meet in a few sets of the first-level cache.
struct Pairs : Plain<float> {
  static constexpr int fold = 2;
  static constexpr bool prepares = true;
#if defined(RECURRA_TILES)
  using Ready = Amx::Configured;
  static constexpr bool tiled = true;
  static constexpr int whole = kTileDepth;
#else
  static constexpr int whole = fold;
#endif
};

// Products of bfloat16 numbers, summed in float.
struct Brief : Pairs {
  using Gain = Brief;
  static constexpr int64_t left_width(int64_t depth) { return (parts(depth, 32) | 1) * 16; }
  static void left(const float* a, int64_t a_stride, int64_t rows, int64_t depth, float* to) {
    for (int64_t r = 0; r < rows; r++, a += a_stride, to += left_width(depth))
      each_two(a, depth, [&](int64_t k, Vec<float> first, Vec<float> second) INLINE_LAMBDA {
        __m512bh pairs = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
        __builtin_memcpy(to + k / 2, &pairs, sizeof pairs);
      });
  }
  INLINE Vec<float> merge(const Vec<float>* k) { return bf16_pair(k[0], k[1]); }
  INLINE void put(const Vec<float>* k, Vec<float>, float* to, int64_t) { store(to, merge(k)); }
  INLINE Vec<float> multiply_add(Vec<float> x, Vec<float> w, Vec<float> sum) { return add_products(x, w, sum); }
  template <int R, int Z, int D> INLINE void chain(Vec<float> (&sum)[R][D * Z], const float* a, int64_t a_stride, const float* W, int64_t depth) {
    const int64_t pairs = parts(depth, 2);
    for (int64_t k = 0; k < pairs; k++) {
      Vec<float> w[D * Z];
#pragma GCC unroll 8
      for (int z = 0; z < D * Z; z++) w[z] = load(W + (z / Z) * pairs * Z * lanes<float> + (k * Z + z % Z) * lanes<float>);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        Vec<float> x = splat(a[r * a_stride + k]);
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) sum[r][z] = add_products(x, w[z], sum[r][z]);
      }
    }
  }
};

// A float as the sum of two bfloat16 numbers, high and low; of the four products all but low times low.
struct Split : Pairs {
#if defined(RECURRA_TILES)
  using Gain = Split;
#endif
  static constexpr int stored = 2;
  static constexpr int64_t left_width(int64_t depth) { return (2 * parts(depth, 32) + 1) * 16; }
  // What bfloat16 leaves of both numbers of a pair.
  INLINE Vec<float> rest(Vec<float> high, Vec<float> even, Vec<float> odd) { return bf16_pair(even - bf16_widened((Bits)high, 0), odd - bf16_widened((Bits)high, 1)); }
  // Sixteen pairs, then what is left of them.
  static void left(const float* a, int64_t a_stride, int64_t rows, int64_t depth, float* to) {
    for (int64_t r = 0; r < rows; r++, a += a_stride, to += left_width(depth))
      each_pair(a, depth, [&](int64_t at, Vec<float> even, Vec<float> odd) INLINE_LAMBDA {
        Vec<float> high = bf16_pair(even, odd);
        store(to + 2 * at, high), store(to + 2 * at + 16, rest(high, even, odd));
      });
  }
  INLINE void put(const Vec<float>* k, Vec<float>, float* to, int64_t step) {
    Vec<float> high = bf16_pair(k[0], k[1]);
    store(to, high), store(to + step, rest(high, k[0], k[1]));
  }
  template <int R, int Z, int D> INLINE void chain(Vec<float> (&sum)[R][D * Z], const float* a, int64_t a_stride, const float* W, int64_t depth) {
    const int64_t pairs = parts(depth, 2);
    for (int64_t k = 0; k < pairs; k++) {
      Vec<float> w[D * Z];
      const float* x = a + k / 16 * 32 + k % 16;
#pragma GCC unroll 2
      for (int low = 0; low < 2; low++) {
#pragma GCC unroll 8
        for (int z = 0; z < D * Z; z++) w[z] = load(W + (z / Z) * 2 * pairs * Z * lanes<float> + ((2 * k + low) * Z + z % Z) * lanes<float>);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
          for (int z = 0; z < D * Z; z++) {
            sum[r][z] = add_products(splat(x[r * a_stride]), w[z], sum[r][z]);
            if (!low) sum[r][z] = add_products(splat(x[r * a_stride + 16]), w[z], sum[r][z]);
          }
      }
    }
  }
};
#else
// Where the processor has no products of bfloat16 numbers, weights alone are of fewer bits.
struct Brief : Widened<Brief, 2, 0> {
  INLINE Vec<float> widened(Bits pair, int f) { return bf16_widened(pair, f); }
  INLINE void put(const Vec<float>* k, Vec<float>, float* to, int64_t) { store(to, bf16_pair(k[0], k[1])); }
};
#endif

}  // namespace

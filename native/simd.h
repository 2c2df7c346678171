// Vectors of the width the compiler was told to use, in compiler vector types only, so that another processor needs
// no new code. Everything in the kernels sits in an unnamed namespace: the same sources are compiled once for each
// instruction set and must not be merged by the linker.
#pragma once
#include <cstdint>
#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kVectorsAcross = 4;  // vectors of output columns in one register block
constexpr int kRowsDown = 6;       // rows in one register block: 24 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kVectorsAcross = 2;
constexpr int kRowsDown = 6;  // 12 accumulators of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kVectorsAcross = 2;
constexpr int kRowsDown = 4;
#endif

template <class T> struct Simd;
template <> struct Simd<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef int32_t I __attribute__((vector_size(kVectorBytes)));
  static constexpr int mantissa = 23, bias = 127;
};
template <> struct Simd<double> {
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef int64_t I __attribute__((vector_size(kVectorBytes)));
  static constexpr int mantissa = 52, bias = 1023;
};
template <class T> using Vec = typename Simd<T>::V;
template <class T> using Int = typename Simd<T>::I;
template <class T> constexpr int lanes = kVectorBytes / int(sizeof(T));

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define ALONE static __attribute__((noinline))  // a kernel whose accumulators need all registers

template <class T, int... I> INLINE Vec<T> splat(T x, std::integer_sequence<int, I...>) { return Vec<T>{(void(I), x)...}; }
template <class T> INLINE Vec<T> splat(T x) { return splat(x, std::make_integer_sequence<int, lanes<T>>{}); }
template <class T> INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T> INLINE void store(T* p, Vec<T> v) { __builtin_memcpy(p, &v, sizeof v); }
// The last vector of a row whose width is no multiple of the lanes: nothing beyond the row is read or written.
template <class T> INLINE Vec<T> load_part(const T* p, int n) {
  alignas(kVectorBytes) T part[lanes<T>] = {};
  for (int i = 0; i < n; i++) part[i] = p[i];
  return load(part);
}
template <class T> INLINE void store_part(T* p, Vec<T> v, int n) {
  alignas(kVectorBytes) T part[lanes<T>];
  store(part, v);
  for (int i = 0; i < n; i++) p[i] = part[i];
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE constexpr int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

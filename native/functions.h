// exp, tanh, sigmoid and their kin on vectors, in float and double. Own polynomials, so that results do not depend on
// the system's libm; NaN in gives NaN out. Relative error at most 4 ulp in float (measured in tests/test_functions.py).
#pragma once
#include <limits>

#include "simd.h"

namespace {

template <class T> INLINE Int<T> bits(Vec<T> x) { return (Int<T>)x; }
template <class T> INLINE Vec<T> value(Int<T> x) { return (Vec<T>)x; }
template <class T> INLINE Vec<T> absolute(Vec<T> x) {
  typedef decltype(Int<T>{}[0] + 0) W;
  constexpr W mask = ~(W(1) << (8 * sizeof(T) - 1));
  return value<T>(bits<T>(x) & mask);
}
// As torch.maximum and torch.minimum: NaN wins.
template <class T> INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) {
  Vec<T> m = a > b ? a : b;
  return a != a ? a : m;
}
template <class T> INLINE Vec<T> minimum(Vec<T> a, Vec<T> b) {
  Vec<T> m = a < b ? a : b;
  return a != a ? a : m;
}
template <class T> INLINE Vec<T> one_or_zero(Int<T> c) { return c ? splat<T>(1) : splat<T>(0); }

// Nearest integer n of x by adding 1.5 * 2^mantissa, whose last bits then hold n.
template <class T> INLINE Vec<T> round_magic() {
  constexpr T magic = sizeof(T) == 4 ? T(12582912.0) : T(6755399441055744.0);
  return splat<T>(magic);
}

// exp(f) for |f| <= ln(2) / 2: Taylor's series, cut where the next term is below half an ulp.
INLINE Vec<float> exp_reduced(Vec<float> f) {
  Vec<float> p = splat(1.f / 5040);
  p = p * f + 1.f / 720;
  p = p * f + 1.f / 120;
  p = p * f + 1.f / 24;
  p = p * f + 1.f / 6;
  p = p * f + .5f;
  return p * (f * f) + (f + 1.f);
}
INLINE Vec<double> exp_reduced(Vec<double> f) {
  Vec<double> p = splat(1. / 6227020800);
  p = p * f + 1. / 479001600;
  p = p * f + 1. / 39916800;
  p = p * f + 1. / 3628800;
  p = p * f + 1. / 362880;
  p = p * f + 1. / 40320;
  p = p * f + 1. / 5040;
  p = p * f + 1. / 720;
  p = p * f + 1. / 120;
  p = p * f + 1. / 24;
  p = p * f + 1. / 6;
  p = p * f + .5;
  return p * (f * f) + (f + 1.);
}
// exp(x) = y 2^n, where n + 1.5 * 2^mantissa is `shifted`.
template <class T> INLINE Vec<T> exp_without_power(Vec<T> x, Vec<T>& shifted) {
  constexpr bool single = sizeof(T) == 4;
  constexpr T ln2_high = single ? T(0.693145751953125) : T(0.6931471803691238);  // few bits: n * ln2_high is exact
  constexpr T ln2_low = single ? T(1.42860682030941723e-6) : T(1.9082149292705877e-10);
  shifted = x * T(1.4426950408889634) + round_magic<T>();
  Vec<T> n = shifted - round_magic<T>();
  Vec<T> f = x - n * ln2_high;
  return exp_reduced(f - n * ln2_low);
}
template <class T> INLINE Vec<T> exponential(Vec<T> x) {
  constexpr bool single = sizeof(T) == 4;
  constexpr T high = single ? T(88.72283905) : T(709.782712893384), low = single ? T(-87.33654785) : T(-708.3964185322641);
  Vec<T> inside = x > high ? splat(high) : x, shifted;
  inside = inside < low ? splat(low) : inside;
  Vec<T> y = exp_without_power<T>(inside, shifted);
  // 2^n in two factors, because 2^128 itself does not exist where n = 128 at the upper end.
  Int<T> k = bits<T>(shifted) - bits<T>(round_magic<T>());
  Int<T> half = k >> 1;
  y = y * value<T>((half + Simd<T>::bias) << Simd<T>::mantissa);
  y = y * value<T>((k - half + Simd<T>::bias) << Simd<T>::mantissa);
  y = x > high ? splat<T>(T(__builtin_inf())) : y;
  y = x < low ? splat<T>(0) : y;
  return x != x ? x : y;
}
// 1 / (1 + exp(-x)). Between these bounds 2^n is one normal number; beyond them the result is 1, or denormal and flushed.
template <class T> INLINE Vec<T> sigmoid(Vec<T> x) {
  constexpr bool single = sizeof(T) == 4;
  constexpr T high = single ? T(88) : T(709), low = single ? T(-80) : T(-700);
  typedef decltype(Int<T>{}[0] + 0) W;
  Vec<T> inside = -x > high ? splat(high) : -x, shifted;
  inside = inside < low ? splat(low) : inside;
  Vec<T> y = exp_without_power<T>(inside, shifted);
  // The low bits of round_magic are zeros: shifted out, none of it is left.
  Int<T> power = (bits<T>(shifted) << Simd<T>::mantissa) + (W(Simd<T>::bias) << Simd<T>::mantissa);
  return T(1) / (y * value<T>(power) + T(1));
}

// Rational approximations, odd in x, good near zero as well: float after Eigen's, double after Cephes'.
INLINE Vec<float> hyperbolic_tangent(Vec<float> x) {
  Vec<float> c = x > 7.9988117f ? splat(7.9988117f) : x;
  c = c < -7.9988117f ? splat(-7.9988117f) : c;
  Vec<float> s = c * c;
  Vec<float> p = splat(-2.76076847742355e-16f);
  p = p * s + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  Vec<float> q = splat(1.19825839466702e-06f);
  q = q * s + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  return p / q * c;
}
INLINE Vec<double> hyperbolic_tangent(Vec<double> x) {
  Vec<double> z = x * x;
  Vec<double> p = splat(-9.64399179425052238628e-1) * z + -9.92877231001918586564e1;
  p = p * z + -1.61468768441708447952e3;
  Vec<double> q = z + 1.12811678491632931402e2;
  q = q * z + 2.23548839060100448583e3;
  q = q * z + 4.84406305325125486048e3;
  Vec<double> near = x + x * z * (p / q);
  Vec<double> a = absolute<double>(x);
  Vec<double> far = 1. - 2. / (exponential<double>(a + a) + 1.);
  return a < 0.625 ? near : (x < 0. ? -far : far);
}

template <class T> INLINE Vec<T> square_root(Vec<T> x) {
  Vec<T> y{};
  for (int i = 0; i < lanes<T>; i++) y[i] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(x[i]))) : T(__builtin_sqrt(double(x[i])));
  return y;
}

// log(m * 2^k) = k ln 2 + 2 artanh((m - 1) / (m + 1)), m in [sqrt(1/2), sqrt(2)).
template <class T> INLINE Vec<T> logarithm(Vec<T> x) {
  constexpr bool single = sizeof(T) == 4;
  typedef Simd<T> S;
  constexpr int lift = S::mantissa + 1;  // makes any denormal a normal number
  Int<T> denormal = x < std::numeric_limits<T>::min();
  const Int<T> offset = bits<T>(splat<T>(T(0.70710678118654752)));
  Int<T> b = bits<T>(denormal ? x * T(int64_t(1) << lift) : x) - offset;
  Int<T> k = (b >> S::mantissa) - (denormal & lift);
  typedef decltype(Int<T>{}[0] + 0) W;
  Vec<T> m = value<T>((b & ((W(1) << S::mantissa) - 1)) + offset);
  Vec<T> s = (m - T(1)) / (m + T(1)), z = s * s;
  Vec<T> p = single ? splat<T>(T(1. / 11)) : splat<T>(T(1. / 23));
  if (!single)
    for (int j = 21; j >= 11; j -= 2) p = p * z + T(1. / j);
  for (int j = 9; j >= 3; j -= 2) p = p * z + T(1. / j);
  Vec<T> n = __builtin_convertvector(k, Vec<T>);
  constexpr T high = single ? T(0.693145751953125) : T(0.6931471803691238);
  constexpr T low = single ? T(1.42860682030941723e-6) : T(1.9082149292705877e-10);
  Vec<T> y = n * high + (T(2) * s + (T(2) * s * z * p + n * low));
  y = x == T(__builtin_inf()) ? x : y;
  y = x == T(0) ? splat<T>(T(-__builtin_inf())) : y;
  return ((x < T(0)) | (x != x)) ? splat<T>(T(__builtin_nan(""))) : y;
}
// log(1 + x) with what 1 + x rounds away put back to first order.
template <class T> INLINE Vec<T> logarithm_of_one_plus(Vec<T> x) {
  Vec<T> u = x + T(1);
  Vec<T> lost = x - (u - T(1));
  Vec<T> y = logarithm<T>(u) + lost / u;
  y = u == T(1) ? x : y;
  return ((u == T(0)) | (x == T(__builtin_inf()))) ? logarithm<T>(u) : y;
}
template <class T> INLINE Vec<T> exponential_minus_one(Vec<T> x) {
  Vec<T> p = splat<T>(T(sizeof(T) == 4 ? 1. / 40320 : 1. / 1307674368000.));
  if (sizeof(T) == 8) {
    constexpr double inverse[] = {1. / 87178291200., 1. / 6227020800., 1. / 479001600., 1. / 39916800., 1. / 3628800., 1. / 362880., 1. / 40320.};
    for (double c : inverse) p = p * x + T(c);
  }
  constexpr double inverse[] = {1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2};
  for (double c : inverse) p = p * x + T(c);
  Vec<T> near = p * x * x + x;
  return absolute<T>(x) < T(0.5) ? near : exponential<T>(x) - T(1);
}
template <class T> INLINE Vec<T> softplus(Vec<T> x) {  // torch's, with its threshold of 20
  Vec<T> a = absolute<T>(x);
  Vec<T> y = maximum<T>(x, splat<T>(0)) + logarithm_of_one_plus<T>(exponential<T>(-a));
  return x > T(20) ? x : y;
}
template <class T> INLINE Vec<T> error_function(Vec<T> x) {
  Vec<T> y{};
  for (int i = 0; i < lanes<T>; i++) y[i] = T(__builtin_erf(double(x[i])));
  return y;
}

}  // namespace

// Products by tiles. As elsewhere an output is one chain over k in order, whatever the number of rows: a product of one row
// goes through the same instructions as one of 32.
#pragma once
#include "multiply.h"

#if defined(RECURRA_TILES)
namespace {

// f(0), f(1), ... f(n - 1), numbers that a template takes.
template <class F, int... i> INLINE void each(std::integer_sequence<int, i...>, F f) { (f(std::integral_constant<int, i>{}), ...); }
template <int n, class F> INLINE void each(F f) { each(std::make_integer_sequence<int, n>{}, f); }

// Rows from `row` on of a block's vector z, into tile t and out of it. No row beyond the block's last is read or written.
template <int t> INLINE void start_tile(const Block<float>& block, int z, int row) {
  const float* from = block.start[z];
  int64_t stride = block.start_stride[z];
  int rows = block.rows - row;
  if (!from) return Amx::zero<t>();
  from += row * stride;
  if (rows >= kTileRows) return Amx::load<t>(from, stride);
  alignas(64) float whole[kTileRows * 16] = {};
  for (int r = 0; r < rows; r++) store(whole + r * 16, load(from + r * stride));
  Amx::load<t>(whole, 16);
}
template <int t> INLINE void finish_tile(const Block<float>& block, int z, int row) {
  float* to = block.to[z] + row * block.to_stride;
  int rows = block.rows - row;
  if (rows >= kTileRows) return Amx::store<t>(to, block.to_stride);
  alignas(64) float whole[kTileRows * 16];
  Amx::store<t>(whole, 16);
  for (int r = 0; r < rows; r++) store(to + r * block.to_stride, load(whole + r * 16));
}

// R x Z tiles of a block, vectors from `first` on of a panel `across` wide. The left operand is as P::left makes it, the
// panel as pack_panel does, S = P::stored. Tiles: R Z sums, R lefts, and as many rights as are left.
template <int S, int R, int Z>
ALONE void multiply_tiles(const float* a, int64_t a_stride, const float* W, int across, int64_t depth, const Block<float>& block, int first) {
  constexpr int sums = R * Z, rights = sums + R, room = Z < 8 - rights ? Z : 8 - rights;
  each<sums>([&](auto i) INLINE_LAMBDA { start_tile<i>(block, first + i % Z, i / Z * kTileRows); });
  const int64_t step = int64_t(S) * across * 16, blocks = parts(depth, kTileDepth);
  const float* b = W + first * 16;
  for (int64_t k = 0; k < blocks; k++, a += S * 16, b += 16 * step) {
    auto left = [&](int s) INLINE_LAMBDA { each<R>([&](auto r) INLINE_LAMBDA { Amx::load<sums + r>(a + s * 16 + r * kTileRows * a_stride, a_stride); }); };
    auto products = [&](int s, bool anew) INLINE_LAMBDA {
      each<Z>([&](auto z) INLINE_LAMBDA {
        constexpr int column = z, right = rights + z % room;
        if (anew || room < Z) Amx::load<right>(b + (s * across + column) * 16, step);
        each<R>([&](auto r) INLINE_LAMBDA { Amx::multiply_add<r * Z + column, sums + r, right>(); });
      });
    };
    if (S == 2) left(1), products(0, true);  // low times high, so that the highs are loaded once
    left(0), products(0, S == 1);
    if (S == 2) products(1, true);
  }
  each<sums>([&](auto i) INLINE_LAMBDA { finish_tile<i>(block, first + i % Z, i / Z * kTileRows); });
}

// A block of at most 32 rows and Z vectors: by 2 x 2 tiles, or by 1 x Z where its rows fit into one.
template <int S, int Z> static void multiply_by_tiles(const float* a, int64_t a_stride, const float* W, int64_t depth, const Block<float>& block) {
  if (block.rows <= kTileRows) return multiply_tiles<S, 1, Z>(a, a_stride, W, Z, depth, block, 0);
  multiply_tiles<S, 2, (Z > 2 ? 2 : Z)>(a, a_stride, W, Z, depth, block, 0);
  if constexpr (Z > 2) multiply_tiles<S, 2, Z - 2>(a, a_stride, W, Z, depth, block, 2);
}
template <int S> static Multiply<float> tiled_kernel(int vectors) {
  return vectors == 1 ? multiply_by_tiles<S, 1> : vectors == 2 ? multiply_by_tiles<S, 2> : vectors == 3 ? multiply_by_tiles<S, 3> : multiply_by_tiles<S, 4>;
}

}  // namespace
#endif

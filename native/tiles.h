// The processor's matrix unit (AMX): eight tiles of sixteen rows of 64 bytes. A left operand's tile is sixteen rows of
// sixteen pairs of bfloat16 numbers, k and k + 1 in one; a right operand's has a row for each of those pairs, sixteen columns
// of it; the product is added to sixteen rows of sixteen floats. Strides are in floats.
//
// RECURRA_EMULATED_TILES: the same in ordinary instructions, for tests where the processor has no such unit (`make tiles`).
#pragma once
#include "simd.h"

namespace {
constexpr int kTileRows = 16, kTileDepth = 32, kTiledRows = 2 * kTileRows;  // the last: of a block of tiles
}

#if defined(RECURRA_EMULATED_TILES) || defined(__AMX_BF16__)
#define RECURRA_TILES

namespace {

#if defined(RECURRA_EMULATED_TILES)
struct Amx {
  struct Configured {
    Configured() { fill(0), configured = true; }
    ~Configured() { fill(0x7fc00000), configured = false; }
    Configured(const Configured&) = delete;
  };
  template <int t> static void zero() { __builtin_memset(tile(t), 0, sizeof *tiles); }
  template <int t> static void load(const float* p, int64_t stride) {
    for (int r = 0; r < kTileRows; r++) __builtin_memcpy(tile(t) + r * 16, p + r * stride, 64);
  }
  template <int t> static void store(float* p, int64_t stride) {
    for (int r = 0; r < kTileRows; r++) __builtin_memcpy(p + r * stride, tile(t) + r * 16, 64);
  }
  // Denormal numbers are zero, read and written, whatever the mode of other instructions.
  template <int to, int left, int right> static void multiply_add() {
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode | 0x8040);
    multiply_add(tile(to), tile(left), tile(right));
    __builtin_ia32_ldmxcsr(mode);
  }

 private:
  alignas(64) static inline thread_local float tiles[8][kTileRows * 16];
  static inline thread_local bool configured = false;
  static float* tile(int t) {
    if (!configured) __builtin_trap();  // as the processor does
    return tiles[t];
  }
  static void fill(int32_t bits) {
    for (auto& t : tiles)
      for (float& x : t) __builtin_memcpy(&x, &bits, sizeof x);
  }
  // The order of TDPBF16PS in Intel's manual: sums of the even and of the odd k of the tile, both from zero, then theirs.
  ALONE void multiply_add(float* sum, const float* a, const float* b) {
    auto half = [](Int<float> pair, bool odd) { return (Vec<float>)(odd ? pair & int32_t(0xffff0000) : pair << 16); };
    for (int m = 0; m < kTileRows; m++) {
      Vec<float> even{}, odd{};
      for (int k = 0; k < 16; k++) {
        auto x = (Int<float>)splat(a[m * 16 + k]), w = (Int<float>)::load(b + k * 16);
        even = half(x, false) * half(w, false) + even, odd = half(x, true) * half(w, true) + odd;
      }
      ::store(sum + m * 16, ::load(sum + m * 16) + (even + odd));
    }
  }
};
#else
// Assembly, because the compiler's intrinsics take digits for tiles, and no constants of a template.
struct Amx {
  struct Configured {
    Configured() {
      alignas(64) uint8_t shape[64] = {1};  // palette 1; from 16 on the bytes of a row of each tile, from 48 on its rows
      for (int t = 0; t < 8; t++) shape[16 + 2 * t] = 64, shape[48 + t] = kTileRows;
      __asm__ volatile("ldtilecfg %0" ::"m"(shape));
    }
    ~Configured() { __asm__ volatile("tilerelease"); }
    Configured(const Configured&) = delete;
  };
  template <int t> INLINE void zero() { __asm__ volatile("tilezero %%tmm%c0" ::"i"(t)); }
  template <int t> INLINE void load(const float* p, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride * 4), "i"(t) : "memory");
  }
  template <int t> INLINE void store(float* p, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride * 4), "i"(t) : "memory");
  }
  template <int to, int left, int right> INLINE void multiply_add() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(to), "i"(left), "i"(right));
  }
};
#endif

}  // namespace
#endif

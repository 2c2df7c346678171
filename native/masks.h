// Random masks. Each row has a seed, and its units are the numbers that SplitMix64 draws from it (Steele, Lea and Flood
// 2014, OOPSLA, doi 10.1145/2660193.2660195), two units of 32 bits a number. recurra/machine/masks.py means the same.
#pragma once
#include <cstdint>

struct MaskCall {
  const int64_t* seeds;  // one for each row
  int64_t rows, width;
  uint64_t threshold;  // of 2^32: a unit whose number is below it is dropped
  double dropped, kept;
  void* to;
};

// The same loop for each instruction set: whole numbers have the same bits in all of them.
template <class T> static inline __attribute__((always_inline)) void fill_masks(const MaskCall& call) {
  auto draw = [](uint64_t z) __attribute__((always_inline)) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  };
  const uint64_t step = 0x9E3779B97F4A7C15u, below = call.threshold;
  const T dropped = T(call.dropped), kept = T(call.kept);
  T* to = static_cast<T*>(call.to);
  for (int64_t row = 0; row < call.rows; row++, to += call.width) {
    uint64_t state = uint64_t(call.seeds[row]);
    for (int64_t i = 0; i + 1 < call.width; i += 2) {
      uint64_t z = draw(state += step);
      to[i] = (z & 0xFFFFFFFFu) < below ? dropped : kept;
      to[i + 1] = (z >> 32) < below ? dropped : kept;
    }
    if (call.width % 2) to[call.width - 1] = (draw(state + step) & 0xFFFFFFFFu) < below ? dropped : kept;
  }
}

template <class T> void fill_masks_generic(const MaskCall& call) { fill_masks<T>(call); }
#if defined(__x86_64__)
template <class T> __attribute__((target("arch=x86-64-v3"))) void fill_masks_v3(const MaskCall& call) { fill_masks<T>(call); }
template <class T> __attribute__((target("arch=x86-64-v4"))) void fill_masks_v4(const MaskCall& call) { fill_masks<T>(call); }
#endif

// set: the name of the instruction set that the machine runs with; "" where it does not.
template <class T> void fill_masks(const char* set, const MaskCall& call) {
#if defined(__x86_64__)
  if (set[0]) return set[0] == 'v' && set[1] == '3' ? fill_masks_v3<T>(call) : fill_masks_v4<T>(call);
#endif
  (void)set;
  fill_masks_generic<T>(call);
}

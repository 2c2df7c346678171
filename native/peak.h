// What this machine can do at most, measured: multiply-adds out of registers, and reading what lies in one level of cache.
#pragma once
#include <stdlib.h>
#include <time.h>

#include "tiled.h"
#include "threads.h"

namespace {

static double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

// As many chains as the accumulators of a product: their latency is hidden, and nothing is read. P: how numbers are multiplied.
template <class P, class T = typename P::Number> ALONE int64_t multiply_for(int64_t rounds) {
  constexpr int chains = kRowsDown * kVectorsAcross;
  volatile T seed = T(0.5);
  Vec<T> factor = splat(T(seed)), term = splat(T(seed)), sum[chains];
#pragma GCC unroll 32
  for (int i = 0; i < chains; i++) sum[i] = splat(T(seed + T(i)));
  for (int64_t n = 0; n < rounds; n++)
#pragma GCC unroll 32
    for (int i = 0; i < chains; i++) sum[i] = P::multiply_add(sum[i], factor, term);
  Vec<T> all = sum[0];
  for (int i = 1; i < chains; i++) all += sum[i];
  volatile T kept = all[0];
  (void)kept;
  return rounds * chains * lanes<T> * P::fold;
}

#if defined(RECURRA_TILES)
// Four tiles of sums: those of a block. A product of numbers in two halves takes three.
template <class P> static int64_t multiply_tiles_for(int64_t rounds) {
  Amx::Configured configured;
  each<8>([](auto t) INLINE_LAMBDA { Amx::zero<t>(); });
  for (int64_t n = 0; n < rounds; n++) each<4>([](auto i) INLINE_LAMBDA { Amx::multiply_add<i, 4 + i / 2, 6 + i % 2>(); });
  return rounds * 4 * kTileRows * 16 * kTileDepth / (P::stored == 2 ? 3 : 1);
}
#endif

template <class T> ALONE int64_t read_for(const char* memory, int64_t bytes, int64_t rounds) {
  constexpr int at_once = 8;
  const int64_t block = at_once * kVectorBytes;
  Int<T> sum[at_once] = {};
  for (int64_t n = 0; n < rounds; n++) {
    for (const char *p = memory, *end = memory + bytes / block * block; p < end; p += block)
#pragma GCC unroll 8
      for (int i = 0; i < at_once; i++) {
        Int<T> v;
        __builtin_memcpy(&v, p + i * kVectorBytes, sizeof v);
        sum[i] ^= v;
      }
    __asm__ volatile("" ::: "memory");  // each round reads anew
  }
  for (int i = 1; i < at_once; i++) sum[0] ^= sum[i];
  volatile auto kept = sum[0][0];
  (void)kept;
  return rounds * (bytes / block * block);
}

// The best of a few rounds of work(), which tells how much it did, on all threads at once: what they did a second together.
template <class Work> static double rate(int threads, Work work) {
  double best = 0, *rates = static_cast<double*>(calloc(size_t(threads), sizeof(double)));
  for (int round = 0; round < 7; round++) {
    Threads::run(threads, [&](int thread, int of) {
      work();  // warm: the clock, the cache, and the others
      if (of > 1) Threads::barrier();
      double begun = seconds();
      int64_t done = work();
      rates[thread] = double(done) / (seconds() - begun);
    });
    double total = 0;
    for (int k = 0; k < threads; k++) total += rates[k];
    best = total > best ? total : best;
  }
  free(rates);
  return best;
}

// Multiply-adds a second.
template <class P> static double multiply_rate(int threads) {
#if defined(RECURRA_TILES)
  if constexpr (P::tiled)
    return rate(threads, [] { return multiply_tiles_for<P>(1 << 13); });
  else
#endif
    return rate(threads, [] { return multiply_for<P>(1 << 15); });
}
// Bytes a second, of memory that every thread reads from its beginning to its end.
template <class T> static double read_rate(const void* memory, int64_t bytes, int threads) {
  int64_t rounds = larger(1, (int64_t(16) << 20) / larger(1, bytes));
  return rate(threads, [=] { return read_for<T>(static_cast<const char*>(memory), bytes, rounds); });
}

}  // namespace

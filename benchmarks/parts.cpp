// What parts of the machine are measured against: the rate of multiply-adds that the processor reaches when it does
// nothing else, and the pointwise part of an LSTM step as one loop. Compiled by benchmarks/parts.py with the machine's
// own flags and functions, for the instruction set that the machine chose.
#include <omp.h>

#include "../native/functions.h"

namespace {

constexpr int kChains = kVectorBytes == 64 ? 24 : 12;  // independent chains: latency times units, and they fit the registers

float multiply_add_chains(int64_t rounds) {
  Vec<float> sum[kChains], a = splat(0.999f), b = splat(1e-4f);
#pragma GCC unroll 24
  for (int i = 0; i < kChains; i++) sum[i] = splat(0.1f * float(i));
  for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; i++) {
      sum[i] = sum[i] * a + b;
      asm volatile("" : "+v"(sum[i]));  // one instruction a chain and round, in this order
    }
  }
  Vec<float> total{};
#pragma GCC unroll 24
  for (int i = 0; i < kChains; i++) total += sum[i];
  return total[0];
}

}  // namespace

// Runs chains of multiply-adds on each thread. Returns how many multiply-adds that were, over all threads.
extern "C" double multiply_adds(int64_t rounds, int threads, float* sink) {
#pragma omp parallel num_threads(threads)
  {
    float total = multiply_add_chains(rounds);
    if (omp_get_thread_num() == 0) *sink = total;
  }
  return double(rounds) * kChains * lanes<float> * threads;
}

// i f g o = squashed gates[4 n], kept in saved[4 n]; c = f c + i g; h = o tanh(c). n is a multiple of the lanes.
extern "C" void lstm_pointwise(int64_t steps, int64_t n, const float* gates, float* c, float* h, float* saved) {
  for (int64_t t = 0; t < steps; t++) {
    for (int64_t k = 0; k < n; k += lanes<float>) {
      Vec<float> i = sigmoid<float>(load(gates + k)), f = sigmoid<float>(load(gates + n + k));
      Vec<float> g = hyperbolic_tangent(load(gates + 2 * n + k)), o = sigmoid<float>(load(gates + 3 * n + k));
      Vec<float> next = f * load(c + k) + i * g;
      store(saved + k, i), store(saved + n + k, f), store(saved + 2 * n + k, g), store(saved + 3 * n + k, o);
      store(c + k, next);
      store(h + k, o * hyperbolic_tangent(next));
    }
    asm volatile("" ::: "memory");  // each step reads and writes memory anew
  }
}

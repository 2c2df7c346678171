// The one place that starts threads: torch's own OpenMP pool (its libgomp; none is shipped beside it). It is called by
// the names of libgomp's binary interface, which every compiler's OpenMP pragmas do not share: Clang's would bring in a
// second pool, which fights the first one for the cores.
//
// RECURRA_STD_THREADS: threads of the standard library instead, new ones for each call. ThreadSanitizer (`make sanitize`)
// follows those; of libgomp's own barriers, which it cannot see, it would report a race at each.
#pragma once
#include <sched.h>
#include <unistd.h>

#include <atomic>

#ifdef RECURRA_STD_THREADS
#include <barrier>
#include <thread>
#include <vector>
#else
extern "C" {
void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags);
void GOMP_barrier();
int omp_get_thread_num();
int omp_get_num_threads();
}
#endif

namespace {

const pid_t loaded = getpid();  // when the library was: a child forked later has another number

class Threads {
 public:
  // work(thread, of): called once by each member of the team. A forked child has no pool and runs alone.
  template <class Work> static void run(int threads, Work work) {
    if (threads <= 1 || forked()) return guarded(work, 0, 1);
    team(threads, work);
  }
  // Only in a team of more than one.
  static void barrier();
  static bool forked() { return getpid() != loaded; }

 private:
#ifdef RECURRA_STD_THREADS
  static inline thread_local std::barrier<>* meeting = nullptr;
  template <class Work> static void team(int threads, Work& work) {
    std::barrier<> here(threads);
    auto member = [&](int thread) {
      meeting = &here;
      guarded(work, thread, threads);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; thread++) others.emplace_back(member, thread);
    member(0);
    for (std::thread& other : others) other.join();
  }
#else
  template <class Work> static void team(int threads, Work& work) {
    GOMP_parallel([](void* data) { guarded(*static_cast<Work*>(data), omp_get_thread_num(), omp_get_num_threads()); }, &work, unsigned(threads), 0);
  }
#endif
  // Results that are denormal are flushed inside the machine only (a decaying state would cost 88 times more), the mode
  // restored. What is read is taken as it is: x > 0, 1 / x and log(x) of a denormal x are no matter of 1e-38.
  template <class Work> static void guarded(Work& work, int thread, int of) {
#if defined(__x86_64__)
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode | 0x8000);
    work(thread, of);
    __builtin_ia32_ldmxcsr(mode);
#else
    work(thread, of);
#endif
  }
};

#ifdef RECURRA_STD_THREADS
inline void Threads::barrier() { meeting->arrive_and_wait(); }
#else
inline void Threads::barrier() { GOMP_barrier(); }
#endif

// Where the members of a team meet at every step of a loop: they wait awake, because the others are at most a microsecond
// behind, but give the core away to whoever else wants it before long.
class alignas(64) MeetingPoint {
 public:
  void wait(int of) {
    uint32_t now = round.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == uint32_t(of)) {
      arrived.store(0, std::memory_order_relaxed);
      round.store(now + 1, std::memory_order_release);
      return;
    }
    for (int tries = 0; round.load(std::memory_order_acquire) == now; tries++) tries < kTriesAwake ? pause() : void(sched_yield());
  }

 private:
  static constexpr int kTriesAwake = 2000;
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::atomic<uint32_t> arrived{0};
  alignas(64) std::atomic<uint32_t> round{0};
};

}  // namespace

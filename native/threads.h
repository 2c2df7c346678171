// The one place that starts threads: torch's own OpenMP pool (its libgomp; none is shipped beside it). It is called by
// the names of libgomp's binary interface, which every compiler's OpenMP pragmas do not share: Clang's would bring in a
// second pool, which fights the first one for the cores.
#pragma once
#include <unistd.h>

extern "C" {
void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags);
void GOMP_barrier();
int omp_get_thread_num();
int omp_get_num_threads();
}

namespace {

const pid_t loaded = getpid();  // when the library was: a child forked later has another number

class Threads {
 public:
  // work(thread, of): called once by each member of the team. A forked child has no pool and runs alone.
  template <class Work> static void run(int threads, Work work) {
    if (threads <= 1 || forked()) return guarded(work, 0, 1);
    GOMP_parallel([](void* data) { guarded(*static_cast<Work*>(data), omp_get_thread_num(), omp_get_num_threads()); }, &work, unsigned(threads), 0);
  }
  // Only in a team of more than one.
  static void barrier() { GOMP_barrier(); }
  static bool forked() { return getpid() != loaded; }

 private:
  // Denormals are flushed inside the machine only (a decaying state would cost 88 times more), the mode restored.
  template <class Work> static void guarded(Work& work, int thread, int of) {
#if defined(__x86_64__)
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode | 0x8040);
    work(thread, of);
    __builtin_ia32_ldmxcsr(mode);
#else
    work(thread, of);
#endif
  }
};

}  // namespace

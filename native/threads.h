// The one place that starts threads: torch's own OpenMP pool (its libgomp; none is shipped beside it).
#pragma once
#include <omp.h>
#include <unistd.h>

namespace {

class Threads {
 public:
  // work(thread, of): called once by each member of the team. A forked child has no pool and runs alone.
  template <class Work> static void run(int threads, Work work) {
    if (threads <= 1 || forked()) return alone(work);
#pragma omp parallel num_threads(threads)
    guarded(work, omp_get_thread_num(), omp_get_num_threads());
  }
  // Only in a team of more than one.
  static void barrier() {
#pragma omp barrier
  }
  static bool forked() {
    static const pid_t loaded = getpid();
    return getpid() != loaded;
  }

 private:
  template <class Work> static void alone(Work work) { guarded(work, 0, 1); }
  // Denormals are flushed inside the machine only (a decaying state would cost 88 times more), the mode restored.
  template <class Work> static void guarded(Work work, int thread, int of) {
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

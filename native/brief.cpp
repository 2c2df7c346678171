// Weights of fewer bits. Compiled once for each instruction set; module.cpp chooses at load.
#include "bytes.h"
#include "sequence.h"

extern "C" void NAME(recurra_brief_, RECURRA_ISA)(Machine& machine) {
  machine.kinds[kBrief] = kernels<Brief>();
#if defined(RECURRA_TILES)  // with all else that the bf16 build has
  machine.kinds[kSplit] = kernels<Split>();
#else
  machine.kinds[kBytes] = kernels<Bytes>();
#endif
#if defined(__AVX512BF16__) && !defined(RECURRA_TILES)
  machine.kinds[kSplit] = kernels<Split>(false);
#endif
}

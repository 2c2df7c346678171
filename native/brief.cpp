// Weights of fewer bits. Compiled once for each instruction set; module.cpp chooses at load.
#include "sequence.h"

extern "C" void NAME(recurra_brief_, RECURRA_ISA)(Machine& machine) {
  machine.kinds[kBrief] = kernels<Brief>(), machine.kinds[kBytes] = kernels<Bytes>();
#if defined(__AVX512BF16__)
  machine.kinds[kSplit] = kernels<Split>(false);
#endif
}

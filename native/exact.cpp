// float and double as they are. Compiled once for each instruction set; module.cpp chooses at load.
#include "sequence.h"

namespace {

template <class T> static void apply(int32_t code, int64_t n, const void* a, const void* b, const void* c, void* to) {
  auto tile = [](const void* p) { return Tile<T>{static_cast<T*>(const_cast<void*>(p)), 0, lanes<T>, true}; };
  Operands<T> operands{{tile(a), tile(b), tile(c)}, tile(to), {nullptr, 0, 0, false}};
  Extent row{1, n, rounded<T>(n)};
  if (!reduces(code)) return operation<T>(code)(row, operands);
  T* partial = reinterpret_cast<T*>(scratch_arena.take(partial_size<T>(n) * int64_t(sizeof(T))));
  reduce_tile<T>(code, row, 0, operands.in[0], partial, 0);
  *static_cast<T*>(to) = reduced<T>(code, partial, n);
}

}  // namespace

extern "C" void NAME(recurra_exact_, RECURRA_ISA)(Machine& machine) {
  machine.kinds[kFloat] = kernels<Plain<float>>(), machine.kinds[kDouble] = kernels<Plain<double>>();
  machine.apply[0] = apply<float>, machine.apply[1] = apply<double>;
  machine.read_rate = read_rate<float>;
}

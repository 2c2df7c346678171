// Python's view of the machine: a Program is parsed and checked once; calls pass plain addresses, because an array object
// a tensor costs more than a small step. Whoever calls (recurra/machine/native.py) answers for shapes, types and lifetimes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <sched.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "masks.h"
#include "program.h"

namespace nb = nanobind;
using namespace nb::literals;

extern "C" {
#if defined(__x86_64__)
void recurra_exact_v3(Machine&);
void recurra_exact_v4(Machine&);
void recurra_brief_v3(Machine&);
void recurra_brief_v4(Machine&);
void recurra_brief_bf16(Machine&);
void recurra_brief_amx(Machine&);
#else
void recurra_exact_generic(Machine&);
void recurra_brief_generic(Machine&);
#endif
}

namespace {

// Whether the processor has a matrix unit for bfloat16, and Linux lets this process use it: the threads it has and will have,
// and its forked children.
bool matrix_unit() {
#if defined(RECURRA_EMULATED_TILES)
  return true;
#elif defined(__x86_64__) && defined(__linux__)
  constexpr unsigned needed = 1u << 22 | 1u << 24;  // amx-bf16, amx-tile
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of Linux 5.16
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & needed) == needed && syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
  return false;
#endif
}

// The builds for the widest vectors this processor has; RECURRA_ISA asks for less: avx2, avx512 (without its products of
// bfloat16), avx512-bf16 (without the matrix unit). No name: none can run here.
Machine choose() {
  Machine chosen{};
#if defined(__x86_64__)
  const char* given = std::getenv("RECURRA_ISA");  // recurra/machine/program.py refuses other values
  std::string wish = given ? given : "";
  __builtin_cpu_init();
  if (wish != "avx2" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")) {
    bool products = wish != "avx512" && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    bool tiles = products && wish != "avx512-bf16" && matrix_unit();
    chosen.name = tiles ? "amx" : products ? "bf16" : "v4";
    recurra_exact_v4(chosen);
    products ? recurra_brief_bf16(chosen) : recurra_brief_v4(chosen);
    if (tiles) recurra_brief_amx(chosen);
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    chosen.name = "v3";
    recurra_exact_v3(chosen), recurra_brief_v3(chosen);
  }
#else
  chosen.name = "generic";
  recurra_exact_generic(chosen), recurra_brief_generic(chosen);
#endif
  return chosen;
}
const Machine& machine() {
  static const Machine chosen = choose();
  return chosen;
}
const Kernels& kernels(int kind) {
  if (!machine().name) throw std::runtime_error("this processor has no AVX2: the native machine cannot run here");
  if (kind < 0 || kind >= kKinds || !machine().kinds[kind].run) throw std::invalid_argument("native program: no such kind: " + std::to_string(kind));
  return machine().kinds[kind];
}
std::vector<int> kinds() {
  std::vector<int> to_be_had;
  for (int kind = 0; kind < kKinds; kind++)
    if (machine().kinds[kind].offered) to_be_had.push_back(kind);
  return to_be_had;
}
bool poison_scratch = false;
bool more_than_cores = false;

// How many threads of this process can run at once: the cores it may use, or its container's share of them. A step that
// threads share costs hundreds of microseconds where one of them waits for a core.
int cores() {
  static const int share = [] {
    std::ifstream file("/sys/fs/cgroup/cpu.max");  // "max 100000" where there is no limit
    double quota, period;
    return file >> quota >> period && quota > 0 && period > 0 ? int(std::ceil(quota / period)) : std::numeric_limits<int>::max();
  }();
  cpu_set_t own;
  return std::max(1, std::min(share, sched_getaffinity(0, sizeof own, &own) == 0 ? CPU_COUNT(&own) : share));
}

int most(int threads) { return threads <= 1 || more_than_cores ? threads : std::min(threads, cores()); }

class Program {
 public:
  Program(const std::vector<int64_t>& code, std::vector<double> constants, int kind)
      : kernels(::kernels(kind)), code(code), constants(std::move(constants)) {
    procedure.constants = this->constants.data();
    procedure.constant_count = int32_t(this->constants.size());
    parse();
    kernels.layout(procedure);
  }

  Program(const Program&) = delete;

  Procedure procedure{};
  const Kernels& kernels;

 private:
  std::vector<int64_t> code;
  std::vector<double> constants;
  size_t at = 0;
  std::vector<std::unique_ptr<char[]>> memory;

  template <class T> T* make(int64_t n) {
    memory.push_back(std::make_unique<char[]>(sizeof(T) * size_t(n) + 1));
    return reinterpret_cast<T*>(memory.back().get());
  }
  int32_t next(int64_t low = INT32_MIN, int64_t high = INT32_MAX) {
    if (at >= code.size()) throw std::invalid_argument("native program: ends too early");
    int64_t x = code[at++];
    if (x < low || x > high) throw std::invalid_argument("native program: number " + std::to_string(x) + " at " + std::to_string(at - 1) + " is out of range");
    return int32_t(x);
  }
  int32_t count() { return next(0, 1 << 20); }
  int32_t index(int32_t n) { return next(0, int64_t(n) - 1); }
  int32_t optional_array() { return next(-1, procedure.array_count - 1); }

  // `width`: how many columns are read or written there; a vector's own width is known to the caller only.
  Operand operand(const Stage& stage, int slots, int64_t width) {
    Operand o;
    o.place = next(kNone, kConstant);
    const int32_t sizes[] = {1 << 30, slots, procedure.array_count, procedure.shifted_count, stage.local_count, stage.state_count, stage.state_count, procedure.static_count, procedure.constant_count};
    o.index = index(sizes[o.place]);
    o.column = next(0, 1 << 30);
    o.broadcast = next(0, 1);
    int64_t known = o.place == kRows      ? procedure.array_widths[o.index]
                    : o.place == kShifted ? procedure.array_widths[procedure.shifted[o.index].history]
                    : o.place == kLocal   ? stage.local_widths[o.index]
                    : o.place == kState || o.place == kNext ? stage.states[o.index].width
                                                            : INT64_MAX;
    if (o.column + (o.broadcast ? 1 : width) > known)
      throw std::invalid_argument("native program: columns from " + std::to_string(o.column) + " on, beyond a row of " + std::to_string(known));
    return o;
  }

  void parse() {
    Procedure& p = procedure;
    p.array_count = count();
    int32_t* widths = make<int32_t>(p.array_count);
    for (int i = 0; i < p.array_count; i++) widths[i] = next(1, 1 << 30);
    p.array_widths = widths;
    p.shifted_count = count();
    Shifted* shifted = make<Shifted>(p.shifted_count);
    for (int i = 0; i < p.shifted_count; i++) {
      shifted[i].history = index(p.array_count);
      shifted[i].initial = optional_array();
      shifted[i].order = next(-1, 1);
    }
    p.shifted = shifted;
    p.static_count = count();
    p.stage_count = next(0, 4);
    p.stages = make<Stage>(p.stage_count);
    for (int i = 0; i < p.stage_count; i++) parse(p.stages[i]);
    parse_gains();
    if (at != code.size()) throw std::invalid_argument("native program: goes on after its end");
  }
  void parse_gains() {
    Procedure& p = procedure;
    p.target_count = count(), p.gain_count = count();
    Gain* gains = make<Gain>(p.gain_count);
    std::vector<bool> written(size_t(p.target_count));
    for (int i = 0; i < p.gain_count; i++) {
      Gain& g = gains[i];
      g.R = next(1, 1 << 30), g.C = next(1, 1 << 30);
      g.left = operand({}, 0, g.R), g.right = operand({}, 0, g.C);
      if ((g.left.place != kNone && g.left.place != kRows && g.left.place != kShifted) || (g.right.place != kRows && g.right.place != kShifted) ||
          g.left.broadcast || g.right.broadcast || (g.left.place == kNone && g.R != 1))
        throw std::invalid_argument("native program: a gain reads what is no rows");
      g.target_count = count();
      int32_t* targets = make<int32_t>(g.target_count);
      bool* add = make<bool>(g.target_count);
      for (int k = 0; k < g.target_count; k++) {
        targets[k] = index(p.target_count);
        add[k] = written[size_t(targets[k])], written[size_t(targets[k])] = true;
      }
      g.targets = targets, g.add = add;
    }
    p.gains = gains;
  }
  void parse(Stage& stage) {
    stage.loop = next(0, 1), stage.order = next(-1, 1);
    stage.state_count = count();
    State* states = make<State>(stage.state_count);
    for (int i = 0; i < stage.state_count; i++) {
      states[i].width = next(1, 1 << 30);
      states[i].initial = optional_array(), states[i].final = optional_array();
    }
    stage.states = states;
    stage.local_count = count();
    int32_t* widths = make<int32_t>(stage.local_count);
    for (int i = 0; i < stage.local_count; i++) widths[i] = next(1, 1 << 30);
    stage.local_widths = widths;
    stage.phase_count = count();
    stage.phases = make<Phase>(stage.phase_count);
    for (int i = 0; i < stage.phase_count; i++) parse(stage, stage.phases[i]);
  }
  void parse(const Stage& stage, Phase& phase) {
    phase.width = next(1, 1 << 30);
    phase.slot_count = count();
    phase.group_count = count();
    phase.groups = make<Group>(phase.group_count);
    for (int i = 0; i < phase.group_count; i++) {
      Group& group = phase.groups[i];
      group.left = operand(stage, 0, 1);
      group.depth = next(1, 1 << 30);
      group.gate_count = next(1, 1 << 20);
      Gate* gates = make<Gate>(group.gate_count);
      for (int g = 0; g < group.gate_count; g++) {
        gates[g].matrix = index(procedure.static_count), gates[g].transposed = next(0, 1);
        gates[g].first_column = next(0, 1 << 30), gates[g].first_row = next(0, 1 << 30);
        gates[g].slot = index(phase.slot_count);
        gates[g].start = operand(stage, phase.slot_count, phase.width);
      }
      group.gates = gates;
    }
    phase.instruction_count = count();
    Instruction* instructions = make<Instruction>(phase.instruction_count);
    phase.sum_count = 0;
    for (int i = 0; i < phase.instruction_count; i++) {
      Instruction& n = instructions[i];
      n.code = next(kAdd, kRowdevsq);  // slices and concatenations (31, 32) are no instructions
      if (n.code == 31 || n.code == 32) throw std::invalid_argument("native program: " + std::to_string(n.code) + " is no instruction");
      int64_t result = reduces(n.code) ? 1 : phase.width;
      n.to = operand(stage, phase.slot_count, result), n.also = operand(stage, phase.slot_count, result);
      n.a = operand(stage, phase.slot_count, phase.width), n.b = operand(stage, phase.slot_count, phase.width), n.c = operand(stage, phase.slot_count, phase.width);
      phase.sum_count += reduces(n.code);
    }
    phase.instructions = instructions;
  }
};

template <class P> std::vector<P> addresses(nb::handle sequence, int expected, const char* what) {
  std::vector<P> to;
  to.reserve(size_t(expected));
  for (nb::handle h : sequence) to.push_back(reinterpret_cast<P>(nb::cast<intptr_t>(h)));
  if (int(to.size()) != expected) throw std::invalid_argument(std::string("native call: ") + std::to_string(to.size()) + " " + what + ", not " + std::to_string(expected));
  return to;
}

// Arrays, statics and targets of gains by address (a static's stride is that of its rows; a target that is not wanted is
// 0); `offset`: the first rows of all steps, or 0.
struct Addresses {
  std::vector<void*> arrays, targets;
  std::vector<const void*> statics;
  std::vector<int64_t> strides;
  Addresses(const Program& program, nb::list arrays, nb::list statics, nb::tuple strides, nb::handle targets)
      : arrays(addresses<void*>(arrays, program.procedure.array_count, "arrays")),
        targets(addresses<void*>(targets, program.procedure.target_count, "targets")),
        statics(addresses<const void*>(statics, program.procedure.static_count, "statics")),
        strides(addresses<int64_t>(strides, program.procedure.static_count, "strides")) {}
  Call call(int64_t T, int64_t B, int64_t N, intptr_t offset, int threads) const {
    return {T, B, N, reinterpret_cast<const int64_t*>(offset), threads, poison_scratch, arrays.data(), nullptr, statics.data(), strides.data(), targets.data()};
  }
};

void run(const Program& program, int64_t T, int64_t B, int64_t N, intptr_t offset, int threads, nb::list arrays, nb::list statics, nb::tuple strides, nb::handle targets) {
  Addresses given(program, arrays, statics, strides, targets);
  Call call = given.call(T, B, N, offset, most(threads));
  if (N > 8) {
    nb::gil_scoped_release release;
    program.kernels.run(program.procedure, call);
  } else {
    program.kernels.run(program.procedure, call);
  }
}

nb::dict told(const PhaseShape& phase) {
  nb::dict to;
  to["rows"] = phase.rows, to["columns"] = phase.columns;
  to["tile"] = nb::make_tuple(phase.tile_rows, phase.tile_columns);
  to["block"] = nb::make_tuple(phase.block_rows, phase.block_columns), to["most_block_rows"] = phase.most_block_rows;
  to["multiply_adds"] = phase.multiply_adds, to["unit"] = phase.unit, to["done"] = phase.done, to["packed_bytes"] = phase.packed_bytes;
  return to;
}

// What `run` would do with such a call: its threads, chunks and tiles, and what moves. Of an array's address it matters
// only whether there is one (0: none, 1: for a chunk of rows), of a target's too; nothing is read there.
nb::dict describe(const Program& program, int64_t T, int64_t B, int64_t N, intptr_t offset, int threads, nb::list arrays, nb::list targets) {
  const Procedure& procedure = program.procedure;
  auto present = addresses<void*>(arrays, procedure.array_count, "arrays");
  auto wanted = addresses<void*>(targets, procedure.target_count, "targets");
  Call call{T, B, N, reinterpret_cast<const int64_t*>(offset), std::max(1, most(threads)), false, present.data(), nullptr, nullptr, nullptr, wanted.data()};
  CallShape shape{};
  std::vector<int64_t> sequences(size_t(call.threads));
  std::vector<PhaseShape> phases[4];
  shape.sequences = sequences.data();
  for (int s = 0; s < procedure.stage_count; s++) {
    phases[s].resize(size_t(procedure.stages[s].phase_count));
    shape.stages[s].phases = phases[s].data();
  }
  program.kernels.describe(procedure, call, shape);
  sequences.resize(size_t(shape.threads));
  nb::list stages;
  for (int s = 0; s < procedure.stage_count; s++) {
    const StageShape& stage = shape.stages[s];
    nb::dict to;
    nb::list told_phases;
    for (const PhaseShape& phase : phases[s]) told_phases.append(told(phase));
    to["loop"] = bool(procedure.stages[s].loop), to["phases"] = told_phases;
    to["rows_read"] = stage.rows[0], to["rows_written"] = stage.rows[1];
    to["chunk_read"] = stage.chunk_rows[0], to["chunk_written"] = stage.chunk_rows[1];
    stages.append(to);
  }
  nb::dict to;
  to["threads"] = shape.threads, to["together"] = bool(shape.together), to["apart"] = bool(shape.apart), to["packed"] = bool(shape.packed);
  to["steps"] = shape.steps, to["sequences"] = sequences, to["stages"] = stages;
  to["gain_multiply_adds"] = shape.gain_multiply_adds, to["gain_rows"] = shape.gain_rows;
  return to;
}

double multiply_rate(int kind, int threads) {
  auto measure = kernels(kind).multiply_rate;
  nb::gil_scoped_release release;
  return measure(std::max(1, threads));
}
double read_rate(int64_t bytes, int threads) {
  if (!machine().name) throw std::runtime_error("this processor has no AVX2: the native machine cannot run here");
  std::vector<char> memory(size_t(std::max<int64_t>(bytes, 0)) + 64, char(1));
  char* first = memory.data() + (64 - reinterpret_cast<intptr_t>(memory.data()) % 64);  // of a cache line
  nb::gil_scoped_release release;
  return machine().read_rate(first, bytes, std::max(1, threads));
}

// Two calls side by side, one thread each: arguments as those of `run`.
void run_both(const Program& first, nb::tuple one, const Program& second, nb::tuple two) {
  if (&first.kernels != &second.kernels) throw std::invalid_argument("native calls: of two kinds");
  auto addresses = [](const Program& program, nb::tuple of) { return Addresses(program, nb::cast<nb::list>(of[5]), nb::cast<nb::list>(of[6]), nb::cast<nb::tuple>(of[7]), of[8]); };
  auto call = [](const Addresses& given, nb::tuple of) { return given.call(nb::cast<int64_t>(of[0]), nb::cast<int64_t>(of[1]), nb::cast<int64_t>(of[2]), nb::cast<intptr_t>(of[3]), 1); };
  Addresses a = addresses(first, one), b = addresses(second, two);
  Call left = call(a, one), right = call(b, two);
  nb::gil_scoped_release release;
  first.kernels.run_both(first.procedure, left, second.procedure, right);
}

// A program with its weights packed once and its arrays known but for one in and one out: what streaming calls.
class Session {
 public:
  Session(const Program& program, int64_t B, nb::list arrays, nb::list statics, nb::tuple strides, int input, int output)
      : kernels(program.kernels), given(program, arrays, statics, strides, nb::tuple()), input(input), output(output) {
    int count = int(given.arrays.size());
    if (input < 0 || input >= count || output < 0 || output >= count) throw std::invalid_argument("native session: no such array");
    stream = kernels.open_stream(program.procedure, given.call(1, B, B, 0, 1));
  }
  Session(const Session&) = delete;
  ~Session() {
    if (stream) kernels.close_stream(stream);
  }
  void step(intptr_t x, intptr_t y) { kernels.step_stream(stream, input, reinterpret_cast<void*>(x), output, reinterpret_cast<void*>(y)); }

 private:
  const Kernels& kernels;
  Addresses given;
  int input, output;
  void* stream = nullptr;
};

void apply(bool is_double, int code, int64_t n, intptr_t a, intptr_t b, intptr_t c, intptr_t to) {
  machine().apply[is_double](code, n, reinterpret_cast<void*>(a), reinterpret_cast<void*>(b), reinterpret_cast<void*>(c), reinterpret_cast<void*>(to));
}

void masks(bool is_double, intptr_t seeds, int64_t rows, int64_t width, int64_t threshold, double dropped, double kept, intptr_t to) {
  MaskCall call{reinterpret_cast<const int64_t*>(seeds), rows, width, uint64_t(threshold), dropped, kept, reinterpret_cast<void*>(to)};
  const char* set = machine().name ? machine().name : "";
  nb::gil_scoped_release release;
  is_double ? fill_masks<double>(set, call) : fill_masks<float>(set, call);
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // programs of cells that live until Python ends are no leak
  m.def("isa", [] { return std::string(machine().name ? machine().name : ""); }, "The instruction set in use: amx (bf16 and the matrix unit), bf16 (AVX-512 with its products of bfloat16), v4 (AVX-512), v3 (AVX2), or '' where the machine cannot run.");
  m.def("kinds", &kinds, "The kinds of arithmetic worth using here: KINDS in recurra/machine/program.py.");
  m.def("lanes", [](bool is_double) { return machine().kinds[is_double].lanes; }, "is_double"_a);
  m.def("most", &most, "threads"_a, "As many threads, and no more than can run at once.");
  m.def("more_than_cores", [](bool on) { more_than_cores = on; }, "on"_a, "Tests: use as many threads as are asked for.");
  m.def("poison", [](bool on) { poison_scratch = on; }, "on"_a, "Tests: fill scratch with NaN before each call.");
  m.def("apply", &apply, "is_double"_a, "code"_a, "n"_a, "a"_a, "b"_a, "c"_a, "to"_a, "One operation on n numbers at these addresses.");
  m.def("masks", &masks, "is_double"_a, "seeds"_a, "rows"_a, "width"_a, "threshold"_a, "dropped"_a, "kept"_a, "to"_a, "to (rows, width): `dropped` at random, else `kept`.");
  nb::class_<Program>(m, "Program").def(nb::init<std::vector<int64_t>, std::vector<double>, int>(), "code"_a, "constants"_a, "kind"_a).def("run", &run).def("describe", &describe);
  m.def("multiply_rate", &multiply_rate, "kind"_a, "threads"_a, "Multiply-adds a second that so many threads reach together.");
  m.def("read_rate", &read_rate, "bytes"_a, "threads"_a, "Bytes a second when each of so many threads reads the same memory again and again.");
  m.def("run_both", &run_both, "first"_a, "one"_a, "second"_a, "two"_a, "Two calls side by side, one thread each.");
  nb::class_<Session>(m, "Session")
      .def(nb::init<const Program&, int64_t, nb::list, nb::list, nb::tuple, int, int>(), nb::keep_alive<1, 2>())
      .def("step", &Session::step, "x"_a, "y"_a);
}

// What run() would do with a call, asked of the functions that it asks; included behind it.
#pragma once

namespace {

// Numbers of a row that a stage reads and writes in arrays, each once; what it wrote itself it finds in the cache.
static void describe_rows(const Procedure& program, const Call& call, const Stage& stage, StageShape& to) {
  int64_t total = 0;
  for (int i = 0; i < program.array_count; i++) total += program.array_widths[i];
  char* touched = scratch_arena.take(2 * total + 1);
  __builtin_memset(touched, 0, size_t(2 * total));
  auto touch = [&](const Operand& o, int64_t width, bool write) {
    int index = o.place == kShifted ? program.shifted[o.index].history : o.index;
    if ((o.place != kRows && o.place != kShifted) || !call.arrays[index]) return;
    char* columns = touched + o.column + (write ? total : 0);
    for (int i = 0; i < index; i++) columns += program.array_widths[i];
    int64_t* count = call.arrays[index] == kTransient ? to.chunk_rows : to.rows;
    for (int64_t c = 0; c < (o.broadcast ? 1 : width); c++) {
      if (!columns[c] && (write || !columns[total + c])) count[write]++;
      columns[c] = 1;
    }
  };
  for (int p = 0; p < stage.phase_count; p++) {
    const Phase& phase = stage.phases[p];
    for (int g = 0; g < phase.group_count; g++) {
      touch(phase.groups[g].left, phase.groups[g].depth, false);
      for (int k = 0; k < phase.groups[g].gate_count; k++) touch(phase.groups[g].gates[k].start, phase.width, false);
    }
    for (int i = 0; i < phase.instruction_count; i++) {
      const Instruction& n = phase.instructions[i];
      int64_t result = reduces(n.code) ? 1 : phase.width;
      touch(n.a, phase.width, false), touch(n.b, phase.width, false), touch(n.c, phase.width, false);
      touch(n.to, result, true), touch(n.also, result, true);
    }
  }
}

// What run() would do, asked of the functions that it asks. No address but that of the offsets is read.
template <class P, class T = typename P::Number> static void describe(const Procedure& program, const Call& given, CallShape& to) {
  Call call = given;
  call.threads = to.threads = worthwhile<T>(program, call);
  to.steps = steps_of_a_chunk(call), to.packed = call.N > kPackingPays;
  Member<P>(program, call, to.steps, nullptr, 0, call.threads).describe(to.packed, to);
  int busiest = to.together ? call.threads - 1 : 0;
  for (int k = 0; k < call.threads; k++) {
    to.sequences[k] = to.together ? call.B : share(call, k + 1, call.threads) - share(call, k, call.threads);
    if (to.sequences[k] > to.sequences[busiest]) busiest = k;
  }
  Member<P>(program, call, to.steps, nullptr, busiest, call.threads).describe(to.packed, to);
  for (int s = 0; s < program.stage_count; s++) {
    const Stage& stage = program.stages[s];
    describe_rows(program, call, stage, to.stages[s]);
    for (int p = 0; p < stage.phase_count; p++)
      for (int g = 0; g < stage.phases[p].group_count; g++) {
        const Group& group = stage.phases[p].groups[g];
        to.stages[s].phases[p].multiply_adds += int64_t(stage.phases[p].width) * group.depth * group.gate_count;
        to.stages[s].phases[p].done += units<T>(stage.phases[p], group) * Panels(group.gate_count).vectors * lanes<T> * (P::tiled ? parts(group.depth, P::whole) * P::whole : group.depth);
        to.stages[s].phases[p].packed_bytes += units<T>(stage.phases[p], group) * unit_size<P>(group) * int64_t(sizeof(T));
      }
  }
  for (int i = 0; i < program.gain_count; i++) {
    const Gain& g = program.gains[i];
    bool wanted = false;
    for (int k = 0; k < g.target_count; k++) wanted = wanted || call.targets[g.targets[k]];
    if (!wanted) continue;
    to.gain_multiply_adds += g.left.place == kNone ? 0 : int64_t(g.R) * g.C;
    to.gain_rows += (g.left.place == kNone ? 0 : g.R) + g.C;
  }
}

}  // namespace

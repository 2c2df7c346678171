// Runs a Procedure: packs weights, then each stage over all rows or over time, tile by tile. P: how numbers are multiplied.
#pragma once
#include <cstdlib>

#include "gradient.h"
#include "product.h"
#include "reductions.h"
#include "threads.h"

namespace {

constexpr int64_t kTileBytes = 3072;     // of one value: a dozen values of a tile share the first-level cache
constexpr int64_t kChunkRows = 96;       // rows that go through all stages together, while they are in the second-level cache
constexpr int64_t kPackingPays = 8;      // rows that must use a panel before packing all panels first pays
constexpr int64_t kRowsApart = 4;        // sequences a thread that fill enough of a register block on their own
constexpr int64_t kFetchBytes = 1 << 16;  // of one array, fetched a step ahead
constexpr int kMostStages = 4;
constexpr int64_t kThreadPays = 1 << 17; // multiply-adds worth a second thread
constexpr int64_t kMeetingPays = 1 << 15;  // multiply-adds of a step worth a meeting of the threads in it

// Scratch that grows and is kept by its thread.
class Arena {
 public:
  ~Arena() { free(memory); }
  char* take(int64_t bytes) {
#if defined(RECURRA_EXACT_SCRATCH)  // so that a sanitizer sees what is written past the end
    free(memory);
    memory = static_cast<char*>(aligned_alloc(64, size_t(parts(bytes, 64) * 64)));
#else
    if (bytes > size) {
      free(memory);
      size = parts(bytes + bytes / 4, 4096) * 4096;
      memory = static_cast<char*>(aligned_alloc(4096, size_t(size)));
    }
#endif
    return memory;
  }

 private:
  char* memory = nullptr;
  int64_t size = 0;
};
static thread_local Arena scratch_arena, packed_arena, transient_arena, table_arena, common_arena;

template <class T> static void fill_nan(T* p, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = T(__builtin_nan(""));
}
template <class T> constexpr int64_t tile_elements = kTileBytes / int64_t(sizeof(T));
template <class T> INLINE int64_t rounded(int64_t n) { return parts(n, lanes<T>) * lanes<T>; }
template <class T> static void copy_rows(T* to, const T* from, int64_t n) {
  if (!n) return;
  from ? void(__builtin_memcpy(to, from, size_t(n) * sizeof(T))) : void(__builtin_memset(to, 0, size_t(n) * sizeof(T)));
}

template <class T> static int64_t units(const Phase& phase, const Group& group) {
  return parts(phase.width, Panels(group.gate_count).blocks * lanes<T>);
}
// Numbers of a panel one vector wide, and of a unit.
template <class P> static int64_t column_size(const Group& group) { return steps<P>(group.depth) * lanes<typename P::Number>; }
template <class P> static int64_t unit_size(const Group& group) { return Panels(group.gate_count).vectors * column_size<P>(group); }

template <class P, class T = typename P::Number> static void layout(Procedure& program) {
  int64_t total = 0;
  for (int s = 0; s < program.stage_count; s++)
    for (int p = 0; p < program.stages[s].phase_count; p++)
      for (int g = 0; g < program.stages[s].phases[p].group_count; g++) {
        Phase& phase = program.stages[s].phases[p];
        phase.groups[g].packed = total;
        total += units<T>(phase, phase.groups[g]) * unit_size<P>(phase.groups[g]);
      }
  program.packed_size = total;
}

template <class P, class T = typename P::Number> static void pack_unit(const Group& group, const Call& call, int width, int64_t unit, T* packed) {
  Panels p(group.gate_count);
  for (int panel = 0; panel < p.count; panel++)
    pack_panel<P>(group, call, width, unit, panel, packed + group.packed + unit * unit_size<P>(group) + p.first(panel) * column_size<P>(group));
}

template <class P, class T = typename P::Number> static void pack(const Procedure& program, const Call& call, T* packed, int thread, int of) {
  int64_t turn = 0;
  for (int s = 0; s < program.stage_count; s++)
    for (int p = 0; p < program.stages[s].phase_count; p++) {
      const Phase& phase = program.stages[s].phases[p];
      for (int g = 0; g < phase.group_count; g++)
        for (int64_t u = 0; u < units<T>(phase, phase.groups[g]); u++, turn++)
          if (turn % of == thread) pack_unit<P>(phase.groups[g], call, phase.width, u, packed);
    }
}

// Memory handed out piece by piece. A first round without memory finds how much is needed.
template <class T> struct Pieces {
  char* base = nullptr;
  int64_t used = 0;
  template <class U = T> U* take(int64_t n) {
    U* piece = reinterpret_cast<U*>(base + used);
    used += parts(n * int64_t(sizeof(U)), 64) * 64;
    return piece;
  }
};

// Where the operands of a phase's instructions lie for the tile seen last. In a short sequence of equal tiles, step after
// step, only operands that move with time are looked up again.
template <class T> struct Settled {
  struct Ready : Operands<T> {
    Operation<T> run;  // null: a reduction
    int moving;        // a bit for each operand that is looked up at every step: a, b, c, to, also
  };
  Ready* ready;
  Tile<T>* starts;  // of the gates of one group
  Extent extent;
  int64_t row, column;
  int64_t rows, band, first, columns, step;  // how `rows` rows, and columns from `first` on, are cut into tiles
  bool holds(const Extent& e, int64_t r, int64_t c) const {
    return r == row && c == column && e.rows == extent.rows && e.columns == extent.columns && e.width == extent.width;
  }
};
static bool moves(const Operand& o) {
  return o.broadcast || o.place == kRows || o.place == kShifted || o.place == kState || o.place == kNext;
}

// The threads that share the columns of every phase of a loop and meet after it; its states and locals lie in memory that
// they have in common. A thread with sequences of its own is a team of one.
struct Team {
  MeetingPoint* point;
  int thread, of;
  bool first() const { return thread == 0; }
  void meet() const {
    if (of > 1) point->wait(of);
  }
};
// One thread at work on one stage.
template <class P> class Worker {
  using T = typename P::Number;

 public:
  // Rows at most at once: of the thread's sequences in a loop, of a chunk otherwise.
  void prepare(const Procedure& of_program, const Stage& of_stage, const Call& of_call, int64_t most_at_once, Team of_team, Pieces<T>& memory, Pieces<T>& common) {
    program = &of_program, stage = &of_stage, call = &of_call, capacity = most_at_once, team = of_team;
    int64_t slots = 0, sums = 0, depth = 0, lefts = 0;
    widest_row = sum_stride = 0;
    for (int p = 0; p < stage->phase_count; p++) {
      const Phase& phase = stage->phases[p];
      slots = larger(slots, phase.slot_count), sums = larger(sums, phase.sum_count);
      if (phase.sum_count) sum_stride = larger(sum_stride, partial_size<T>(phase.width));
      widest_row = larger(widest_row, tile_size(phase));
      for (int g = 0; g < phase.group_count; g++) depth = larger(depth, phase.groups[g].depth);
      lefts = larger(lefts, left_size(phase, phase.group_count));
    }
    locals = memory.template take<T*>(stage->local_count);
    states = memory.template take<T*>(stage->state_count), nexts = memory.template take<T*>(stage->state_count);
    shifted = memory.template take<T*>(program->shifted_count), shifted_memory = memory.template take<T*>(program->shifted_count);
    settled = memory.template take<Settled<T>>(stage->phase_count);
    for (int p = 0; p < stage->phase_count; p++) {
      int64_t gates = 0;
      for (int g = 0; g < stage->phases[p].group_count; g++) gates = larger(gates, stage->phases[p].groups[g].gate_count);
      const Phase& phase = stage->phases[p];
      auto* ready = memory.template take<typename Settled<T>::Ready>(phase.instruction_count);
      Tile<T>* starts = memory.template take<Tile<T>>(gates);
      if (!memory.base) continue;
      settled[p] = {ready, starts, {}, -1, -1, -1, 0, 0, 0, 0};
      for (int i = 0; i < phase.instruction_count; i++) {
        const Instruction& n = phase.instructions[i];
        ready[i].run = operation<T>(n.code);
        ready[i].moving = moves(n.a) | moves(n.b) << 1 | moves(n.c) << 2 | moves(n.to) << 3 | moves(n.also) << 4;
      }
    }
    read = memory.template take<int32_t>(program->array_count), read_count = 0;
    for (int p = 0; memory.base && stage->loop && p < stage->phase_count; p++) find_reads(stage->phases[p]);
    numbers = memory.take(0);
    slot_memory = memory.take(slots * widest_row);
    splats = memory.take((program->constant_count + 3 * kMostRows) * lanes<T>);
    panel_memory = memory.take(steps<P>(depth) * kVectorsAcross * lanes<T>);
    left_memory = memory.take(lefts);
    sum_memory = common.take(sums * capacity * sum_stride);
    for (int i = 0; i < stage->local_count; i++) set(locals, i, common.take(capacity * stage->local_widths[i]), memory);
    for (int i = 0; i < stage->state_count; i++) {
      set(states, i, common.take(capacity * stage->states[i].width), memory);
      set(nexts, i, common.take(capacity * stage->states[i].width), memory);
    }
    for (int i = 0; i < program->shifted_count && stage->loop; i++) set(shifted_memory, i, memory.take(capacity * width_of(i)), memory);
    end_of_numbers = memory.take(0);
  }
  void begin() {
    if (call->poison) fill_nan(numbers, end_of_numbers - numbers);
    for (int i = 0; i < program->constant_count; i++) store(splats + i * lanes<T>, splat(T(program->constants[i])));
  }

  // Rows [from, to) of all N; `base`: the first row that transient arrays hold.
  void over_rows(int64_t from, int64_t to, int64_t base, const T* packed) {
    first_row = from, array_row = 0, transient_row = base;
    for (int p = 0; p < stage->phase_count; p++) run(stage->phases[p], from, to, packed);
  }

  // The same for the rows of our own sequences in steps [first, last). Transient arrays hold B rows for each step then, so
  // that threads at different chunks do not meet.
  void over_steps(int64_t first, int64_t last, int64_t from, int64_t to, const T* packed) {
    auto at = [&](int64_t t) {
      first_row = from - (t - first) * (to - from), array_row = offset(t), transient_row = apart_base(t, first);
      return smaller(to, running(t));
    };
    for (int p = 0; p < stage->phase_count; p++) {
      const Phase& phase = stage->phases[p];
      Settled<T>& tiles = settled[p];
      if (tiles.rows != to - from) cut(phase, to - from, tiles);
      for (int64_t column = tiles.first; column < tiles.columns; column += tiles.step)
        for (int64_t t = first; t < last; t++) {
          int64_t end = at(t);
          if (column == tiles.first) prepare_left(phase, from, end - from);
          for (int64_t row = from; row < end; row += tiles.band) tile(phase, tiles, row, end, column, packed);
        }
      for (int64_t t = first; t < last && phase.sum_count; t++) {
        int64_t end = at(t);
        finish_sums(phase, from, end - from);
      }
    }
  }
  int64_t apart_base(int64_t t, int64_t first) const { return offset(t) - (t - first) * call->B; }

  // How `rows` rows, and our columns of them, are cut into tiles; and the largest register block.
  void describe(const Phase& phase, int64_t rows, bool packed, PhaseShape& to) const {
    Settled<T> tiles{};
    if (rows) cut(phase, rows, tiles);
    to.rows = rows, to.columns = smaller(phase.width, tiles.columns) - tiles.first, to.block_rows = 0, to.unit = unit_columns(phase);
    to.tile_rows = tiles.band, to.tile_columns = smaller(tiles.step, to.columns);
    for (int g = 0; rows && g < phase.group_count; g++) {
      Panels p(phase.groups[g].gate_count);
      int vectors = p.first(p.count) - p.first(p.count - 1);
      int across = block_vectors<P>(tiles.band, vectors) << pairs(p, tiles.band, packed), most = block_rows<P>(vectors);
      int down = P::tiled ? int(smaller(tiles.band, most)) : int(parts(tiles.band, parts(tiles.band, most)));
      if (down * across * lanes<T> <= to.block_rows * to.block_columns) continue;
      to.block_rows = down, to.block_columns = across * lanes<T>, to.most_block_rows = P::tiled && down <= kTileRows ? kTileRows : most;
    }
  }

  // Before the first step of sequences [from, to): those that have no step keep their first state.
  void start(int64_t from, int64_t to) {
    first_row = from, last_row = to, before = 0, started = false;
    for (int i = 0; i < stage->state_count && team.first(); i++)
      if (T* last = array(stage->states[i].final)) copy_rows(last + from * stage->states[i].width, initial(i, from), (to - from) * stage->states[i].width);
  }
  // Active sequences at each time are a prefix, because lengths fall with the row.
  void step(int64_t t, int64_t base, const T* packed) {
    int64_t from = first_row, active = larger(0, smaller(last_row, running(t)) - from);
    int64_t known = started ? before : 0;
    for (int i = 0; i < stage->state_count && team.first(); i++) {  // sequences that begin
      int64_t width = stage->states[i].width;
      if (active > known) copy_rows(states[i] + known * width, initial(i, from + known), (active - known) * width);
    }
    if (active > known) team.meet();
    array_row = offset(t), transient_row = base;
    fetch_next(t, from, active);
    for (int i = 0; i < program->shifted_count && active; i++) find_shifted(i, t, from, active);
    for (int p = 0; p < stage->phase_count; p++) {
      run(stage->phases[p], from, from + active, packed);
      team.meet();
    }
    bool last_step = stage->order > 0 ? t + 1 == call->T : t == 0;
    int64_t stay = last_step ? 0 : stage->order > 0 ? larger(0, smaller(last_row, running(t + 1)) - from) : active;
    for (int i = 0; i < stage->state_count; i++) {  // sequences that end
      int64_t width = stage->states[i].width;
      if (T* last = array(stage->states[i].final))
        if (active > stay && team.first()) copy_rows(last + (from + stay) * width, nexts[i] + stay * width, (active - stay) * width);
      T* swap = states[i];
      states[i] = nexts[i], nexts[i] = swap;
    }
    before = active, started = true;
  }

 private:
  static constexpr int64_t kMostRows = tile_elements<T> / lanes<T> + kRowsDown + 8;
  const Procedure* program;
  const Stage* stage;
  const Call* call;
  Team team;
  int64_t capacity, widest_row, sum_stride, first_row, last_row, array_row, transient_row, before;
  bool started;
  int32_t *read, read_count;  // arrays whose rows the loop reads
  T *numbers, *end_of_numbers, *slot_memory, *splats, *sum_memory, *panel_memory, *left_memory;
  T **locals, **states, **nexts, **shifted, **shifted_memory;
  Settled<T>* settled;

  void find_reads(const Phase& phase) {
    auto note = [&](const Operand& o) {
      if (o.place != kRows || !array(o.index)) return;
      for (int i = 0; i < read_count; i++)
        if (read[i] == o.index) return;
      read[read_count++] = o.index;
    };
    for (int i = 0; i < phase.instruction_count; i++) note(phase.instructions[i].a), note(phase.instructions[i].b), note(phase.instructions[i].c);
    for (int g = 0; g < phase.group_count; g++)
      for (int k = 0; k < phase.groups[g].gate_count; k++) note(phase.groups[g].gates[k].start);
  }
  static void set(T** pointers, int i, T* to, const Pieces<T>& memory) {
    if (memory.base) pointers[i] = to;
  }
  int64_t width_of(int shifted_array) const { return program->array_widths[program->shifted[shifted_array].history]; }
  T* array(int index) const { return index < 0 ? nullptr : static_cast<T*>(call->arrays[index]); }
  int64_t offset(int64_t t) const { return call->offset ? call->offset[t] : t * call->B; }
  int64_t running(int64_t t) const { return call->offset ? call->offset[t + 1] - call->offset[t] : call->B; }
  const T* initial(int state, int64_t row) const {
    const T* p = array(stage->states[state].initial);
    return p ? p + row * stage->states[state].width : nullptr;
  }

  // Kept rows that the next step reads: tiles are too short for the processor to see that they follow each other.
  void fetch_next(int64_t t, int64_t from, int64_t active) const {
    int64_t next = t + stage->order;
    if (next < 0 || next >= call->T) return;
    active = smaller(active, running(next) - from);
    for (int i = 0; i < read_count; i++) {
      if (call->transient[read[i]]) continue;
      int64_t width = program->array_widths[read[i]];
      const char* p = reinterpret_cast<const char*>(array(read[i]) + (offset(next) + from) * width);
      for (int64_t n = 0; n < smaller(active * width * int64_t(sizeof(T)), kFetchBytes); n += 64) __builtin_prefetch(p + n, 0, 2);
    }
  }

  // Rows one step earlier: a pointer into the history where one will do, else a copy of rows from two places.
  void find_shifted(int i, int64_t t, int64_t from, int64_t active) {
    const Shifted& s = program->shifted[i];
    int64_t width = program->array_widths[s.history], earlier = t - s.order;
    T *history = array(s.history), *start = array(s.initial);
    bool edge = earlier < 0 || earlier >= call->T;
    int64_t known = edge ? 0 : smaller(active, larger(0, running(earlier) - from));
    if (known == active && history && !edge) {
      shifted[i] = history + (offset(earlier) + from) * width;
    } else if (!known && start) {
      shifted[i] = start + from * width;
    } else {
      shifted[i] = shifted_memory[i];
      if (known) copy_rows(shifted[i], history + (offset(earlier) + from) * width, known * width);
      copy_rows(shifted[i] + known * width, start ? start + (from + known) * width : nullptr, (active - known) * width);
    }
  }

  // Columns of a tile come in whole units of every group; then as many rows as tile_elements<T> allows.
  static int64_t unit_columns(const Phase& phase) {
    int64_t unit = lanes<T>;
    for (int g = 0; g < phase.group_count; g++) unit = larger(unit, int64_t(Panels(phase.groups[g].gate_count).blocks) * lanes<T>);
    return unit;
  }
  static int64_t most_rows(const Phase& phase) {
    if (!phase.group_count) return larger(1, tile_elements<T> / larger(lanes<T>, smaller(rounded<T>(phase.width), tile_elements<T>)));
    constexpr int block = P::tiled ? kTiledRows : kRowsDown;
    return larger(block, tile_elements<T> / unit_columns(phase) / block * block);
  }
  static int64_t tile_size(const Phase& phase) { return larger(tile_elements<T>, most_rows(phase) * unit_columns(phase)); }

  // First number of the row array an operand names, for the loop's row `row`, and its row stride.
  T* locate(const Operand& o, int64_t row, int64_t& stride) const {
    switch (o.place) {
      case kRows: {
        stride = program->array_widths[o.index];
        T* p = array(o.index);
        return p ? p + (array_row + row - (call->transient[o.index] ? transient_row : 0)) * stride + o.column : nullptr;
      }
      case kShifted: stride = program->array_widths[program->shifted[o.index].history]; return shifted[o.index] + (row - first_row) * stride + o.column;
      case kLocal: stride = stage->local_widths[o.index]; return locals[o.index] + (row - first_row) * stride + o.column;
      case kState: stride = stage->states[o.index].width; return states[o.index] + (row - first_row) * stride + o.column;
      case kNext: stride = stage->states[o.index].width; return nexts[o.index] + (row - first_row) * stride + o.column;
      case kVector: stride = 0; return static_cast<T*>(const_cast<void*>(call->statics[o.index])) + o.column;
      default: return nullptr;
    }
  }

  Tile<T> resolve(const Operand& o, const Extent& e, int64_t row, int64_t column, int argument) const {
    if (o.place == kNone) return {nullptr, 0, 0, false};
    if (o.place == kSlot) return {slot_memory + o.index * widest_row, e.width, lanes<T>, false};
    if (o.place == kConstant) return {splats + o.index * lanes<T>, 0, 0, false};
    int64_t stride = 0;
    T* p = locate(o, row, stride);
    if (!o.broadcast) return {p ? p + column : nullptr, stride, lanes<T>, true};
    T* spread = splats + (program->constant_count + argument * kMostRows) * lanes<T>;
    int64_t rows = stride ? e.rows : 1;
    for (int64_t r = 0; r < rows; r++) store(spread + r * lanes<T>, splat(p[r * stride]));
    return {spread, stride ? lanes<T> : 0, 0, false};
  }

  void run(const Phase& phase, int64_t from, int64_t to, const T* packed) {
    int64_t rows = to - from;
    if (rows <= 0) return;
    Settled<T>& tiles = settled[&phase - stage->phases];
    if (tiles.rows != rows) cut(phase, rows, tiles);
    prepare_left(phase, from, rows);
    for (int64_t column = tiles.first; column < tiles.columns; column += tiles.step)
      for (int64_t row = from; row < to; row += tiles.band) tile(phase, tiles, row, to, column, packed);
    if (!phase.sum_count) return;
    team.meet();
    if (team.first()) finish_sums(phase, from, rows);
  }

  void tile(const Phase& phase, const Settled<T>& tiles, int64_t row, int64_t to, int64_t column, const T* packed) {
    Extent e;
    e.width = smaller(tiles.step, tiles.columns - column), e.columns = smaller(e.width, phase.width - column);
    e.rows = smaller(tiles.band, to - row);
    for (int g = 0; g < phase.group_count; g++) product(phase, phase.groups[g], e, row, column, packed);
    operations(phase, e, row, column);
  }

  void cut(const Phase& phase, int64_t rows, Settled<T>& tiles) const {
    int64_t unit = unit_columns(phase), bands = parts(rows, most_rows(phase)), share = unit;
    while (phase.sum_count && share % block_columns<T>) share += unit;  // threads cut rows between blocks
    int64_t all = parts(phase.width, share), end = parts(phase.width, unit) * unit;
    tiles.rows = rows, tiles.band = P::tiled ? smaller(rows, most_rows(phase)) : parts(rows, bands);
    tiles.first = all * team.thread / team.of * share, tiles.columns = smaller(end, all * (team.thread + 1) / team.of * share);
    tiles.step = smaller(larger(unit, tiles.columns - tiles.first), larger(unit, tile_elements<T> / tiles.band / unit * unit));
  }

  void operations(const Phase& phase, const Extent& e, int64_t row, int64_t column) {
    Settled<T>& seen = settled[&phase - stage->phases];
    int stay = seen.holds(e, row - first_row, column) ? 0 : 31;
    int sum = 0;
    for (int i = 0; i < phase.instruction_count; i++) {
      const Instruction& n = phase.instructions[i];
      auto& at = seen.ready[i];
      if (int look = at.moving | stay) {
        if (look & 1) at.in[0] = resolve(n.a, e, row, column, 0);
        if (look & 2) at.in[1] = resolve(n.b, e, row, column, 1);
        if (look & 4) at.in[2] = resolve(n.c, e, row, column, 2);
        if (look & 8 && at.run) at.to = resolve(n.to, e, row, column, 0);
        if (look & 16 && at.run) at.also = resolve(n.also, e, row, column, 0);
      }
      if (at.run)
        at.run(e, at);
      else
        reduce_tile<T>(n.code, e, column, at.in[0], sum_memory + (sum++ * capacity + row - first_row) * sum_stride, sum_stride);
    }
    seen.extent = e, seen.row = row - first_row, seen.column = column;
  }

  void finish_sums(const Phase& phase, int64_t from, int64_t rows) {
    int sum = 0;
    for (int i = 0; i < phase.instruction_count; i++) {
      const Instruction& n = phase.instructions[i];
      if (!reduces(n.code)) continue;
      int64_t stride = 0, stride2 = 0;
      T *to = locate(n.to, from, stride), *also = n.also.place == kNone ? nullptr : locate(n.also, from, stride2);
      for (int64_t r = 0; r < rows; r++) {
        T y = reduced<T>(n.code, sum_memory + (sum * capacity + from - first_row + r) * sum_stride, phase.width);
        if (to) to[r * stride] = y;
        if (also) also[r * stride2] = y;
      }
      sum++;
    }
  }

  // The left operands of a phase's products in the form that P asks for, once for all columns. The last tile of rows may
  // read beyond the last of them.
  int64_t left_size(const Phase& phase, int groups) const {
    int64_t size = 0;
    for (int g = 0; g < groups; g++) size += (capacity + (P::tiled ? kTiledRows - 1 : 0)) * P::left_width(phase.groups[g].depth);
    return size;
  }
  T* left_of(const Phase& phase, const Group& group, int64_t row) const {
    return left_memory + left_size(phase, int(&group - phase.groups)) + (row - first_row) * P::left_width(group.depth);
  }
  void prepare_left(const Phase& phase, int64_t row, int64_t rows) {
    for (int g = 0; P::prepares && rows > 0 && g < phase.group_count; g++) {
      int64_t stride = 0;
      const T* a = locate(phase.groups[g].left, row, stride);
      P::left(a, stride, rows, phase.groups[g].depth, left_of(phase, phase.groups[g], row));
    }
  }

  // Whether one row takes two units at once, for as many accumulators as the latency of a multiply-add asks for.
  static bool pairs(const Panels& p, int64_t rows, bool packed) { return !P::tiled && packed && rows == 1 && p.count == 1 && p.vectors == kVectorsAcross; }

  void product(const Phase& phase, const Group& group, const Extent& e, int64_t row, int64_t column, const T* packed) {
    Panels p(group.gate_count);
    int64_t a_stride = 0, unit = int64_t(p.blocks) * lanes<T>;
    const T* a = P::prepares ? left_of(phase, group, row) : locate(group.left, row, a_stride);
    if (P::prepares) a_stride = P::left_width(group.depth);
    Tile<T>* starts = settled[&phase - stage->phases].starts;
    for (int g = 0; g < group.gate_count; g++) starts[g] = resolve(group.gates[g].start, e, row, column, 0);
    for (int64_t u = column / unit; u * unit < column + e.width; u++)
      for (int panel = 0; panel < p.count; panel++) {
        const T* W = panel_memory;
        if (packed)
          W = packed + group.packed + u * unit_size<P>(group) + p.first(panel) * column_size<P>(group);
        else
          pack_panel<P>(group, *call, phase.width, u, panel, panel_memory);
        bool pair = pairs(p, e.rows, packed) && (u + 2) * unit <= column + e.width;
        multiply_panel(group, starts, p, panel, e, column, u, pair, a, a_stride, W);
        u += pair;
      }
  }

  void multiply_panel(const Group& group, const Tile<T>* starts, const Panels& p, int panel, const Extent& e, int64_t column, int64_t u,
                      bool pair, const T* a, int64_t a_stride, const T* W) {
    int first = p.first(panel), vectors = p.first(panel + 1) - first, most = pair ? 1 : block_rows<P>(vectors);
    int64_t blocks = parts(e.rows, most);
    for (int64_t i = 0; i < blocks; i++) {
      int64_t r = P::tiled ? i * most : e.rows * i / blocks, rows = P::tiled ? smaller(most, e.rows - r) : e.rows * (i + 1) / blocks - r;
      Block<T> block;
      block.to_stride = e.width, block.rows = int(rows);
      alignas(kVectorBytes) T edge[2 * kVectorsAcross][P::tiled ? kTiledRows : 8][lanes<T>];
      for (int z = 0; z < vectors << pair; z++) {
        int v = first + z % vectors;
        const Gate& gate = group.gates[v % group.gate_count];
        int64_t at = ((u + z / vectors) * p.blocks + v / group.gate_count) * lanes<T> - column;  // within the tile
        block.to[z] = slot_memory + gate.slot * widest_row + r * e.width + at;
        const Tile<T>& start = starts[v % group.gate_count];
        block.start[z] = start.at ? start.at + r * start.row + at / lanes<T> * start.vector : nullptr;
        block.start_stride[z] = start.row;
        if (start.at && start.memory && at + lanes<T> > e.columns) {  // the row ends inside this vector
          for (int64_t k = 0; k < rows; k++)
            store(edge[z][k], load_part(block.start[z] + k * start.row, int(larger(0, e.columns - at))));
          block.start[z] = edge[z][0], block.start_stride[z] = lanes<T>;
        }
      }
      kernel<P>(int(rows), vectors, pair)(a + r * a_stride, a_stride, W, group.depth, block);
    }
  }
};

template <class T> static int64_t multiply_adds_a_row(const Stage& stage) {
  int64_t n = 0;
  for (int p = 0; p < stage.phase_count; p++) {
    n += int64_t(stage.phases[p].width) * (16 * stage.phases[p].instruction_count + 1);
    for (int g = 0; g < stage.phases[p].group_count; g++) n += int64_t(stage.phases[p].width) * stage.phases[p].groups[g].depth * stage.phases[p].groups[g].gate_count;
  }
  return n;
}

// Sequences of the thread: equal shares of all steps, so that a thread with long sequences has fewer of them.
static int64_t share(const Call& call, int thread, int of) {
  if (!call.offset) return call.B * thread / of;
  int64_t length = call.T, done = 0, row = 0;
  for (; row < call.B && done * of < call.N * thread; row++) {
    while (length && call.offset[length] - call.offset[length - 1] <= row) length--;
    done += length;
  }
  return thread == of ? call.B : row;
}

// Arrays whose address is 1 live for one chunk: memory of ours.
template <class T> static void place_transient(const Procedure& program, Call& call, int64_t steps, Arena& table_arena, Arena& transient_arena) {
  char* table = table_arena.take(program.array_count * int64_t(sizeof(void*) + 1) + 1);
  void** arrays = reinterpret_cast<void**>(table);
  bool* transient = reinterpret_cast<bool*>(table + program.array_count * int64_t(sizeof(void*)));
  Pieces<T> memory;
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < program.array_count; i++) {
      transient[i] = call.arrays[i] == kTransient;
      arrays[i] = transient[i] ? memory.take(steps * call.B * program.array_widths[i]) : call.arrays[i];
    }
    if (!round) memory = {transient_arena.take(memory.used), 0};
  }
  if (call.poison) fill_nan(reinterpret_cast<T*>(memory.base), memory.used / int64_t(sizeof(T)));
  call.arrays = arrays, call.transient = transient;
}

// Whether few sequences leave so much to do in a step that the threads share its columns. Each reads its part of the weights
// only, which then stays in its own second-level cache.
template <class T> static bool meeting_pays(const Procedure& program, const Call& call, int of) {
  if (call.B >= kRowsApart * of || call.N <= kPackingPays) return false;
  for (int s = 0; s < program.stage_count; s++)
    if (program.stages[s].loop) return multiply_adds_a_row<T>(program.stages[s]) * call.B >= kMeetingPays;
  return false;
}

// One thread at work on all stages. The rows of a few steps go through all of them before the next few, so that what one
// stage writes is still in the second-level cache when the next reads it.
template <class P> class Member {
  using T = typename P::Number;

 public:
  Member(const Procedure& of_program, const Call& of_call, int64_t chunk_steps, MeetingPoint* point, int thread, int of)
      : program(of_program), call(of_call), steps(chunk_steps), point(point), thread(thread), of(of),
        together(of > 1 && meeting_pays<T>(of_program, of_call, of)), apart(of > 1 && !together && of_call.B >= kRowsApart * of),
        from(together ? 0 : share(of_call, thread, of)), to(together ? of_call.B : share(of_call, thread + 1, of)) {}

  // Bytes of the thread's own memory, and of what all have in common.
  struct Sizes {
    int64_t own, common;
  };
  Sizes prepare(char* memory, char* in_common) {
    Pieces<T> pieces{memory, 0}, common{in_common, 0};
    for (int s = 0; s < program.stage_count; s++) {
      bool loop = program.stages[s].loop, shared = loop && together;
      int64_t at_once = loop ? to - from : apart ? steps * (to - from) : parts(steps * call.B, of);
      Team team = shared ? Team{point, thread, of} : Team{nullptr, 0, 1};
      workers[s].prepare(program, program.stages[s], call, larger(1, at_once), team, pieces, shared ? common : pieces);
      if (memory) workers[s].begin();
    }
    return {pieces.used, common.used};
  }

  void describe(bool packed, CallShape& to) {
    prepare(nullptr, nullptr);
    to.together = together, to.apart = apart;
    for (int s = 0; s < program.stage_count; s++) {
      int64_t rows = program.stages[s].loop || apart ? this->to - from : parts(smaller(steps * call.B, call.N), of);
      for (int p = 0; p < program.stages[s].phase_count; p++) workers[s].describe(program.stages[s].phases[p], rows, packed, to.stages[s].phases[p]);
    }
  }

  void run(const T* packed) {
    int64_t order = 1, chunks = parts(call.T, steps);
    for (int s = 0; s < program.stage_count; s++)
      if (program.stages[s].loop) workers[s].start(from, to), order = program.stages[s].order;
    for (int64_t c = 0; c < chunks; c++) {
      int64_t first = (order > 0 ? c : chunks - 1 - c) * steps, last = smaller(first + steps, call.T);
      int64_t a = call.offset ? call.offset[first] : first * call.B, b = call.offset ? call.offset[last] : last * call.B;
      for (int s = 0; s < program.stage_count; s++) {
        Worker<P>& worker = workers[s];
        if (program.stages[s].loop)
          for (int64_t k = first; k < last; k++) {
            int64_t t = order > 0 ? k : last - 1 - (k - first);
            worker.step(t, apart ? worker.apart_base(t, first) : a, packed);
          }
        else if (apart)
          worker.over_steps(first, last, from, to, packed);
        else
          worker.over_rows(a + (b - a) * thread / of, a + (b - a) * (thread + 1) / of, a, packed);
        if (of > 1 && !apart) Threads::barrier();
      }
    }
  }

 private:
  const Procedure& program;
  const Call& call;
  int64_t steps;
  MeetingPoint* point;
  int thread, of;
  bool together;     // all threads take all sequences through the loop, each its own columns of every phase
  bool apart;        // every thread takes its own sequences through all stages, and none waits for another
  int64_t from, to;  // sequences
  Worker<P> workers[kMostStages];
};

// What weights gain: each thread has its own rows, or columns of a sum, of every result.
template <class P, class T = typename P::Number> static void gather_gains(const Procedure& program, const Call& call, int thread, int of) {
  for (int i = 0; i < program.gain_count; i++) {
    const Gain& g = program.gains[i];
    using G = typename P::Gain;
    bool sum = g.left.place == kNone;
    int64_t block = sum ? 64 / int64_t(sizeof(T)) : G::tiled ? kTiledRows : kRowsDown, size = sum ? g.C : g.R, blocks = parts(size, block);
    int64_t from = smaller(size, blocks * thread / of * block), to = smaller(size, blocks * (thread + 1) / of * block), row = sum ? 1 : g.C;
    if (from == to) continue;
    const T* same = nullptr;  // a target that holds nothing but this gain
    for (int k = 0; k < g.target_count; k++) {
      T* target = static_cast<T*>(call.targets[g.targets[k]]);
      if (!target) continue;
      if (same) {
        for (int64_t n = from * row; n < to * row; n++) target[n] = g.add[k] ? target[n] + same[n] : same[n];
        continue;
      }
      if (sum) {
        sum_rows<T>(program, call, g, from, to, target, g.add[k]);
      } else {
        int64_t numbers = gradient_memory<G>(to - from);
        T* memory = reinterpret_cast<T*>(scratch_arena.take(numbers * int64_t(sizeof(T))));
        if (call.poison) fill_nan(memory, numbers);
        gradient_rows<G>(program, call, g, from, to, target, g.add[k], memory);
      }
      if (!g.add[k]) same = target;
    }
  }
}

// As many threads as have enough to do.
template <class T> static int32_t worthwhile(const Procedure& program, const Call& call) {
  int64_t work = 0;
  for (int s = 0; s < program.stage_count; s++) work += multiply_adds_a_row<T>(program.stages[s]) * call.N;
  for (int i = 0; i < program.gain_count; i++) work += int64_t(program.gains[i].R) * program.gains[i].C * call.N;
  return int32_t(smaller(call.threads, larger(1, work / kThreadPays)));
}
static int64_t steps_of_a_chunk(const Call& call) { return call.B ? larger(1, smaller(call.T, kChunkRows / call.B)) : 1; }

template <class P, class T = typename P::Number> static void run(const Procedure& program, const Call& given) {
  if (program.stage_count > kMostStages) abort();
  Call call = given;
  call.threads = worthwhile<T>(program, call);
  T* packed = nullptr;
  if (call.N > kPackingPays) {
    packed = reinterpret_cast<T*>(packed_arena.take(program.packed_size * int64_t(sizeof(T))));
    if (call.poison) fill_nan(packed, program.packed_size);
  }
  int64_t steps = steps_of_a_chunk(call);
  place_transient<T>(program, call, steps, table_arena, transient_arena);
  MeetingPoint point;
  int64_t together = Member<P>(program, call, steps, &point, 0, call.threads).prepare(nullptr, nullptr).common;
  char* common = common_arena.take(together);
  if (call.poison) fill_nan(reinterpret_cast<T*>(common), together / int64_t(sizeof(T)));
  Threads::run(call.threads, [&](int thread, int of) {
    [[maybe_unused]] typename P::Ready ready;
    if (packed) pack<P>(program, call, packed, thread, of);
    if (packed && of > 1) Threads::barrier();
    Member<P> member(program, call, steps, &point, thread, of);
    member.prepare(scratch_arena.take(member.prepare(nullptr, nullptr).own), common);
    member.run(packed);
    if (of > 1 && program.gain_count) Threads::barrier();
    gather_gains<P>(program, call, thread, of);
  });
}

// Two calls at the same time, each by one member of a team of two; a team that comes out as one does both.
template <class P> static void run_both(const Procedure& first, const Call& a, const Procedure& second, const Call& b) {
  Threads::run(2, [&](int thread, int of) {
    Call own = thread == 0 ? a : b;
    own.threads = 1;
    run<P>(thread == 0 ? first : second, own);
    if (of > 1) return;
    own = b, own.threads = 1;
    run<P>(second, own);
  });
}

// Streaming: one step a call, whose weights are packed and whose memory is laid out once.
template <class P> class Stream {
  using T = typename P::Number;

 public:
  Stream(const Procedure& program, const Call& given) : call(given), member(program, call, 1, nullptr, 0, 1) {
    packed = reinterpret_cast<T*>(packed_memory.take(program.packed_size * int64_t(sizeof(T))));
    pack<P>(program, call, packed, 0, 1);
    place_transient<T>(program, call, 1, table, transient);
    member.prepare(scratch.take(member.prepare(nullptr, nullptr).own), nullptr);
  }
  void step(int input, const void* x, int output, void* y) {
    void** arrays = const_cast<void**>(call.arrays);
    arrays[input] = const_cast<void*>(x), arrays[output] = y;
    Threads::run(1, [&](int, int) {
      [[maybe_unused]] typename P::Ready ready;
      member.run(packed);
    });
  }

 private:
  Call call;
  Member<P> member;
  T* packed;
  Arena packed_memory, table, transient, scratch;
};
template <class P> static void* open_stream(const Procedure& program, const Call& call) { return new Stream<P>(program, call); }
template <class P> static void step_stream(void* stream, int input, const void* x, int output, void* y) { static_cast<Stream<P>*>(stream)->step(input, x, output, y); }
template <class P> static void close_stream(void* stream) { delete static_cast<Stream<P>*>(stream); }

}  // namespace

#include "describe.h"
#include "peak.h"

namespace {

template <class P> static Kernels kernels(bool offered = true) {
  return {lanes<typename P::Number>, offered, layout<P>, run<P>, run_both<P>, open_stream<P>, step_stream<P>, close_stream<P>, describe<P>, multiply_rate<typename P::Gain>};
}

}  // namespace

#define NAME2(a, b) a##b
#define NAME(a, b) NAME2(a, b)

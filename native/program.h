// A program as the machine sees it: plain data, made by module.cpp from the list of integers that
// recurra/machine/encode.py writes, and read by the kernels. No library types: this header is compiled for several
// instruction sets.
#pragma once
#include <cstdint>

// The numbers are those of recurra/program/ops.py (tests/test_native.py walks every row of that table through apply()).
enum Code : int32_t {
  kAdd = 3, kSub, kMul, kDiv, kNeg, kFma, kAbs, kMax, kMin, kRelu, kSigmoid, kTanh, kExp, kExpm1, kLog, kLog1p, kSqrt,
  kRsqrt, kErf, kSoftplus, kDsigmoid, kDtanh, kGt, kGe, kEq, kSelect, kRowsum, kRowmax, kCopy = 33, kRowdevsq = 34,
};
static inline bool reduces(int32_t code) { return code == kRowsum || code == kRowmax || code == kRowdevsq; }

enum Place : int32_t {
  kNone,
  kSlot,      // a tile of scratch: rows x columns of one tile, in the first-level cache
  kRows,      // an array with one row for every time and sequence
  kShifted,   // the same, one step earlier in the order in which the states ran; the initial state at the start
  kLocal,     // rows of this time step (or chunk) only, private to a thread
  kState,     // a state before the step
  kNext,      // a state after the step
  kVector,    // one row for all: a weight vector
  kConstant,  // one number
};

struct Operand {
  int32_t place, index, column, broadcast;  // broadcast: one number a row stands for all columns
};

struct Gate {  // one value of the phase's width that comes out of a product
  int32_t matrix, transposed;           // transposed: a W (rows of W run over k) rather than a W^T
  int32_t first_column, first_row;      // where its outputs, and its k, begin in the matrix
  int32_t slot;
  Operand start;                        // what the chain of multiply-adds starts from; kNone: zero
};

struct Group {  // products that share their left operand
  Operand left;
  int32_t depth;
  int32_t gate_count;
  const Gate* gates;
  int64_t packed;  // where its panels begin in the packed weights, in elements; set by layout()
};

struct Instruction {
  int32_t code;
  Operand to, also, a, b, c;
};

struct Phase {  // products, then operations, tile by tile over columns of one width
  int32_t width, slot_count, group_count, instruction_count, sum_count;
  Group* groups;
  const Instruction* instructions;
};

struct State {
  int32_t width, initial, final;  // arrays of one row a sequence; -1: none
};

struct Stage {  // the phases once over all rows, or once a step in a loop over time
  int32_t loop, order;  // order: +1 in time, -1 against it
  int32_t state_count, local_count, phase_count;
  const State* states;
  const int32_t* local_widths;
  Phase* phases;
};

struct Shifted {
  int32_t history, initial, order;
};

// After the stages: left^T right over all N rows, left R and right C columns wide, for each of `targets`. A left operand of
// kNone stands for ones, and the result is the sum of the rows of right.
struct Gain {
  Operand left, right;
  int32_t R, C, target_count;
  const int32_t* targets;
  const bool* add;  // for each target: whether an earlier gain wrote to it
};

struct Procedure {
  int32_t stage_count, array_count, shifted_count, static_count, constant_count, gain_count, target_count;
  Stage* stages;
  const Gain* gains;
  const int32_t* array_widths;
  const Shifted* shifted;
  const double* constants;
  int64_t packed_size;  // elements of all panels; set by layout()
};

inline void* const kTransient = reinterpret_cast<void*>(1);

struct Call {
  int64_t T, B, N;
  const int64_t* offset;  // T + 1 numbers: the first row of each time; null when every sequence has length T
  int32_t threads;
  bool poison;            // tests: fill scratch with NaN first
  void* const* arrays;    // null: left out; kTransient: needed only while a chunk of rows goes through the stages
  const bool* transient;  // which were kTransient; set by run()
  const void* const* statics;  // weights: matrices and vectors
  const int64_t* strides;      // of the rows of matrices
  void* const* targets;        // of the gains; null: not wanted
};

// What a call would do. All sizes are in rows, columns and numbers; the caller has set everything to zero, and brings memory
// for the phases of each stage and the sequences of each thread.
struct PhaseShape {
  int64_t rows, columns;  // that the thread with the most takes at once
  int64_t tile_rows, tile_columns, unit;               // columns come in whole units
  int64_t block_rows, block_columns, most_block_rows;  // of the largest register block; 0 where there is no product
  int64_t multiply_adds, done, packed_bytes;           // a row; the same with what fills the vectors; weights as packed
};
struct StageShape {
  int64_t rows[2], chunk_rows[2];  // numbers read and written a row; and in arrays that live for a chunk of rows only
  PhaseShape* phases;
};
struct CallShape {
  int64_t threads, together, apart, packed;  // together: the threads share the columns of a step; apart: they do not meet
  int64_t steps;                             // of a chunk
  int64_t gain_multiply_adds, gain_rows;     // a row
  int64_t* sequences;
  StageShape stages[4];
};

// How numbers are multiplied (product.h), by the numbers of recurra/machine/program.py. Rows are double for kDouble, else float.
enum Kind : int32_t { kFloat, kDouble, kBrief, kSplit, kBytes, kKinds };

// What there is for one kind; without `run` it is not to be had.
struct Kernels {
  int32_t lanes;
  bool offered;  // false: for tests, as another kind is faster and no less exact on this processor
  void (*layout)(Procedure&);  // sets Group::packed and Procedure::packed_size
  void (*run)(const Procedure&, const Call&);
  void (*run_both)(const Procedure&, const Call&, const Procedure&, const Call&);  // at the same time, a thread each
  // Streaming. The call is copied; what its addresses name must stay until the stream is closed.
  void* (*open_stream)(const Procedure&, const Call&);
  void (*step_stream)(void* stream, int input, const void* x, int output, void* y);
  void (*close_stream)(void* stream);
  void (*describe)(const Procedure&, const Call&, CallShape&);
  double (*multiply_rate)(int threads);  // multiply-adds a second of all threads, out of registers
};

// What the builds for the processor at hand offer.
struct Machine {
  const char* name;
  Kernels kinds[kKinds];
  void (*apply[2])(int32_t code, int64_t n, const void* a, const void* b, const void* c, void* to);  // one operation on n numbers, float and double
  double (*read_rate)(const void* memory, int64_t bytes, int threads);  // bytes a second of all threads, each reading all
};

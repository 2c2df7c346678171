"""From the stages of a program to the text of Triton kernels: one for the loop, and one for all rows of other phases.

Nothing of a user's file is in the text: it is put together from numbers, and from the column `triton` of the table of
operations. A program instance of the loop owns ROWS sequences and, of every phase, each ACROSS-th tile of columns; it
walks over time. After each phase the ACROSS instances of the same sequences meet, but for those of one number a row.
Products are `tl.dot`s over pieces of DEPTH, whose accumulators the operations of the phase read where they are; what
another phase reads goes through memory.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from recurra.machine.operands import Operand, Place
from recurra.machine.triton_stages import Gate, Instruction, Phase, Procedure, Stage
from recurra.program.ops import OPS

BY_NUMBER = {op.native: op for op in OPS.values() if op.native is not None}
COPY = OPS["broadcast"].native
_HEAD = """import triton
import triton.language as tl

from recurra.machine.triton_functions import (
    deviation,
    deviation_of,
    expm1,
    log1p,
    meet,
    peak,
    peak_of,
    softplus,
    tanh,
    total,
    total_of,
)


@triton.jit
def kernel(
"""
Argument = tuple[str, int]  # "array", "static", "state", "local", "gate" or "shifted", and its number


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's text and what it is called with, in this order, before the numbers that `Launch` adds.

    tiles    how wide the phases are whose tiles TILE0, TILE1 and so on are, and how many products each has
    parts    into how many launches the loop can be cut, a phase each
    sums     how many partial reductions its instances put together
    """

    text: str
    arguments: tuple[Argument, ...]
    tiles: tuple[tuple[int, int], ...]
    parts: int = 0
    sums: int = 0


@dataclass
class _Text:
    """The lines of a kernel as they are written."""

    procedure: Procedure
    stage: Stage
    constants: Sequence[float]
    strides: Sequence[int]
    absent: frozenset[int]
    lines: list[str] = field(default_factory=list)
    names: dict[Argument, str] = field(default_factory=dict)
    depth: int = 1
    fresh: int = 0
    slots: dict[int, str] = field(default_factory=dict)
    seen: dict[Operand, str] = field(default_factory=dict)

    def __call__(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def inside(self, head: str) -> Iterator[None]:
        """A block under `head`."""
        self(head)
        self.depth += 1
        yield
        self.depth -= 1

    def name(self, letter: str) -> str:
        """A name that is not taken."""
        self.fresh += 1
        return f"{letter}{self.fresh}"

    def argument(self, kind: str, index: int) -> str:
        """The pointer to an array, a weight or scratch."""
        return self.names.setdefault((kind, index), f"{kind}_{index}")

    # ---- operands

    def rows(self, o: Operand) -> tuple[str, str, int]:
        """The pointer, the row in it and the width of a place that has rows."""
        place, index, _, _ = o
        loop = self.stage.loop
        if place == Place.ROWS:
            return self.argument("array", index), "here", self.procedure.widths[index]
        if place == Place.LOCAL:
            return self.argument("local", index), "row" if loop else "here", self.stage.locals[index]
        assert place in (Place.STATE, Place.NEXT), f"{Place(place).name} has no rows"
        width, half = self.stage.states[index][0], "now" if place == Place.STATE else "then"
        return f"{self.argument('state', index)} + {half} * {width}", "row", width

    def tile(self, o: Operand, columns: str, mask: str, lines: str = "live") -> str:
        """Loads columns of a place that has rows; one column, for all, where it is broadcast."""
        column, spread = o[2], o[3]

        def of(pointer: str, row: str, width: int, both: str, one: str) -> str:
            if spread:
                return f"tl.load({pointer} + {row} * {width} + {column}, mask={one}, other=0.0)[:, None]"
            at = f"({row} * {width} + {column})[:, None] + {columns}[None, :]"
            return f"tl.load({pointer} + ({at}), mask={both}, other=0.0)"

        if o[0] != Place.SHIFTED:
            return of(*self.rows(o), mask, lines)
        history, initial, _ = self.procedure.shifted[o[1]]
        width = self.procedure.widths[history]
        old, first = f"older_{o[1]}", f"({lines} & (row >= reach_{o[1]}))"
        earlier = of(self.argument("array", history), f"from_{o[1]}", width, f"{mask} & {old}[:, None]", old)
        start = of(self.argument("shifted", initial), "row", width, f"{mask} & {first}[:, None]", first)
        which = f"(row < reach_{o[1]})[:, None]"
        return f"tl.where({which}, {earlier}, {start})"

    def operand(self, o: Operand) -> str:
        """The name of what an operation reads, loaded where it is not there yet."""
        place, index, column, spread = o
        if place == Place.SLOT:
            return self.slots[index]
        if o not in self.seen:
            name = self.seen[o] = self.name("v")
            self(f"{name} = {self._loaded(place, index, column, spread, o)}")
        return self.seen[o]

    def _loaded(self, place: int, index: int, column: int, spread: int, o: Operand) -> str:
        if place == Place.CONSTANT:
            return f"tl.full((1, 1), {_number(self.constants[index])}, REAL)"
        if place == Place.VECTOR:
            pointer = self.argument("static", index)
            if spread:
                return f"tl.load({pointer} + {column})"
            return f"tl.load({pointer} + {column} + columns, mask=inside, other=0.0)[None, :]"
        return self.tile(o, "columns", "both")

    def store(self, o: Operand, value: str) -> None:
        """Writes a tile, but not to an array that the call leaves out."""
        if o[0] in (Place.NONE, Place.SLOT) or (o[0] == Place.ROWS and o[1] in self.absent):
            return
        pointer, row, width = self.rows(o)
        at = f"({row} * {width} + {o[2]})[:, None] + columns[None, :]"
        self(f"tl.store({pointer} + ({at}), {value}, mask=both)")

    # ---- phases

    def operations(self, instructions: Iterable[Instruction], tile: str) -> None:
        """Those that are no reductions, and the tiles that reductions take, in order."""
        sums = 0
        for i in instructions:
            op = BY_NUMBER[i.code]
            operands = [self.operand(o) for o in i.operands]
            if op.kind == "reduction":
                s = f"s{sums}"
                self(f"{s}n, {s}a, {s}b = {op.triton}({s}n, {s}a, {s}b, {operands[0]}, both)")
                sums += 1
                continue
            value = operands[0]
            if i.code != COPY or i.to != i.operands[0]:
                value = self.name("v")
                self(f"{value} = tl.broadcast_to({op.triton.format(*operands)}, (ROWS, {tile}))")
            if i.to[0] == Place.SLOT:
                self.slots[i.to[1]] = value
            else:
                self.store(i.to, value)
            self.store(i.also, value)

    def begin_sums(self, phase: Phase) -> None:
        """What the reductions of a phase begin with."""
        for n, i in enumerate(reductions(phase)):
            first = _beginning(i)
            self(f"s{n}n = tl.zeros((ROWS,), REAL)")
            self(f"s{n}a = tl.full((ROWS,), {first}, REAL)")
            self(f"s{n}b = tl.zeros((ROWS,), REAL)")

    def end_sums(self, phase: Phase) -> None:
        """Their results, of everything that ended in s0n, s0a and s0b."""
        for n, i in enumerate(reductions(phase)):
            kind = BY_NUMBER[i.code].triton
            self(f"y{n} = {kind}_of(s{n}n, s{n}a, s{n}b)")
            for o in (i.to, i.also):
                if o[0] != Place.NONE and not (o[0] == Place.ROWS and o[1] in self.absent):
                    pointer, row, width = self.rows(o)
                    self(f"tl.store({pointer} + {row} * {width} + {o[2]}, y{n}, mask=live)")

    def columns(self, width: int, tile: str) -> None:
        """The columns of a tile."""
        self(f"columns = j * {tile} + tl.arange(0, {tile})")
        self(f"inside = columns < {width}")
        self("both = live[:, None] & inside[None, :]")
        self.seen, self.slots = {}, {}

    def products(self, gates: Sequence[Gate], tile: str) -> None:
        """The gates of a phase: those that read the same rows share one loop over the depth."""
        groups: dict[tuple[Operand, int, bool], list[Gate]] = {}
        for gate in gates:
            groups.setdefault((gate.left, gate.depth, gate.start[0] == Place.SLOT), []).append(gate)
        for (left, depth, _), members in groups.items():
            for gate in members:
                start = "0.0" if gate.start[0] == Place.NONE else self.operand(gate.start)
                name = self.slots[gate.slot] = self.name("g")
                zeros = f"tl.zeros((ROWS, {tile}), REAL)"
                self(f"{name} = {zeros}" if start == "0.0" else f"{name} = {zeros} + {start}")
            with self.inside(f"for k in range(0, {depth}, DEPTH):"):
                self("deep = k + tl.arange(0, DEPTH)")
                self(f"within = deep < {depth}")
                self(f"x = {self.tile(left, 'deep', 'live[:, None] & within[None, :]')}")
                for gate in members:
                    stride, out = self.strides[gate.matrix], f"({gate.column} + columns)[None, :]"
                    at = f"deep[:, None] * {stride} + {out}" if gate.transposed else f"{out} * {stride} + deep[:, None]"
                    weights = self.argument("static", gate.matrix)
                    self(f"w = tl.load({weights} + ({at}), mask=within[:, None] & inside[None, :], other=0.0)")
                    name = self.slots[gate.slot]
                    self(f"{name} = tl.dot(x, w, {name}, input_precision=PRECISION, out_dtype=REAL)")

    def text(self, more: Sequence[str]) -> str:
        """The whole module."""
        head = "".join(f"    {name},\n" for name in (*self.names.values(), *more))
        return f"{_HEAD}{head}):\n" + "\n".join(self.lines) + "\n"


def reductions(phase: Phase) -> list[Instruction]:
    """The reductions among the operations of a phase."""
    return [i for i in phase.instructions if BY_NUMBER[i.code].kind == "reduction"]


def _beginning(i: Instruction) -> str:
    return 'float("-inf")' if BY_NUMBER[i.code].triton == "peak" else "0.0"


def _number(number: float) -> str:
    text = repr(float(number))
    return text if math.isfinite(number) else f'float("{text}")'


def loop_kernel(
    procedure: Procedure, stage: Stage, constants: Sequence[float], strides: Sequence[int], absent: frozenset[int]
) -> Kernel:
    """The loop over time, as one launch, or, told PART, as one launch for a part of one step."""
    to = _Text(procedure, stage, constants, strides, absent)
    to("lane = tl.program_id(0)")
    to("block = tl.program_id(1)")
    to("row = block * ROWS + tl.arange(0, ROWS)")
    to("turn = tl.full((), 0, tl.int64)")
    part = sums = 0
    with to.inside("for step in range(begin, end):"):
        to("t = T - T + step" if stage.order > 0 else "t = T - 1 - step")  # a tensor, in the interpreter too
        to("first = tl.load(offsets + t)")
        to("running = tl.load(offsets + t + 1) - first")
        to("live = row < running")
        to("here = first + row")
        to("now = (step % 2) * B")
        to("then = B - now")
        _find_shifted(to)
        _carry(to)
        with to.inside("if running > block * ROWS:"):
            for p, phase in enumerate(stage.phases):
                part, sums = _loop_phase(to, p, phase, part, sums)
            if any(reductions(p) or _by_everybody(p, stage) for p in stage.phases[-1:]):
                _meeting(to)  # before anybody writes what others still read in what came after the last meeting
        with to.inside("else:"):
            _meeting(to)  # the states of those who begin with the next step are there
    tiles = tuple((p.width, len(p.gates)) for p in stage.phases)
    numbers = ["offsets", "partial", "meetings", "T", "B", "begin", "end"]
    meta = ["ROWS", "ACROSS", "WIDER", "DEPTH", *[f"TILE{p}" for p in range(len(tiles))], "PART", "PRECISION", "REAL"]
    text = to.text([*numbers, *[f"{m}: tl.constexpr" for m in meta]])
    return Kernel(text, tuple(to.names), tiles, part, sums)


def _meeting(to: _Text) -> None:
    with to.inside("if PART < 0:"):
        with to.inside("if ACROSS == 1:"):
            to("tl.debug_barrier()")
        with to.inside("else:"):
            to("turn += ACROSS")
            to("meet(meetings + block, turn)")


def _find_shifted(to: _Text) -> None:
    """Where the rows one step earlier lie; sequences that have none read their first state."""
    for i in _shifted_in(to.stage):
        order = to.procedure.shifted[i][2]
        to(f"past = t - {order}" if order > 0 else f"past = t + {-order}")
        to("known = (past >= 0) & (past < T)")
        to("past = tl.where(known, past, 0)")
        to("base = tl.load(offsets + past)")
        to(f"reach_{i} = tl.where(known, tl.load(offsets + past + 1) - base, 0)")
        to(f"older_{i} = live & (row < reach_{i})")
        to(f"from_{i} = base + row")


def _shifted_in(stage: Stage) -> list[int]:
    read = [o for p in stage.phases for i in p.instructions for o in i.operands]
    read += [o for p in stage.phases for g in p.gates for o in (g.left, g.start)]
    return sorted({index for place, index, _, _ in read if place == Place.SHIFTED})


def _carry(to: _Text) -> None:
    """Sequences that have no step at this time keep their states."""
    with to.inside("if running < tl.minimum(B, (block + 1) * ROWS):"), to.inside("if PART < 1:"):
        to("idle = (row >= running) & (row < B)")
        for i, (width, _, _) in enumerate(to.stage.states):
            with to.inside(f"for j in range(lane, tl.cdiv({width}, 64), ACROSS):"):
                to("columns = j * 64 + tl.arange(0, 64)")
                to(f"both = idle[:, None] & (columns < {width})[None, :]")
                to(f"at = (row * {width})[:, None] + columns[None, :]")
                state = to.argument("state", i)
                to(f"stays = tl.load({state} + now * {width} + at, mask=both)")
                to(f"tl.store({state} + then * {width} + at, stays, mask=both)")


def _loop_phase(to: _Text, p: int, phase: Phase, part: int, sums: int) -> tuple[int, int]:
    """A phase of the loop; the parts and the partial reductions so far, with its own."""
    tile, own, everybody = f"TILE{p}", reductions(phase), _by_everybody(phase, to.stage)
    with to.inside(f"if PART < 0 or PART == {part}:"):
        to.begin_sums(phase)
        steps = "0, 1" if everybody else f"lane, tl.cdiv({phase.width}, {tile}), ACROSS"
        with to.inside(f"for j in range({steps}):"):
            to.columns(phase.width, tile)
            to.products(phase.gates, tile)
            to.operations(phase.instructions, tile)
        if own:
            with to.inside("if ACROSS > 1:"):
                for n in range(len(own)):
                    for k, letter in enumerate("nab"):
                        at = f"(({3 * (sums + n) + k}) * ACROSS + lane) * B + row"
                        to(f"tl.store(partial + {at}, s{n}{letter}, mask=live)")
    if everybody:
        with to.inside("if PART < 0:"):
            to("tl.debug_barrier()")
    else:
        _meeting(to)
    if own:
        _put_together(to, phase, part + 1, sums)
    return part + 1 + bool(own), sums + len(own)


def _by_everybody(phase: Phase, stage: Stage) -> bool:
    """Whether each instance computes a phase for itself, to the same bits: one number a row is not worth a meeting."""
    small = phase.width == 1 and not phase.gates and not reductions(phase)
    return small and any(p.width > 1 or p.gates for p in stage.phases)


def _put_together(to: _Text, phase: Phase, part: int, sums: int) -> None:
    """The reductions of all instances of the same sequences; each puts them together for itself, to the same bits."""
    with to.inside(f"if PART < 0 or PART == {part}:"):
        with to.inside("if ACROSS > 1:"):
            to("lanes = tl.arange(0, WIDER)")
            to("all = live[:, None] & (lanes < ACROSS)[None, :]")
            for n, i in enumerate(reductions(phase)):
                for k, letter in enumerate("nab"):
                    at = f"(({3 * (sums + n) + k}) * ACROSS + lanes)[None, :] * B + row[:, None]"
                    other = _beginning(i) if letter == "a" else "0.0"
                    to(f"s{n}{letter} = tl.load(partial + ({at}), mask=all, other={other})")
        with to.inside("else:"):
            for n in range(len(reductions(phase))):
                for letter in "nab":
                    to(f"s{n}{letter} = s{n}{letter}[:, None]")
        to.end_sums(phase)
    with to.inside("if PART < 0:"):
        to("tl.debug_barrier()")


Homes = dict[int, Operand | None]  # of the products of a phase: where each lies, None: in memory of its own


def wide_kernel(
    procedure: Procedure,
    stage: Stage,
    constants: Sequence[float],
    strides: Sequence[int],
    absent: frozenset[int],
    phases: Sequence[tuple[Phase, Homes]],
) -> Kernel:
    """Phases over all rows, a program instance for ROWS of them; their products are there already."""
    to = _Text(procedure, stage, constants, strides, absent)
    to("row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)")
    to("live = row < N")
    to("here = row.to(tl.int64)")
    for p, (phase, homes) in enumerate(phases):
        tile = f"TILE{p}"
        to.begin_sums(phase)
        with to.inside(f"for j in range(0, tl.cdiv({phase.width}, {tile})):"):
            to.columns(phase.width, tile)
            for slot, home in homes.items():
                name = to.slots[slot] = to.name("g")
                if home is None:
                    at = f"(here * {phase.width})[:, None] + columns[None, :]"
                    to(f"{name} = tl.load({to.argument('gate', slot)} + ({at}), mask=both, other=0.0)")
                else:
                    to(f"{name} = {to.tile(home, 'columns', 'both')}")
            to.operations(phase.instructions, tile)
        for n in range(len(reductions(phase))):
            for letter in "nab":
                to(f"s{n}{letter} = s{n}{letter}[:, None]")
        to.end_sums(phase)
        to("tl.debug_barrier()")
    tiles = tuple((p.width, 0) for p, _ in phases)
    meta = ["ROWS", *[f"TILE{p}" for p in range(len(tiles))], "REAL"]
    return Kernel(to.text(["N", *[f"{m}: tl.constexpr" for m in meta]]), tuple(to.names), tiles)

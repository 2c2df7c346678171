"""The list of integers of native/program.h read back: what a generated kernel is written from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from recurra.machine.operands import Operand, Place


@dataclass(frozen=True, slots=True)
class Gate:
    """A product's columns from `column` on, in a slot: left Wᵀ, or left W where transposed; beginning with `start`."""

    left: Operand
    depth: int
    matrix: int
    transposed: bool
    column: int
    slot: int
    start: Operand


@dataclass(frozen=True, slots=True)
class Instruction:
    """An operation of the table by its number: two places for its result, and its operands."""

    code: int
    to: Operand
    also: Operand
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """Products, then operations, all of one width."""

    width: int
    gates: tuple[Gate, ...]
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """Phases over all rows, or once a step. states: (width, array of the first rows, array of the last rows)."""

    loop: bool
    order: int
    states: tuple[tuple[int, int, int], ...]
    locals: tuple[int, ...]
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Gain:
    """leftᵀ right, R x C, or the sum of right's rows where left is nothing, for each of the targets."""

    R: int
    C: int
    left: Operand
    right: Operand
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Procedure:
    """A whole program. shifted: (history, initial, order)."""

    widths: tuple[int, ...]
    shifted: tuple[tuple[int, int, int], ...]
    stages: tuple[Stage, ...]
    gains: tuple[Gain, ...]


def decoded(code: Sequence[int]) -> Procedure:
    """The procedure that `Memory.procedure` made this list of."""
    read = iter(code)
    widths = _numbers(read)
    shifted = tuple(_three(read) for _ in range(next(read)))
    next(read)  # statics
    stages = tuple(_stage(read) for _ in range(next(read)))
    next(read)  # targets
    gains = tuple(_gain(read) for _ in range(next(read)))
    assert next(read, None) is None, "more than a procedure"
    return Procedure(widths, shifted, stages, gains)


def _numbers(read: Iterator[int]) -> tuple[int, ...]:
    return tuple(islice(read, next(read)))


def _three(read: Iterator[int]) -> tuple[int, int, int]:
    return next(read), next(read), next(read)


def _operand(read: Iterator[int]) -> Operand:
    return next(read), next(read), next(read), next(read)


def _stage(read: Iterator[int]) -> Stage:
    loop, order = bool(next(read)), next(read)
    states = tuple(_three(read) for _ in range(next(read)))
    return Stage(loop, order, states, _numbers(read), tuple(_phase(read) for _ in range(next(read))))


def _phase(read: Iterator[int]) -> Phase:
    width, _, groups = _three(read)
    gates = tuple(gate for _ in range(groups) for gate in _group(read))
    return Phase(width, gates, tuple(_instruction(read) for _ in range(next(read))))


def _group(read: Iterator[int]) -> list[Gate]:
    left, depth = _operand(read), next(read)
    gates = []
    for _ in range(next(read)):
        matrix, transposed, column = _three(read)
        next(read)  # the first row, which is 0
        gates.append(Gate(left, depth, matrix, bool(transposed), column, next(read), _operand(read)))
    return gates


def _instruction(read: Iterator[int]) -> Instruction:
    code, to, also = next(read), _operand(read), _operand(read)
    operands = [_operand(read) for _ in range(3)]
    return Instruction(code, to, also, tuple(o for o in operands if o[0] != Place.NONE))


def _gain(read: Iterator[int]) -> Gain:
    R, C = next(read), next(read)
    return Gain(R, C, _operand(read), _operand(read), _numbers(read))

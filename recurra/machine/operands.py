"""What a native program can name: arrays, statics, constants, and where in them an operand lies."""

from collections.abc import Sequence
from enum import IntEnum

import torch

from recurra.program.values import Value

FLOATS = (torch.float32, torch.float64)  # what the native machine computes in


class Unsupported(Exception):
    """The native machine cannot run a part: why, and the line of the user's step that says so ("" if none does)."""

    def __init__(self, reason: str, line: str = "") -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class Place(IntEnum):
    """Where an operand lies; the numbers of native/program.h."""

    NONE, SLOT, ROWS, SHIFTED, LOCAL, STATE, NEXT, VECTOR, CONSTANT = range(9)


Operand = tuple[int, int, int, int]  # place, index, column, broadcast
NOTHING: Operand = (Place.NONE, 0, 0, 0)


class Memory:
    """Arrays of a procedure, one row for each of all N rows (or, for first and last states, one a sequence).

    stored       value -> its array, and the column where it begins
    shifted_of   previous state -> index of a shifted array: the rows of the next state, one step earlier
    """

    def __init__(self, statics: Sequence[Value]) -> None:
        self.static_index = {s: i for i, s in enumerate(statics)}
        self.array_widths: list[int] = []
        self.shifted: list[tuple[int, int, int]] = []
        self.constants: list[float] = []
        self.stored: dict[Value, tuple[int, int]] = {}
        self.shifted_of: dict[Value, int] = {}

    def array(self, width: int) -> int:
        """A new array; its number."""
        self.array_widths.append(width)
        return len(self.array_widths) - 1

    def store(self, value: Value) -> int:
        """A new array for the rows of a value."""
        index = self.array(value.width)
        self.stored[value] = (index, 0)
        return index

    def shift(self, history: int, initial: int, order: int) -> int:
        """A new shifted array: rows of `history` one step earlier in `order`; before the first step, of `initial`."""
        self.shifted.append((history, initial, order))
        return len(self.shifted) - 1

    def constant(self, number: float) -> int:
        """The number's place among the constants."""
        for i, known in enumerate(self.constants):
            if repr(known) == repr(number):  # tells 0.0 from -0.0, and finds NaN
                return i
        self.constants.append(number)
        return len(self.constants) - 1

    def operand(self, value: Value, column: int, broadcast: int) -> Operand | None:
        """Where a value lies that no part has to compute; None if it is not known here."""
        if value.op == "const":
            return (Place.CONSTANT, self.constant(float(value.attr[0])), 0, 0)
        if value.op == "static":
            return (Place.VECTOR, self.static_index[value], column, broadcast)
        if value in self.stored:
            array, start = self.stored[value]
            return (Place.ROWS, array, start + column, broadcast)
        if value in self.shifted_of:
            return (Place.SHIFTED, self.shifted_of[value], column, broadcast)
        return None

    def procedure(self, stages: Sequence[list[int]], gains: Sequence[list[int]] = (), targets: int = 0) -> list[int]:
        """The whole program as the native machine reads it."""
        shifted = [n for s in self.shifted for n in s]
        head = [len(self.array_widths), *self.array_widths, len(self.shifted), *shifted, len(self.static_index)]
        head += [len(stages), *(n for stage in stages for n in stage)]
        return [*head, targets, len(gains), *(n for gain in gains for n in gain)]

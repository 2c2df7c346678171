"""Values inside a step, found by the name of a variable and changed where they are computed.

A step is ordinary PyTorch: a mode of `torch.overrides` sees each operation that it calls, in order. A value is known by
the number of the operation that gives it, so that no step has to be written for this, and every executor, the plain
loop among them, sees the same operations.
"""

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from recurra.cell import Cell, has_variables, telling_batches, trial_step


@dataclass(frozen=True, slots=True)
class Place:
    """Result `part` (-1: the only one) of the operation number `count`, a `function` that gives rows (B, width)."""

    count: int
    part: int
    function: str
    width: int


class _Counting(TorchFunctionMode):
    """Numbers the operations that give tensors, and hands each result to `result`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.before(sys._getframe(1))
        out = func(*args, **(kwargs or {}))
        parts = [*enumerate(out)] if isinstance(out, (tuple, list)) else [(-1, out)]
        parts = [(part, t) for part, t in parts if isinstance(t, Tensor)]
        if not parts:  # a shape, a dtype
            return out
        self.count += 1
        found = {part: self.result(Place(self.count, part, func.__name__, _width(t)), t, args) for part, t in parts}
        return found[-1] if -1 in found else type(out)([found.get(k, o) for k, o in enumerate(out)])

    def before(self, frame: FrameType | None) -> None:
        """Called ahead of each operation, with the frame that calls it."""

    def result(self, place: Place, t: Tensor, args: Any) -> Tensor:
        """What the step is to see for the result t."""
        raise NotImplementedError


def _width(t: Tensor) -> int:
    return t.shape[-1] if t.dim() else 1


class _Finding(_Counting):
    """Remembers which variable held which result when it was last looked at."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.named: dict[str, Place] = {}
        self._places: dict[int, Place] = {}
        self._alive: list[Tensor] = []  # ids stay meaningful while the tensors live

    def before(self, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not variables.__code__:
            if has_variables(frame.f_code):
                self.named |= {k: p for k, t in frame.f_locals.items() if (p := self.place(t)) is not None}
            frame = frame.f_back

    def place(self, t: object) -> Place | None:
        """Where a tensor was computed, if it is rows that an operation gave."""
        return self._places.get(id(t))

    def result(self, place: Place, t: Tensor, args: Any) -> Tensor:
        if t.dim() == 2 and t.shape[0] == self.rows:
            self._places[id(t)] = place
        self._alive.append(t)
        return t


def variables(cell: Cell) -> dict[str, Place]:
    """Where the variables of a step are computed that hold rows when it ends: next states, and what went into them."""
    trial = copy.deepcopy(cell).train()
    rows = next(telling_batches(trial))
    finding = _Finding(rows)
    _, nexts = trial_step(trial, rows, 1.0, finding)
    returned = {k: p for k, t in zip(cell.state_names, nexts, strict=True) if (p := finding.place(t)) is not None}
    return {**finding.named, **returned}


class Masking(_Counting):
    """Multiplies values by masks where they are computed. `left`: the places that did not come up."""

    def __init__(self, masks: Mapping[Place, Tensor]) -> None:
        super().__init__()
        self.left = dict(masks)

    def result(self, place: Place, t: Tensor, args: Any) -> Tensor:
        mask = self.left.pop(place, None)
        if mask is None:
            return t
        return t.mul_(mask) if any(t is a for a in args) else t * mask  # a variable that changes in place is not reread

"""The variables of a step: what names in the user's own code hold when it returns.

They are those of `step` and of the functions it calls; where two have a variable of the same name, the function that
returns last has it: `step` itself. The names of the states mean the next states, and `output` the step's output.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from recurra.cell.base import Cell, telling_batches, trial_step
from recurra.cell.frames import has_variables
from recurra.cell.wrapper import InnerStep, States, Wrapper
from recurra.errors import InputError


@contextmanager
def _collecting(found: dict[str, Tensor]) -> Iterator[None]:
    """Puts into `found` the tensors that variables of the functions inside hold when those return."""

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and has_variables(frame.f_code):
            found.update((name, t) for name, t in frame.f_locals.items() if isinstance(t, Tensor))

    before = sys.getprofile()
    if before is not None and not callable(before):
        raise InputError("record needs the place of the profiler that is running. Stop the profiler while you record.")
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


def _named(cell: Cell, found: Mapping[str, Tensor], y: Tensor, nexts: States) -> dict[str, Tensor]:
    """All that a step has to show, by name."""
    return {**found, **dict(zip(cell.state_names, nexts, strict=True)), "output": y}


def recordable(cell: Cell) -> dict[str, tuple[int, ...]]:
    """What can be recorded of a cell: by name, the shape without the batch. Found by one step on rows of zeros."""
    B, found = next(telling_batches(cell)), dict[str, Tensor]()
    named = _named(cell, found, *trial_step(cell, B, watch=_collecting(found)))
    return {name: tuple(t.shape[1:]) for name, t in named.items() if t.dim() and t.shape[0] == B}


class Showing(Wrapper):
    """The cell inside, whose output has variables of its step to the right of it."""

    def __init__(self, inner: Cell, names: Sequence[str]) -> None:
        super().__init__(inner)
        self.names = tuple(names)

    def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
        found: dict[str, Tensor] = {}
        with _collecting(found):
            y, nexts = step(x, states)
        named = _named(self.inner, found, y, nexts)
        for name in self.names:
            if name not in named or named[name].dim() == 0 or len(named[name]) != len(x):
                raise InputError(
                    f"{type(self.inner).__name__}.step does not set {name} at every step, and what is recorded has a "
                    "value at every step. Record it where every call sets it."
                )
        return torch.cat([y, *[named[name].to(y.dtype).reshape(len(x), -1) for name in self.names]], 1), nexts

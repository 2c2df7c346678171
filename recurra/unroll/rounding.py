"""int8: how far the outputs of a layer are from those in fp32, measured before anything else is told by it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.errors import InputError
from recurra.program.layout import Layout
from recurra.program.plan import Plan

BOUND = 0.05  # of the largest output
_T, _B = 64, 8


class Rounding:
    """max |y_int8 - y_fp32| / max |y_fp32| of a program, over 64 steps of 8 sequences of x ~ N(0, 1) from zero states.

    The x is the same every time, so that an error is a property of the weights; it is measured anew when they change.
    What a program reads beside x (marks of new sequences, masks) is zeros and ones.
    """

    def __init__(self, plan: Plan, exact: Any, rounded: Any) -> None:
        self._plan, self._executors = plan, (exact, rounded)
        self._of: list[tuple[int, int]] = []
        self._error = 0.0

    def error(self, name: str, weights: Sequence[Tensor], statics: Sequence[Tensor]) -> float:
        """The error with these weights, of which the statics are made. Raises InputError where it is above BOUND."""
        of = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in weights]
        if of != self._of:
            self._error, self._of = self._measured([s.detach() for s in statics]), of
        if not self._error <= BOUND:  # NaN, too
            raise InputError(
                f"precision is 'int8', and the outputs of {name} are then {self._error:.3g} of the largest away from "
                f"those in fp32, where {BOUND} is the most. Choose 'bf16' or 'fp32' for it."
            )
        return self._error

    def _measured(self, statics: Sequence[Tensor]) -> float:
        layout, numbers = Layout(_T, _B), torch.Generator().manual_seed(8)
        first, *others = (v.width for v in self._plan.inputs.values())
        inputs = [torch.randn(layout.N, first, generator=numbers)]
        inputs += [torch.randint(2, (layout.N, n), generator=numbers).float() for n in others]
        states = [None] * len(self._plan.states)
        exact, rounded = (e.forward(layout, inputs, statics, states, False)[0] for e in self._executors)
        return float((rounded - exact).abs().max() / exact.abs().max().clamp(min=1e-30))

"""int8: how far the outputs of a layer are from those in fp32, measured before anything else is told by it."""

from collections.abc import Sequence
from math import isnan
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
        self._of: list[float] = []
        self._error = 0.0

    def error(self, name: str, statics: Sequence[Tensor]) -> float:
        """The error with these numbers of the weights. Raises InputError where it is above BOUND."""
        with torch.no_grad():
            of = [n for s in statics for n in _content(s.flatten())]
            if of != self._of:
                self._error, self._of = self._measured(statics), of
        if isnan(self._error):
            raise InputError(
                f"precision is 'int8', and the outputs of {name} on random numbers are not finite, in int8 or in fp32. "
                "Look for a weight that is not; or choose 'bf16' or 'fp32' for it."
            )
        if self._error > BOUND:
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


def _content(w: Tensor) -> tuple[float, float, float]:
    """Numbers that change with those of a weight, whoever changes them: what `w.data` writes has no version, and what
    was freed may lie where other weights lay."""
    return float(w.sum()), float(torch.dot(w, w)), float(torch.dot(w[1:], w[:-1]))

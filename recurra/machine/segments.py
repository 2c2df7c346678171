"""A square root of the memory: what the backward pass needs is computed again, a stretch of steps at a time.

Chen, Xu, Zhang and Guestrin 2016, arXiv:1604.06174. Of T steps only the states at the beginning of each of sqrt(T)
segments are kept, and while one is gone back through, what its own steps need.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any

from torch import Tensor

from recurra.machine.blocks import empty
from recurra.machine.devices import Executor
from recurra.machine.native import Needs
from recurra.program.layout import Layout

States = Sequence[Tensor | None]


def segments(layout: Layout) -> list[tuple[Layout, slice]]:
    """The stretches of steps in the order in which they are walked, and where the rows of each lie."""
    length = isqrt(max(layout.T - 1, 0)) + 1
    parts = []
    for first in range(0, layout.T, length):
        end = min(first + length, layout.T)
        sizes = None if layout.batch_sizes is None else layout.batch_sizes[first:end]
        rows = slice(layout.offsets[first], layout.offsets[end])
        parts.append((Layout(end - first, layout.B, sizes, layout.reverse), rows))
    return parts[::-1] if layout.reverse else parts


class Segments:
    """Another executor's outputs and states, to the bit; the weights' gradients are summed segment by segment."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def kept_sizes(self, T: int, B: int) -> tuple[int, int]:
        """How many numbers are kept: those of one segment, and the states before all."""
        parts = [part for part, _ in segments(Layout(T, B))]
        widths = sum(s.width for s in self._executor.plan.states.values())
        longest = max((part.N for part in parts), default=0)
        return self._executor.kept_size(False, longest), len(parts) * B * widths

    def forward(
        self, layout: Layout, inputs: Sequence[Tensor], statics: Sequence[Tensor], states: States, keep: bool
    ) -> tuple[Tensor, Sequence[Tensor], list[States]]:
        """Output, last states, and the states at the beginning of each segment."""
        if not keep or not layout.T:
            output, last, _ = self._executor.forward(layout, inputs, statics, states, False)
            return output, last, []
        output, starts = empty(inputs[0], layout.N, self._executor.plan.output.width), []
        for part, rows in segments(layout):
            starts.append(states)
            own = [t[rows] for t in inputs]
            output[rows], states, _ = self._executor.forward(part, own, statics, states, False)
        return output, [s for s in states if s is not None], starts

    def backward(
        self,
        layout: Layout,
        starts: list[States],
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: States,
        output: Tensor,
        d_output: Tensor | None,
        d_last: States,
        need_inputs: Needs,
        need_statics: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None], States]:
        """As the executor's, each segment forward once more and then backward."""
        d_inputs: list[Tensor | None] = [None] * len(inputs)
        d_statics: list[Tensor | None] = [None] * len(statics)
        for (part, rows), first in reversed(list(zip(segments(layout), starts, strict=True))):
            own, d = [t[rows] for t in inputs], None if d_output is None else d_output[rows]
            kept: Any
            y, _, kept = self._executor.forward(part, own, statics, first, True)
            some, gains, d_last = self._executor.backward(
                part, kept, own, statics, first, y, d, d_last, need_inputs, need_statics
            )
            for i, found in enumerate(some):
                if found is not None:
                    whole = d_inputs[i]
                    if whole is None:
                        whole = d_inputs[i] = empty(found, layout.N, found.shape[1])
                    whole[rows] = found
            d_statics = [
                b if a is None else a if b is None else a.add_(b) for a, b in zip(d_statics, gains, strict=True)
            ]
        return d_inputs, d_statics, d_last

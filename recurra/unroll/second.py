"""Derivatives of derivatives on the native machine: the backward pass of a program as a program itself.

    history   the program with all its next states as its output: what the backward pass reads of the forward one
    reverse   the backward pass, in reverse time; its rows and PyTorch's products make the gradients

Both are run as sequence operations, so each has a native backward, and a reverse of its own: derivatives of any order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.machine import native
from recurra.machine.native import NativeExecutor
from recurra.machine.operands import Unsupported
from recurra.passes import Reverse, backward_of, history, reverse, split
from recurra.passes.reverse import Columns
from recurra.program.layout import Layout
from recurra.program.plan import Plan, Step
from recurra.program.values import Value
from recurra.unroll.rows import earlier

Run = Callable[..., tuple[Tensor, ...]]
Given = Sequence[Any]  # tensors, or None


class Derived:
    """A program made of another's plan: its own plan and executor, and which of the other's statics it reads."""

    def __init__(self, step: Step, statics: Sequence[Value]) -> None:
        plan = split(step)
        self.plan: Plan | None = plan
        self.executor: NativeExecutor | None = native.prepare(plan, backward_of(plan))
        self.second = Second(plan)
        self._statics = [statics.index(s) for s in plan.statics]

    def run(self, apply: Run, layout: Layout, inputs: Given, states: Given, statics: Given) -> Given:
        """(output, *last states), under autograd."""
        ends = len(inputs), len(inputs) + len(states)
        whole = [None if t is None else t.contiguous() for t in (*inputs, *states)]
        return apply(self, layout, ends, *whole, *[statics[k] for k in self._statics])


class Second:
    """The backward pass of a plan as differentiable operations, made when it is first asked for."""

    def __init__(self, plan: Plan, without: str = "") -> None:
        """without: why it is not to be made."""
        self._plan = plan
        self._made: tuple[Reverse, Derived | None, Derived] | None = None
        self._reason: str | None = without or None

    @property
    def reason(self) -> str:
        """Why the native machine cannot run it; "" when it can."""
        if self._reason is None:
            try:
                self._made, self._reason = self._make(), ""
            except Unsupported as refused:
                self._reason = refused.reason
        return self._reason

    def _make(self) -> tuple[Reverse, Derived | None, Derived]:
        terms = reverse(self._plan)
        if terms is None:
            raise Unsupported("no gradient depends on what flows back")
        states = history(self._plan)
        forward = None if states.output is self._plan.output else Derived(states, self._plan.statics)
        return terms, forward, Derived(terms.step, self._plan.statics)

    def gradients(
        self,
        apply: Run,
        layout: Layout,
        ends: tuple[int, int],
        given: Given,
        output: Tensor,
        need: Sequence[bool],
        d: Given,
    ) -> list[Tensor | None]:
        """Gradients of all that was given; None where not asked for, or where nothing depends on it.

        apply: `SequenceOperation.apply`; the other arguments are its own.
        """
        assert self._made is not None, self.reason
        terms, forward, back = self._made
        a, b = ends
        inputs, states, statics = given[:a], given[a:b], given[b:]
        previous = None
        if a in terms.reads:
            rows = output if forward is None else forward.run(apply, layout, inputs, states, statics)[0]
            previous = earlier(layout, rows, self._first(layout, rows, states))
        d_output = torch.zeros_like(output) if d[0] is None else d[0]
        read = [[*inputs, previous, d_output][k] for k in terms.reads]
        found, *d_first = back.run(apply, layout.mirrored(), read, d[1:], statics)
        parts = [*read, *found.split(terms.pieces, 1)]

        def of(where: Columns) -> Tensor:
            k, lo, hi = where
            rows: Tensor = parts[k]
            return rows if hi - lo == rows.shape[1] else rows[:, lo:hi]

        # of their own memory, as a caller may change a gradient in place
        d_inputs = [of(w).clone() if n and w is not None else None for w, n in zip(terms.d_inputs, need, strict=False)]
        d_states = [None if s is None else g for s, g in zip(states, d_first, strict=True)]
        d_statics = _sums(terms, of, statics, need[b:])
        return [*d_inputs, *d_states, *d_statics]

    def _first(self, layout: Layout, like: Tensor, states: Given) -> Tensor:
        widths = [s.width for s in self._plan.states.values()]
        first = [like.new_zeros(layout.B, n) if s is None else s for s, n in zip(states, widths, strict=True)]
        return first[0] if len(first) == 1 else torch.cat(first, 1)


def _sums(terms: Reverse, of: Callable[[Columns], Tensor], statics: Given, need: Sequence[bool]) -> list[Tensor | None]:
    """The gradients of the statics: products and sums over all rows."""
    total: list[Tensor | None] = [None] * len(statics)

    def gain(k: int, d: Tensor) -> None:
        known = total[k]
        total[k] = d if known is None else known + d

    for k, left, right in terms.matrices:
        if need[k]:
            gain(k, of(left).mT @ of(right))
    for k, where in terms.vectors:
        if need[k]:
            gain(k, of(where).sum(0).reshape(statics[k].shape))
    return total

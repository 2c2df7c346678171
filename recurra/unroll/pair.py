"""Two calls side by side: as one operation under autograd, so that their backwards run side by side too."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.program.layout import Layout
from recurra.unroll.compiled import Compiled
from recurra.unroll.function import (
    backward_call,
    forward_call,
    gradients,
    gradients_anew,
    in_order,
    is_mapped,
)


class Half:
    """One operation of a pair: what its own context would hold, and how many tensors it is given and gives."""

    kept: Any = None
    needs_input_grad: Sequence[bool] = ()

    def __init__(self, compiled: Compiled, layout: Layout, ends: tuple[int, int], count: int) -> None:
        self.compiled, self.layout, self.ends = compiled, layout, ends
        self.count, self.results = count, 1 + ends[1] - ends[0]


class PairOperation(torch.autograd.Function):
    """apply(one, two, *given to one, *given to two) -> output, *last states of one, output, *last states of two.

    What each is given and gives is that of a SequenceOperation.
    """

    @staticmethod
    def forward(ctx: Any, one: Half, two: Half, *given: Any) -> Any:
        ctx.halves = one, two
        calls = [
            forward_call(half.compiled.executor, half.layout, half.ends, own, True)
            for half, own in ((one, given[: one.count]), (two, given[one.count :]))
        ]
        (y, last, one.kept), (other, others, two.kept) = calls[0].run_beside(calls[1])
        ctx.save_for_backward(y, other, *given)
        ctx.set_materialize_grads(False)
        return (y, *last, other, *others)

    @staticmethod
    def backward(ctx: Any, *d: Tensor | None) -> Any:
        one, two = ctx.halves
        y, other, *given = ctx.saved_tensors
        need = ctx.needs_input_grad[2:]
        one.needs_input_grad, two.needs_input_grad = need[: one.count], need[one.count :]
        parts = [
            (one, given[: one.count], y, d[: one.results]),
            (two, given[one.count :], other, d[one.results :]),
        ]
        anew = torch.is_grad_enabled() or is_mapped(d)
        if anew or any(_unread(part[3]) for part in parts):
            return None, None, *[g for part in parts for g in _alone(*part, anew)]
        calls = [backward_call(half, half.compiled.executor, half.kept, *rest) for half, *rest in parts]
        found = calls[0].run_beside(calls[1])
        return None, None, *[g for part, f in zip(parts, found, strict=True) for g in in_order(part[0], part[1], f)]


def _unread(d: Sequence[Tensor | None]) -> bool:
    """Whether nothing of a half was used."""
    return all(t is None for t in d)


def _alone(half: Half, given: Sequence[Any], y: Tensor, d: Sequence[Tensor | None], anew: bool) -> Sequence[Any]:
    """The gradients of one half as of an operation by itself."""
    if _unread(d):
        return [None] * len(given)
    if anew:
        return gradients_anew(half, given, y, d)
    return gradients(half, half.compiled.executor, half.kept, given, y, d)

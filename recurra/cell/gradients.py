"""Tapping: the gradients of the states in a loop over steps, taken where autograd has them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recurra.cell.base import Cell
from recurra.cell.wrapper import InnerStep, States, Wrapper, changed


class Tapping(Wrapper):
    """The cell inside; what reaches its next states in a backward pass is added to `.grad` of the taps.

    taps   one tensor (T, B, n) a state. A side says which of their T·B rows a row of the step has.
    """

    def __init__(self, inner: Cell, taps: Sequence[Tensor]) -> None:
        super().__init__(inner)
        self.taps = tuple(taps)

    @property
    def full_name(self) -> str:
        """That of the cell inside: nobody wrote this one."""
        return self.inner.full_name

    def own_sizes(self) -> Mapping[str, int]:
        return {"place": 1}

    def own_sides(self, x: Tensor) -> States:
        T, B, _ = x.shape
        return (torch.arange(T * B, device=x.device).view(T, B, 1),)

    def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
        if not torch.is_grad_enabled():
            return step(x, states)
        x, *before = (_differentiable(t) for t in (x, *states))
        y, nexts = step(x, tuple(before))
        # one that is the input, or a previous state, has that one's gradient too: its own is that of a sum with zero
        passed = {id(t) for t in (x, *before)}
        new = tuple(n - _zeros(n) if id(n) in passed or not n.requires_grad else n for n in nexts)
        for tap, n in zip(self.taps, new, strict=True):
            hook: Callable[..., Any] = n.register_hook
            hook(partial(_add, tap, sides[0].squeeze(1)))
        return changed(y, nexts, new)


def _differentiable(t: Tensor) -> Tensor:
    """t, where autograd follows it; else as the beginning of a graph, so that all that is made of it has a gradient."""
    return t if t.requires_grad or not t.is_floating_point() else t.detach().requires_grad_()


def _zeros(t: Tensor) -> Tensor:
    return torch.zeros_like(t, requires_grad=True)


def _add(tap: Tensor, place: Tensor, d: Tensor) -> None:
    with torch.no_grad():
        if tap.grad is None:
            tap.grad = torch.zeros_like(tap)
        tap.grad.view(-1, tap.shape[-1]).index_add_(0, place, d.detach().to(tap.dtype))

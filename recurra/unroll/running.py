"""A call by its program: on the native machine, under autograd or not, or in PyTorch under a function transform."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.errors import kind_of
from recurra.program.layout import Layout
from recurra.unroll.call import Call, States
from recurra.unroll.compiled import Compiled
from recurra.unroll.function import RecordedOperation, SequenceOperation, run_in_pytorch
from recurra.unroll.notes import RECORDING, Visit, note, somebody_asks

TENSORS = (Tensor, torch.nn.Parameter)
_apply: Callable[..., Any] = SequenceOperation.apply
_apply_recorded: Callable[..., Any] = RecordedOperation.apply


def unfit(call: Call, compiled: Compiled) -> str:
    """Why the tensors of this call cannot go to the machine; "" when they can."""
    reason = _foreign(compiled, call.x)
    for s in (*(call.sides or ()), *(call.states or ())):
        reason = reason or _foreign(compiled, s)
    if reason:
        return reason
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    return RECORDING if torch._C._len_torch_dispatch_stack() else ""


def _foreign(compiled: Compiled, t: Tensor) -> str:
    if t.dtype is not compiled.dtype or t.device != compiled.device:
        return f"x or a state is {t.dtype} on {t.device}, and the weights are {compiled.dtype} on {compiled.device}"
    if t.__class__ not in TENSORS:
        return f"x or a state is {kind_of(t)}, whose numbers only PyTorch can read"
    return "" if t.layout is torch.strided else f"x or a state has the layout {t.layout}, and rows are dense"


def run(call: Call, compiled: Compiled, tensors: list[Tensor], layout: Layout, inputs: States) -> tuple[Tensor, States]:
    """Rows (N, m) and the last states, from inputs and first states that lie as the layout says.

    inputs: (N, n) each, or (T, B, n) when all sequences are as long.
    """
    statics, states, record = compiled.statics(tensors), call.states, call.record
    first: Sequence[Tensor | None] = compiled.zeros if states is None else [s.contiguous() for s in states]
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        _note(call, compiled, layout, "PyTorch", "a function transform or forward mode is active")
        y, after = run_in_pytorch(compiled, layout, _rows(layout, inputs), first, statics)
        return (y if record is None else record.split(y)), after
    if somebody_asks():
        _note(call, compiled, layout, "native machine")
    if torch.is_grad_enabled() and (_differentiable(inputs) or _differentiable(statics) or _differentiable(first)):
        ends = len(inputs), len(inputs) + len(first)
        given = [*[t.contiguous() for t in _rows(layout, inputs)], *first, *statics]
        if record is None or not record.names:
            y, *last = _apply(compiled, layout, ends, *given)
            y = y if record is None else record.split(y)
        else:
            y, record.seen, *last = _apply_recorded(compiled, layout, ends, record.width, *given)
        return y, tuple(last)
    assert compiled.executor is not None
    # the machine reads memory: that x still has two axes more than rows is all the same to it
    y, last, _ = compiled.executor.forward(layout, [t.contiguous() for t in inputs], statics, first, False)
    return (y if record is None else record.split(y)), tuple(last)


def _rows(layout: Layout, inputs: States) -> list[Tensor]:
    return [t.reshape(layout.N, t.shape[-1]) for t in inputs]


def _differentiable(tensors: Iterable[Tensor | None]) -> bool:
    return any([t is not None and t.requires_grad for t in tensors])  # noqa: C419 (a list is faster)


def _note(call: Call, compiled: Compiled, layout: Layout, executor: str, reason: str = "") -> None:
    note(Visit(call.cell, compiled, executor, reason, "", layout.T, layout.B, call.weights))

"""A call by its program: on the native machine, under autograd or not, or in PyTorch under a function transform."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.errors import InputError, kind_of
from recurra.machine.native import NativeExecutor
from recurra.program.layout import Layout
from recurra.unroll.call import Call, States
from recurra.unroll.compiled import Compiled
from recurra.unroll.function import RecordedOperation, SequenceOperation, run_in_pytorch
from recurra.unroll.notes import RECORDING, Ran, Replay, Visit, note, somebody_asks
from recurra.unroll.precision import NARROW, NO_GRADIENTS, arithmetic, elsewhere
from recurra.unroll.rows import Packing

TENSORS = (Tensor, torch.nn.Parameter)
TRANSFORM = "a function transform or forward mode is active"
_apply: Callable[..., Any] = SequenceOperation.apply
_apply_recorded: Callable[..., Any] = RecordedOperation.apply


class Work(NamedTuple):
    """A call that the native machine is to run.

    way      who runs the trace: in the call's precision, with the call's memory
    inputs   (N, n) each, or (T, B, n) when all sequences are as long
    first    the states to begin with, (B, n) each, as the machine reads them; None: zeros
    statics  what the program reads of the weights
    packing  how padded rows lie in the layout where they are not as long; None: as they came
    error    of int8, as it was measured
    """

    call: Call
    compiled: Compiled
    way: Any
    layout: Layout
    inputs: States
    first: Sequence[Tensor | None]
    statics: Sequence[Tensor]
    packing: Packing | None
    error: float | None = None


def unfit(call: Call, compiled: Compiled) -> str:
    """Why the tensors of this call cannot go to the machine; "" when they can."""
    reason = _foreign(compiled, call.x)
    for s in (*(call.sides or ()), *(call.states or ())):
        reason = reason or _foreign(compiled, s)
    if reason:
        return reason
    if torch.is_autocast_enabled(compiled.device.type):
        return "autocast is on"
    if call.precision in NARROW and compiled.device.type != "cpu":
        return f"{call.precision} is the native machine's, and the weights are on {compiled.device}"
    return RECORDING if torch._C._len_torch_dispatch_stack() else ""


def _foreign(compiled: Compiled, t: Tensor) -> str:
    if t.dtype is not compiled.dtype or t.device != compiled.device:
        return f"x or a state is {t.dtype} on {t.device}, and the weights are {compiled.dtype} on {compiled.device}"
    if t.__class__ not in TENSORS:
        return f"x or a state is {kind_of(t)}, whose numbers only PyTorch can read"
    return "" if t.layout is torch.strided else f"x or a state has the layout {t.layout}, and rows are dense"


def run(work: Work) -> tuple[Tensor, States]:
    """Rows (N, m) and the last states, from inputs and first states that lie as the layout says."""
    if not somebody_asks():
        return _run(work)
    begun = perf_counter()
    results = _run(work)
    if work.compiled.device.type == "cuda":  # which answers before it is done
        torch.cuda.synchronize(work.compiled.device)
    note(visit_of(work, perf_counter() - begun, lambda: (_run(work)[0],)))
    return results


def _run(work: Work) -> tuple[Tensor, States]:
    call, _, way, layout, inputs, first, statics = work[:7]
    record = call.record
    if in_pytorch():
        return _run_in_pytorch(work)
    if torch.is_grad_enabled() and (differentiable(inputs) or differentiable(statics) or differentiable(first)):
        if call.precision == "int8":
            raise InputError(NO_GRADIENTS)
        ends = len(inputs), len(inputs) + len(first)
        given = [*[t.contiguous() for t in rows(layout, inputs)], *first, *statics]
        if record is None or not record.names:
            y, *last = _apply(way, layout, ends, *given)
            y = y if record is None else record.split(y)
        else:
            y, record.seen, *last = _apply_recorded(way, layout, ends, record.width, *given)
        return y, tuple(last)
    # the machine reads memory: that x still has two axes more than rows is all the same to it
    y, last, _ = way.executor.forward(layout, [t.contiguous() for t in inputs], statics, first, False)
    return (y if record is None else record.split(y)), tuple(last)


def _run_in_pytorch(work: Work) -> tuple[Tensor, States]:
    """The program as differentiable PyTorch, in what the call's precision means there."""
    call, compiled, layout, inputs = work.call, work.compiled, work.layout, rows(work.layout, work.inputs)
    with arithmetic(call.precision, compiled.device):
        y, after = run_in_pytorch(compiled, layout, inputs, work.first, work.statics)
    if call.precision is not None:  # PyTorch's autocast gives some results in bf16
        y, after = y.to(compiled.dtype), tuple(s.to(compiled.dtype) for s in after)
    return (y if call.record is None else call.record.split(y)), after


def visit_of(work: Work, seconds: float, again: Callable[[], States], beside: bool = False) -> Visit:
    """What is told of a call that took so long; `again` makes it once more."""
    call, compiled, layout = work.call, work.compiled, work.layout
    who = "" if compiled.executor is None else compiled.executor.name
    told = Visit(call.cell, compiled, who, "", "", layout.T, layout.B, call.weights, beside, call.thrifty)
    told = replace(told, precision=call.precision, error=work.error, seconds=seconds)
    if in_pytorch():
        return replace(told, executor="PyTorch", reason=elsewhere(call.precision, compiled.name, TRANSFORM), error=None)

    def wanted(tensors: Iterable[Tensor | None]) -> tuple[bool, ...]:
        return tuple(torch.is_grad_enabled() and t is not None and t.requires_grad for t in tensors)

    given = (*work.inputs, *work.first, *work.statics)
    sources = tuple(t for t, w in zip(given, wanted(given), strict=True) if w and t is not None)
    needs = tuple(s is not None for s in work.first), wanted(work.inputs), wanted(work.statics)
    executor = compiled.way(call.precision).executor
    ran = None
    if isinstance(executor, NativeExecutor):
        ran = Ran(executor, layout, compiled.dtype, *needs, bool(sources))
    nothing = Layout(0, layout.B, None if layout.batch_sizes is None else (), layout.reverse)
    empty = partial(_run, work._replace(layout=nothing, inputs=tuple(t[:0] for t in work.inputs)))
    replay = None if call.record is not None else Replay(again, None if beside else empty, sources)
    return replace(told, ran=ran, replay=replay)


def in_pytorch() -> bool:
    """Whether a function transform or forward mode is active, which the machine knows nothing of."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def rows(layout: Layout, inputs: States) -> list[Tensor]:
    """(N, n) each, of inputs with N rows or (T, B, n)."""
    return [t.reshape(layout.N, t.shape[-1]) for t in inputs]


def differentiable(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a gradient may be wanted."""
    return any([t is not None and t.requires_grad for t in tensors])  # noqa: C419 (a list is faster)

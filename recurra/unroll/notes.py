"""Who ran a step and why, told to whoever asks; and strict mode, in which a fall-back is an error."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from recurra.cell import Cell
from recurra.errors import StrictError
from recurra.machine.native import NativeExecutor
from recurra.program.layout import Layout
from recurra.unroll.compiled import Compiled

Weights = Mapping[str, Tensor]
RECORDING = "PyTorch is recording operations, and the native machine has none to show"
_tracing: Callable[[], Any] = torch._C._get_tracing_state  # of torch.jit.trace


@dataclass(frozen=True, slots=True)
class Ran:
    """What the native machine was given in a call.

    first, inputs, statics: which first states were given, and of which inputs and weights gradients are wanted.
    """

    executor: NativeExecutor
    layout: Layout
    dtype: torch.dtype
    first: tuple[bool, ...]
    inputs: tuple[bool, ...]
    statics: tuple[bool, ...]
    graded: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """How to make a call once more, for its outputs, and one like it without a step; `wanted`: the tensors whose
    gradients it makes."""

    again: Callable[[], Sequence[Tensor]]
    empty: Callable[[], Any] | None
    wanted: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """One pass through the door: who ran the step, and why it was not the native machine.

    seconds: what the pass took; 0 where torch.nn ran it.
    ran: what the native machine was given; None where it did not run.
    beside: whether the other direction of a layer ran at the same time, in a thread of its own.
    thrifty: whether the backward pass computes again what it needs.
    precision: that of an executor of its own; None: as the trace's weights are. error: that of int8, as measured.
    """

    cell: Cell
    compiled: Compiled | None
    executor: str
    reason: str
    line: str
    T: int
    B: int
    weights: Weights | None
    beside: bool = False
    thrifty: bool = False
    precision: str | None = None
    error: float | None = None
    seconds: float = 0.0
    ran: Ran | None = None
    replay: Replay | None = None


class _Here(threading.local):
    """What holds for the calls of this thread."""

    strict = 0
    plain = False
    visits: list[Visit] | None = None


_here = _Here()


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """Inside, a cell that would fall back to scan raises StrictError, and so do second derivatives that the native
    machine cannot run. RECURRA_STRICT=1 does so everywhere."""
    _here.strict += 1
    try:
        yield
    finally:
        _here.strict -= 1


def is_strict() -> bool:
    """Whether a fall-back is an error."""
    return bool(_here.strict) or os.environ.get("RECURRA_STRICT", "0") not in ("", "0")


@contextlib.contextmanager
def visits() -> Iterator[list[Visit]]:
    """Collects the passes of this thread through the door."""
    before, _here.visits = _here.visits, []
    try:
        yield _here.visits
    finally:
        _here.visits = before


@contextlib.contextmanager
def as_weights_are() -> Iterator[None]:
    """Inside, layers compute as their weights are, whatever precision they name."""
    before, _here.plain = _here.plain, True
    try:
        yield
    finally:
        _here.plain = before


def precisions_are_off() -> bool:
    """Whether no call of this thread computes in a precision that it names."""
    return _here.plain


def somebody_asks() -> bool:
    """Whether visits are collected."""
    return _here.visits is not None


def note(visit: Visit) -> None:
    """Tells those who collect visits."""
    if _here.visits is not None:
        _here.visits.append(visit)


def is_recording() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is writing down the operations of this call."""
    return is_compiling() or _tracing() is not None


def takes_operators() -> bool:
    """Whether those who record take operators of ours: torch.compile and torch.export do, and ONNX has none."""
    return is_compiling() and not torch.onnx.is_in_onnx_export()


def constant_to_compilers(function: Callable[..., Any]) -> None:
    """torch.compile calls the function where it meets it, and takes the result for a constant.

    What torch.compiler.assume_constant_result does, too, once it has imported Dynamo, which takes a second.
    """
    setattr(function, "_dynamo_marked_constant", True)  # noqa: B010


def refuse_in_strict(compiled: Compiled, reason: str, line: str) -> None:
    """StrictError, in strict mode: the cell cannot run on the native machine."""
    if not compiled.broken and is_strict():
        see = f" See {line}" if line else ""
        raise StrictError(f"{compiled.name} would run on scan, not on the native machine: {reason}.{see}")


def refuse_derivatives_in_strict(name: str, reason: str) -> None:
    """StrictError, in strict mode: gradients that are to be derived again cannot be made on the native machine."""
    if is_strict():
        raise StrictError(
            f"The second derivatives of {name} would run in PyTorch, not on the native machine: {reason}. "
            "Take its gradients without create_graph, or leave strict mode."
        )


def leave_to_torch(cells: Iterable[tuple[Cell, Weights]], reason: str, T: int, B: int) -> None:
    """torch.nn is about to run a layer of these cells: an error in strict mode, and told by `explain`."""
    for cell, weights in cells:
        if is_strict():
            raise StrictError(f"{type(cell).__name__} would run in torch.nn, not on the native machine: {reason}.")
        note(Visit(cell, None, "torch.nn", reason, "", T, B, weights))


def hand_over(cells: Iterable[tuple[Cell, Weights]], executor: str, reason: str, T: int, B: int) -> None:
    """Somebody who is no slower is about to run a layer of these cells: told by `explain`."""
    for cell, weights in cells:
        note(Visit(cell, None, executor, reason, "", T, B, weights))

"""The one door to speed: what `scan` means, run by whoever runs it fastest.

In this order: a compiler is looking -> scan; no program, or not for these tensors -> scan, with the reason; a function
transform or forward mode -> the program in PyTorch; a gradient is wanted -> the native machine under autograd; none ->
the machine.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from recurra.cell import (
    Cell,
    Showing,
    Tapping,
    autocast_is_on,
    call_sides,
    call_with,
    check_dtypes,
    check_input,
    check_lengths,
    check_made,
    check_resets,
    check_sides,
    check_states,
    check_tensor,
    initial_states,
    reset_side,
    resetting,
)
from recurra.errors import StrictError
from recurra.program.layout import Layout
from recurra.scan import scan
from recurra.unroll.compiled import Compiled, find
from recurra.unroll.function import RecordedOperation, SequenceOperation, run_in_pytorch
from recurra.unroll.recording import Recording
from recurra.unroll.rows import pack

States = tuple[Tensor, ...]
Weights = Mapping[str, Tensor]
_TENSORS = (Tensor, torch.nn.Parameter)
_RECORDING = "PyTorch is recording operations, and the native machine has none to show"
_tracing: Callable[[], Any] = torch._C._get_tracing_state  # of torch.jit.trace
_apply: Callable[..., Any] = SequenceOperation.apply
_apply_recorded: Callable[..., Any] = RecordedOperation.apply


@dataclass(frozen=True, slots=True)
class Visit:
    """One pass through the door: who ran the step, and why it was not the native machine."""

    cell: Cell
    compiled: Compiled | None
    executor: str
    reason: str
    line: str
    T: int
    B: int
    weights: Weights | None


class _Here(threading.local):
    """What holds for the calls of this thread."""

    strict = 0
    visits: list[Visit] | None = None


_here = _Here()


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """Inside, a cell that would fall back to scan raises StrictError. RECURRA_STRICT=1 does so everywhere."""
    _here.strict += 1
    try:
        yield
    finally:
        _here.strict -= 1


@contextlib.contextmanager
def visits() -> Iterator[list[Visit]]:
    """Collects the passes of this thread through the door."""
    before, _here.visits = _here.visits, []
    try:
        yield _here.visits
    finally:
        _here.visits = before


def unroll(
    cell: Cell,
    x: Tensor,
    states: States | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
    weights: Weights | None = None,
    sides: States | None = None,
    resets: Tensor | None = None,
    record: Recording | None = None,
) -> tuple[Tensor, States]:
    """Runs `cell` over x (T, B, D): outputs (T, B, m) and last states, as `scan` defines them, as fast as may be.

    weights: tensors by name that stand in for the cell's parameters and buffers, as in `torch.func.functional_call`.
    sides: what the step of a wrapper reads beside x, (T, B, width) each; None: `cell.sides(x)`, and
        `cell.call_weights()` stand in for weights of the cell.
    resets: (T, B) truth values: a new sequence begins at this step, and the states before it are the initial ones.
    record: asks for variables of the step, or for gradients of its states, and is given their rows.
    Raises what `scan` raises; StrictError for a fall-back in strict mode.
    """
    if resets is not None:
        return _with_resets(cell, x, states, lengths, reverse, weights, sides, resets, record)
    if is_compiling():
        return _scan(cell, x, states, lengths, reverse, weights, sides, record)
    if _tracing() is not None:
        if _here.visits is not None:
            _here.visits.append(Visit(cell, None, "scan", _RECORDING, "", x.shape[0], x.shape[1], weights))
        return _scan(cell, x, states, lengths, reverse, weights, sides, record)
    if sides is None:
        weights = _drawn(cell, weights)
    compiled, tensors = find(cell, weights) if record is None else find(cell, weights, record.names, record.tapped)
    if x.__class__ not in _TENSORS:
        check_tensor(compiled.name, x)
    shape = x.shape
    if len(shape) != 3 or shape[2] != compiled.input_size:
        check_input(compiled.name, x, compiled.input_size)
    T, B, _ = shape
    sides = () if sides is None and not compiled.side_sizes else _sides_of(compiled, cell, x, weights, sides)
    if states is not None:
        states = check_states(compiled.name, cell.state_sizes, states, B)
    reason = compiled.reason or _unfit(compiled, x, sides, states)
    if reason:
        return _fall_back(compiled, cell, x, states, lengths, reverse, weights, sides, record, reason)
    if states is None and not compiled.zero_start:
        states = _initial(cell, x, B, weights)
    packing = None if lengths is None else pack(check_lengths(lengths, T, B), T, reverse, x.device)
    if packing is None:
        layout = compiled.layout(T, B, reverse)
        inputs = (x, *sides, *_taps(cell, x, lengths, reverse, record))
        y, last = _run(compiled, cell, layout, inputs, states, tensors, weights, record)
        if record is not None:
            record.seen = record.seen.reshape(T, B, record.width)
        return y.view(T, B, -1) if y.numel() else y.reshape(T, B, y.shape[-1]), last
    if states is not None:
        states = packing.sorted(states)
    inputs = tuple(packing.rows(t) for t in (x, *sides, *_taps(cell, x, lengths, reverse, record)))
    y, last = _run(compiled, cell, packing.layout, inputs, states, tensors, weights, record)
    if record is not None:
        record.seen = packing.padded(record.seen, T)
    return packing.padded(y, T), packing.unsorted(last)


def unroll_packed(
    cell: Cell,
    data: Tensor,
    batch_sizes: Tensor,
    states: States | None = None,
    reverse: bool = False,
    weights: Weights | None = None,
    sides: States | None = None,
    resets: Tensor | None = None,
    record: Recording | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, States]:
    """The same over PackedSequence's layout: data (N, D) step after step; sequences and states by falling length.

    sides: (N, width) each. resets: (T, B), by falling length too. order: PackedSequence.sorted_indices, so that a
    sequence has the sides of its own place.
    """
    if sides is None:
        weights = _drawn(cell, weights)
        sides = _packed_sides(cell, data, batch_sizes, weights, order)
    if resets is not None:
        reaches = _within(batch_sizes)
        side = reset_side(check_resets(resets, len(reaches), reaches.shape[1], reaches.sum(0)), data, reverse)
        sides = (side[reaches.to(data.device)], *sides)
        cell, weights = resetting(cell), _inside(weights)
    if is_recording():
        return _packed_scan(None, cell, data, batch_sizes, states, reverse, weights, sides, record, "")
    compiled, tensors = find(cell, weights) if record is None else find(cell, weights, record.names, record.tapped)
    check_input(compiled.name, data, compiled.input_size, "rows")
    sides = check_sides(compiled.name, compiled.side_sizes, sides, data)
    sizes = tuple(batch_sizes.tolist())
    B = sizes[0] if sizes else 0
    if states is not None:
        states = check_states(compiled.name, cell.state_sizes, states, B)
    reason = compiled.reason or _unfit(compiled, data, sides, states)
    if reason:
        return _packed_scan(compiled, cell, data, batch_sizes, states, reverse, weights, sides, record, reason)
    if states is None and not compiled.zero_start:
        states = _initial(cell, data, B, weights)
    layout = Layout(len(sizes), B, sizes, reverse)
    inputs = (data, *sides, *_taps(cell, data, None, reverse, record))
    return _run(compiled, cell, layout, inputs, states, tensors, weights, record)


def _with_resets(
    cell: Cell,
    x: Tensor,
    states: States | None,
    lengths: Tensor | None,
    reverse: bool,
    weights: Weights | None,
    sides: States | None,
    resets: Tensor,
    record: Recording | None,
) -> tuple[Tensor, States]:
    """unroll of the cell with resets around it, which reads the marks as a side."""
    check_made(cell)
    check_tensor(cell.full_name, x)
    check_input(cell.full_name, x, cell.input_size)
    T, B, _ = x.shape
    if lengths is not None:
        lengths = check_lengths(lengths, T, B)
    side = reset_side(check_resets(resets, T, B, lengths), x, reverse)
    if sides is None:
        weights = _drawn(cell, weights)
    beside = _sides(cell, x, weights, sides)
    return unroll(resetting(cell), x, states, lengths, reverse, _inside(weights), (side, *beside), record=record)


def _taps(cell: Cell, x: Tensor, lengths: Tensor | None, reverse: bool, record: Recording | None) -> States:
    """Rows beside x, made here, whose gradients are those of the states; none where nobody wants these."""
    if record is None or is_compiling():
        return ()
    record.tap(cell.state_sizes.values(), x, lengths, reverse)
    return record.taps


def _inside(weights: Weights | None) -> Weights | None:
    """Weights by the names that a wrapper's inner cell has there."""
    return None if weights is None else {f"inner.{name}": w for name, w in weights.items()}


def _drawn(cell: Cell, weights: Weights | None) -> Weights | None:
    """The weights of a call: with those that a wrapper draws for it in the place of the cell's own."""
    if getattr(type(cell), "call_weights", Cell.call_weights) is Cell.call_weights:  # what is no cell is refused later
        return weights
    drawn = cell.call_weights() if weights is None else call_with(cell, weights, cell.call_weights)
    return {**(weights or {}), **drawn} if drawn else weights


def _sides(cell: Cell, x: Tensor, weights: Weights | None, sides: States | None) -> States:
    """The rows beside x (T, B, D) that a wrapper's step reads: those given, checked, or those that it makes itself."""
    if sides is not None:
        return check_sides(cell.full_name, cell.side_sizes, sides, x)
    if weights is None or not cell.side_sizes:
        return call_sides(cell, x)
    made: States = call_with(cell, weights, lambda: call_sides(cell, x))
    return made


def _sides_of(compiled: Compiled, cell: Cell, x: Tensor, weights: Weights | None, sides: States | None) -> States:
    """The same; what is wrong with x itself is told before what a wrapper makes of it."""
    try:
        return _sides(cell, x, weights, sides)
    except RuntimeError:
        check_dtypes(compiled.name, compiled.dtype, compiled.device, x, {})
        raise


def _packed_sides(
    cell: Cell, data: Tensor, batch_sizes: Tensor, weights: Weights | None, order: Tensor | None
) -> States:
    """Those that it makes itself for packed rows: those of a padded x without memory, for its numbers are not read."""
    if not cell.side_sizes:
        return ()
    mask = _within(batch_sizes).to(data.device)
    padded = data.new_zeros(()).expand(*mask.shape, data.shape[1])
    sides = _sides(cell, padded, weights, None)
    return tuple((s if order is None else s.index_select(1, order))[mask] for s in sides)


def _within(batch_sizes: Tensor) -> Tensor:
    """(T, B): whether a sequence reaches a step."""
    return torch.arange(int(batch_sizes[0]) if len(batch_sizes) else 0) < batch_sizes[:, None]


def _unfit(compiled: Compiled, x: Tensor, sides: States, states: States | None) -> str:
    """Why these tensors cannot go to the machine; "" when they can."""
    reason = _foreign(compiled, x)
    for s in sides if states is None else (*sides, *states):
        reason = reason or _foreign(compiled, s)
    if reason:
        return reason
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    return _RECORDING if torch._C._len_torch_dispatch_stack() else ""


def _foreign(compiled: Compiled, t: Tensor) -> str:
    if t.dtype is not compiled.dtype or t.device != compiled.device:
        return f"x or a state is {t.dtype} on {t.device}, and the weights are {compiled.dtype} on {compiled.device}"
    return (
        "" if t.__class__ in _TENSORS else f"x or a state is a {type(t).__name__}, whose numbers only PyTorch can read"
    )


def _run(
    compiled: Compiled,
    cell: Cell,
    layout: Layout,
    inputs: States,
    states: States | None,
    tensors: list[Tensor],
    weights: Weights | None,
    record: Recording | None,
) -> tuple[Tensor, States]:
    """inputs: (N, n) each, or (T, B, n) when all sequences are as long. Returns rows (N, m) and the last states."""
    statics = compiled.statics(tensors)
    first: Sequence[Tensor | None] = compiled.zeros if states is None else [s.contiguous() for s in states]
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        _note(cell, compiled, weights, "PyTorch", layout, "a function transform or forward mode is active")
        y, after = run_in_pytorch(compiled, layout, _rows(layout, inputs), first, statics)
        return (y if record is None else record.split(y)), after
    if _here.visits is not None:
        _note(cell, compiled, weights, "native machine", layout)
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


def _initial(cell: Cell, x: Tensor, batch: int, weights: Weights | None) -> States:
    """The states that the cell starts from; gradients flow into what `initial` is made of."""
    if weights is None:
        return initial_states(cell, x, batch)
    states: States = call_with(cell, weights, lambda: initial_states(cell, x, batch))
    return states


def _scan(
    cell: Cell,
    x: Tensor,
    states: States | None,
    lengths: Tensor | None,
    reverse: bool,
    weights: Weights | None,
    sides: States | None,
    record: Recording | None,
) -> tuple[Tensor, States]:
    shown = cell if record is None or not record.names else Showing(cell, record.names)
    if taps := _taps(cell, x, lengths, reverse, record):
        shown = Tapping(shown, taps)
        sides = None if sides is None else (*shown.own_sides(x), *sides)

    if weights is None:
        y, last = scan(shown, x, states, lengths, reverse, sides)
    else:
        y, last = call_with(cell, weights, lambda: scan(shown, x, states, lengths, reverse, sides))
    return (y if record is None else record.split(y)), last


def _fall_back(
    compiled: Compiled,
    cell: Cell,
    x: Tensor,
    states: States | None,
    lengths: Tensor | None,
    reverse: bool,
    weights: Weights | None,
    sides: States,
    record: Recording | None,
    reason: str,
) -> tuple[Tensor, States]:
    """scan, and nobody can say that it was silent: an error in strict mode, and told by `explain`."""
    line = compiled.line if reason == compiled.reason else ""
    if _is_strict() and not compiled.reason and not autocast_is_on(x):
        named = {} if states is None else dict(zip(cell.state_names, states))
        check_dtypes(compiled.name, compiled.dtype, compiled.device, x, named)
    refuse_in_strict(compiled, reason, line)
    if _here.visits is not None:
        _here.visits.append(Visit(cell, compiled, "scan", reason, line, x.shape[0], x.shape[1], weights))
    return _scan(cell, x, states, lengths, reverse, weights, sides, record)


def refuse_in_strict(compiled: Compiled, reason: str, line: str) -> None:
    """StrictError, in strict mode: the cell cannot run on the native machine."""
    if not compiled.broken and _is_strict():
        see = f" See {line}" if line else ""
        raise StrictError(f"{compiled.name} would run on scan, not on the native machine: {reason}.{see}")


def _is_strict() -> bool:
    return bool(_here.strict) or os.environ.get("RECURRA_STRICT", "0") not in ("", "0")


def is_recording() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is writing down the operations of this call."""
    return is_compiling() or _tracing() is not None


def leave_to_torch(cells: Iterable[tuple[Cell, Weights]], reason: str, T: int, B: int) -> None:
    """torch.nn is about to run a layer of these cells: an error in strict mode, and told by `explain`."""
    for cell, weights in cells:
        if _is_strict():
            raise StrictError(f"{type(cell).__name__} would run in torch.nn, not on the native machine: {reason}.")
        if _here.visits is not None:
            _here.visits.append(Visit(cell, None, "torch.nn", reason, "", T, B, weights))


def _packed_scan(
    compiled: Compiled | None,
    cell: Cell,
    data: Tensor,
    batch_sizes: Tensor,
    states: States | None,
    reverse: bool,
    weights: Weights | None,
    sides: States | None,
    record: Recording | None,
    reason: str,
) -> tuple[Tensor, States]:
    mask = _within(batch_sizes).to(data.device)

    def padded(rows: Tensor) -> Tensor:  # the packed rows in order
        return rows.new_zeros(*mask.shape, rows.shape[1]).index_put((mask,), rows)

    beside = None if sides is None else tuple(padded(s) for s in sides)
    lengths = mask.sum(0).cpu()
    if compiled is None:
        y, last = _scan(cell, padded(data), states, lengths, reverse, weights, beside, record)
    else:
        y, last = _fall_back(
            compiled, cell, padded(data), states, lengths, reverse, weights, beside or (), record, reason
        )
    if record is not None:
        record.seen, record.mask = record.seen[mask], mask
    return y[mask], last


def _note(
    cell: Cell, compiled: Compiled, weights: Weights | None, executor: str, layout: Layout, reason: str = ""
) -> None:
    if _here.visits is not None:
        _here.visits.append(Visit(cell, compiled, executor, reason, "", layout.T, layout.B, weights))


__all__ = ["Visit", "autocast_is_on", "is_recording", "leave_to_torch", "strict", "unroll", "unroll_packed", "visits"]

"""The one door to speed: what `scan` means, run by whoever runs it fastest.

In this order: a compiler is looking -> scan; no program, or not for these tensors -> scan, with the reason; a function
transform or forward mode -> the program in PyTorch; a gradient is wanted -> the native machine under autograd; none ->
the machine.
"""

from torch import Tensor
from torch.compiler import is_compiling

from recurra.cell import Cell, check_input, check_lengths, check_tensor
from recurra.machine.program import leave_the_pool
from recurra.program.layout import Layout
from recurra.unroll.call import (
    Call,
    States,
    Weights,
    complete,
    drawn,
    with_packed_resets,
    with_packed_sides,
    with_resets,
)
from recurra.unroll.compiled import Compiled
from recurra.unroll.fallback import by_scan, fall_back, packed_by_scan
from recurra.unroll.notes import RECORDING, Visit, is_recording, note
from recurra.unroll.recording import Recording
from recurra.unroll.rows import Packing, pack
from recurra.unroll.running import TENSORS, run, unfit


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
    leave_the_pool()
    call = Call(cell, x, states, lengths, reverse, weights, sides, record)
    if resets is not None:
        call = with_resets(call, resets)
    if is_recording():
        if not is_compiling():
            note(Visit(call.cell, None, "scan", RECORDING, "", x.shape[0], x.shape[1], call.weights))
        return by_scan(call)
    call = drawn(call)
    compiled, tensors = call.find()
    if x.__class__ not in TENSORS:
        check_tensor(compiled.name, x)
    shape = x.shape
    if len(shape) != 3 or shape[2] != compiled.input_size:
        check_input(compiled.name, x, compiled.input_size)
    T, B, _ = shape
    call, reason = _ready(call, compiled, B)
    if reason:
        return fall_back(call, compiled, reason)
    packing = None if call.lengths is None else pack(check_lengths(call.lengths, T, B), T, reverse, x.device)
    if packing is not None:
        return _sorted(call, compiled, tensors, packing)
    y, last = run(call, compiled, tensors, compiled.layout(T, B, reverse), call.inputs())
    if record is not None:
        record.seen = record.seen.reshape(T, B, record.width)
    return y.view(T, B, -1) if y.numel() else y.reshape(T, B, y.shape[-1]), last


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
    leave_the_pool()
    call = Call(cell, data, states, None, reverse, weights, sides, record)
    if sides is None:
        call = with_packed_sides(drawn(call), batch_sizes, order)
    if resets is not None:
        call = with_packed_resets(call, resets, batch_sizes)
    if is_recording():
        return packed_by_scan(call, batch_sizes, by_scan)
    compiled, tensors = call.find()
    check_input(compiled.name, data, compiled.input_size, "rows")
    sizes = tuple(batch_sizes.tolist())
    layout = Layout(len(sizes), sizes[0] if sizes else 0, sizes, reverse)
    call, reason = _ready(call, compiled, layout.B)
    if reason:
        return packed_by_scan(call, batch_sizes, lambda padded: fall_back(padded, compiled, reason))
    return run(call, compiled, tensors, layout, call.inputs())


def _ready(call: Call, compiled: Compiled, batch: int) -> tuple[Call, str]:
    """The call with all that it needs; or why it cannot go to the machine, as far as it came."""
    if call.sides is not None or call.states is not None or compiled.side_sizes:
        call = complete(call, compiled, batch)
    ready = call
    if call.states is None and not (compiled.zero_start or compiled.reason):
        ready = call._replace(states=call.first_states(batch))
    reason = compiled.reason or unfit(ready, compiled)
    return (call if reason else ready), reason  # scan calls `initial` itself


def _sorted(call: Call, compiled: Compiled, tensors: list[Tensor], packing: Packing) -> tuple[Tensor, States]:
    """The call with its rows in the order of a packing, and what it gives back in the caller's."""
    T, record = len(call.x), call.record
    inputs = tuple(packing.rows(t) for t in call.inputs())
    if call.states is not None:
        call = call._replace(states=packing.sorted(call.states))
    y, last = run(call, compiled, tensors, packing.layout, inputs)
    if record is not None:
        record.seen = packing.padded(record.seen, T)
    return packing.padded(y, T), packing.unsorted(last)

"""The one door to speed: what `scan` means, run by whoever runs it fastest.

In this order: a compiler is looking -> the call as one operator, or scan; no program, or not for these tensors -> scan,
with the reason; a function transform or forward mode -> the program in PyTorch; a gradient is wanted -> the native
machine under autograd; none -> the machine.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from recurra.cell import Cell, check_input, check_lengths, check_tensor, no_truth
from recurra.machine.program import leave_the_pool
from recurra.program.layout import Layout
from recurra.unroll.call import (
    Call,
    States,
    Weights,
    complete,
    drawn,
    with_packed_sides,
    with_resets,
)
from recurra.unroll.casting import cast, without_autocast
from recurra.unroll.compiled import Compiled
from recurra.unroll.fallback import by_scan, fall_back, packed_by_scan
from recurra.unroll.notes import RECORDING, Visit, is_recording, note, takes_operators
from recurra.unroll.pair import pays, run_both
from recurra.unroll.precision import elsewhere
from recurra.unroll.recording import Recording
from recurra.unroll.rows import Packing, pack
from recurra.unroll.running import TENSORS, TRANSFORM, Work, in_pytorch, run, unfit
from recurra.unroll.writing import by_operator

Unrolled = tuple[Tensor, States]


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
    precision: str | None = None,
) -> Unrolled:
    """Runs `cell` over x (T, B, D): outputs (T, B, m) and last states, as `scan` defines them, as fast as may be.

    The arguments are explained at `Call`. Raises what `scan` raises; StrictError for a fall-back in strict mode.
    """
    if reverse is not False and reverse is not True:
        raise no_truth("reverse", reverse)
    call = Call(cell, x, states, lengths, reverse, weights, sides, resets, record)
    return answer(call if precision is None else call._replace(precision=precision))


def answer(call: Call) -> Unrolled:
    """Outputs, in the layout of the call's x, and last states."""
    if call.precision is None and not torch.is_autocast_enabled("cpu"):
        return _answer(call)
    ready = cast(call)
    if ready is None:
        return _answer(call)
    with without_autocast():
        return ready.back(*_answer(ready.call))


def answer_both(one: Call, two: Call) -> tuple[Unrolled, Unrolled]:
    """`answer` for two calls over the same x: side by side where that is faster."""
    if one.precision is None and two.precision is None and not torch.is_autocast_enabled("cpu"):
        return _answer_both(one, two)
    first, second = cast(one), cast(two)
    if first is None or second is None:
        return answer(one), answer(two)
    with without_autocast():
        ahead, back = _answer_both(first.call, second.call)
        return first.back(*ahead), second.back(*back)


def _answer(call: Call) -> Unrolled:
    work = _begin(call)
    return _finish(work, *run(work)) if isinstance(work, Work) else work()


def _answer_both(one: Call, two: Call) -> tuple[Unrolled, Unrolled]:
    first, second = _begin(one), _begin(two)
    if isinstance(first, Work) and isinstance(second, Work) and pays(first, second):
        done = run_both(first, second)
        return _finish(first, *done[0]), _finish(second, *done[1])
    one_by_one = [_finish(w, *run(w)) if isinstance(w, Work) else w() for w in (first, second)]
    return one_by_one[0], one_by_one[1]


def _begin(call: Call) -> Work | Callable[[], Unrolled]:
    """The call up to what the native machine does; or, where it does nothing, what gives the result."""
    leave_the_pool()
    if call.batch_sizes is not None:
        return _begin_packed(call, call.batch_sizes)
    if call.resets is not None:
        call = with_resets(call, call.resets)
    if is_recording():
        return partial(_recorded_by_pytorch, call)
    call, x = drawn(call), call.x
    compiled, tensors = call.find()
    if x.__class__ not in TENSORS:
        check_tensor(compiled.name, x)
    shape = x.shape
    if len(shape) != 3 or shape[2] != compiled.input_size:
        check_input(compiled.name, x, compiled.input_size)
    T, B, _ = shape
    call, reason = _ready(call, compiled, B)
    if reason:
        return partial(fall_back, call, compiled, reason)
    if call.lengths is not None:
        packing = pack(check_lengths(call.lengths, T, B), T, call.reverse, x.device)
        if packing is not None:
            return _sorted(call, compiled, tensors, packing)
    return _work(call, compiled, tensors, compiled.layout(T, B, call.reverse), call.inputs())


def _begin_packed(call: Call, batch_sizes: Tensor) -> Work | Callable[[], Unrolled]:
    """The same over PackedSequence's layout: x (N, D) step after step; sequences and states by falling length."""
    if call.sides is None:
        call = with_packed_sides(drawn(call), batch_sizes)
    if call.resets is not None:
        call = with_resets(call, call.resets)
    if is_recording():
        return partial(packed_by_scan, call, batch_sizes, by_scan)
    compiled, tensors = call.find()
    check_input(compiled.name, call.x, compiled.input_size, "rows")
    sizes = tuple(batch_sizes.tolist())
    layout = Layout(len(sizes), sizes[0] if sizes else 0, sizes, call.reverse)
    call, reason = _ready(call, compiled, layout.B)
    if reason:
        return partial(packed_by_scan, call, batch_sizes, lambda padded: fall_back(padded, compiled, reason))
    return _work(call, compiled, tensors, layout, call.inputs())


def _recorded_by_pytorch(call: Call) -> Unrolled:
    if takes_operators() and (answered := by_operator(call)) is not None:
        return answered
    if not is_compiling():
        note(Visit(call.cell, None, "scan", RECORDING, "", call.x.shape[0], call.x.shape[1], call.weights))
    return by_scan(call)


def _ready(call: Call, compiled: Compiled, batch: int) -> tuple[Call, str]:
    """The call with all that it needs; or why it cannot go to the machine, as far as it came."""
    if call.sides is not None or call.states is not None or compiled.side_sizes:
        call = complete(call, compiled, batch)
    ready = call
    if call.states is None and not (compiled.zero_start or compiled.reason):
        ready = call._replace(states=call.first_states(batch))
    reason = compiled.reason or unfit(ready, compiled)
    return (call if reason else ready), reason  # scan calls `initial` itself


def _sorted(call: Call, compiled: Compiled, tensors: list[Tensor], packing: Packing) -> Work:
    """The work with its rows in the order of a packing."""
    inputs = tuple(packing.rows(t) for t in call.inputs())
    if call.states is not None:
        call = call._replace(states=packing.sorted(call.states))
    return _work(call, compiled, tensors, packing.layout, inputs, packing)


def _work(
    call: Call,
    compiled: Compiled,
    tensors: list[Tensor],
    layout: Layout,
    inputs: States,
    packing: Packing | None = None,
) -> Work:
    states = call.states
    first: Sequence[Tensor | None] = compiled.zeros if states is None else [s.contiguous() for s in states]
    way: Any = compiled
    made, error = compiled.statics(tensors), None
    if call.precision is not None or call.thrifty:
        way = compiled.way(call.precision, call.thrifty and call.precision != "int8")  # which keeps nothing anyway
        if call.precision == "int8":
            if in_pytorch():
                elsewhere(call.precision, compiled.name, TRANSFORM)  # refuses
            error = way.rounding.error(compiled.name, made)
    return Work(call, compiled, way, layout, inputs, first, made, packing, error)


def _finish(work: Work, y: Tensor, last: States) -> Unrolled:
    """What the machine gave, as the caller's rows lie."""
    call, layout, packing = work.call, work.layout, work.packing
    record = call.record
    if packing is not None:
        T = len(call.x)
        if record is not None:
            record.seen = packing.padded(record.seen, T)
        return packing.padded(y, T), packing.unsorted(last)
    if call.batch_sizes is not None:
        return y, last
    T, B = layout.T, layout.B
    if record is not None:
        record.seen = record.seen.reshape(T, B, record.width)
    return y.view(T, B, -1) if y.numel() else y.reshape(T, B, y.shape[-1]), last

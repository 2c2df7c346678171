"""A call by the plain loop: what its step, its tensors or whoever looks on make necessary; told, or refused."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor

from recurra.cell import Showing, Tapping, autocast_is_on, call_with, check_dtypes, check_tensor
from recurra.scan import scan
from recurra.unroll.call import Call, States, within
from recurra.unroll.compiled import Compiled
from recurra.unroll.notes import Replay, Visit, is_strict, note, refuse_in_strict, somebody_asks
from recurra.unroll.precision import arithmetic, elsewhere


def by_scan(call: Call) -> tuple[Tensor, States]:
    """The call as `scan` runs it; in bf16 under PyTorch's autocast, with results in the dtype of x."""
    if call.precision is None:
        return _by_scan(call)
    with arithmetic(call.precision, call.x.device):
        y, last = _by_scan(call)
    if call.record is not None:
        call.record.seen = call.record.seen.to(call.x.dtype)
    return y.to(call.x.dtype), tuple(s.to(call.x.dtype) for s in last)


def _by_scan(call: Call) -> tuple[Tensor, States]:
    cell, record, sides = call.cell, call.record, call.sides
    if record is not None and record.names:
        cell = Showing(cell, record.names)
    if taps := call.taps():
        cell = Tapping(cell, taps)
        sides = None if sides is None else (*cell.own_sides(call.x), *sides)
    if call.weights is None:
        y, last = scan(cell, call.x, call.states, call.lengths, call.reverse, sides)
    else:
        y, last = call_with(
            call.cell, call.weights, lambda: scan(cell, call.x, call.states, call.lengths, call.reverse, sides)
        )
    return (y if record is None else record.split(y)), last


def fall_back(call: Call, compiled: Compiled, reason: str) -> tuple[Tensor, States]:
    """scan, and nobody can say that it was silent: an error in strict mode, and told by `explain`."""
    line = compiled.line if reason == compiled.reason else ""
    if (is_strict() or call.precision is not None) and not compiled.reason and not autocast_is_on(call.x):
        check_tensor(compiled.name, call.x)
        named = {} if call.states is None else dict(zip(call.cell.state_names, call.states))
        check_dtypes(compiled.name, compiled.dtype, compiled.device, call.x, named)
    if not compiled.broken:  # scan says what is wrong
        reason = elsewhere(call.precision, compiled.name, reason)
    refuse_in_strict(compiled, reason, line)
    call = call._replace(sides=call.sides or ())  # None would have weights drawn a second time
    begun = perf_counter()
    results = by_scan(call)
    if somebody_asks():
        _note(call, compiled, reason, line, perf_counter() - begun)
    return results


def _note(call: Call, compiled: Compiled, reason: str, line: str, seconds: float) -> None:
    x, given = call.x, (call.x, *(call.states or ()), *call.cell.parameters(), *(call.weights or {}).values())
    wanted = tuple(t for t in given if torch.is_grad_enabled() and t.requires_grad)
    replay = Replay(lambda: by_scan(call)[:1], None, wanted) if call.record is None else None
    told = Visit(call.cell, compiled, "scan", reason, line, x.shape[0], x.shape[1], call.weights)
    note(replace(told, seconds=seconds, replay=replay, precision=call.precision))


def packed_by_scan(
    call: Call, batch_sizes: Tensor, scanned: Callable[[Call], tuple[Tensor, States]]
) -> tuple[Tensor, States]:
    """A call over packed rows as one over padded ones, which `scanned` runs."""
    mask = within(batch_sizes).to(call.x.device)

    def padded(rows: Tensor) -> Tensor:  # the packed rows in order
        return rows.new_zeros(*mask.shape, rows.shape[1]).index_put((mask,), rows)

    sides = None if call.sides is None else tuple(padded(s) for s in call.sides)
    y, last = scanned(call._replace(x=padded(call.x), lengths=mask.sum(0).cpu(), sides=sides))
    if call.record is not None:
        call.record.seen, call.record.mask = call.record.seen[mask], mask
    return y[mask], last

"""What a call of a layer cost: threads, tiles, bytes, multiply-adds, time, and the reasons, as numbers and as lines."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from recurra.machine.caches import caches, level_of
from recurra.machine.shape import Phase, Shape
from recurra.program.summary import multiply_adds
from recurra.unroll.measured import Against, Measured, measure
from recurra.unroll.notes import Ran, Visit
from recurra.unroll.reasons import reasons
from recurra.unroll.wording import in_all, in_bytes, in_time, per_cent, several

_NAMES = {torch.float32: "fp32", torch.float64: "fp64"}


@dataclass(frozen=True, slots=True)
class Account:
    """One visit in numbers.

    precision      in which products are computed; "" where no program ran
    multiply_adds  of the forward products; None where no program is known
    shapes         what the native machine does: forward, and backward where a gradient is wanted; none: it did not run
    """

    precision: str
    multiply_adds: int | None
    shapes: tuple[Shape, ...]
    seconds: float
    measured: Measured | None
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as dictionaries, lists, numbers and text."""
        told = asdict(self)
        told["shapes"] = {
            name: asdict(shape) | {"weights_in": level_of(shape.own)}
            for name, shape in zip(("forward", "backward"), self.shapes)
        }
        return told


def account_of(visit: Visit, threads: int, measuring: bool) -> Account:
    """The account of a visit that no more than so many threads worked at."""
    compiled, ran = visit.compiled, visit.ran
    plan = None if compiled is None else compiled.plan
    shapes = () if ran is None else _shapes(ran, visit, 1 if visit.beside else threads)
    if shapes:
        forward: int | None = shapes[0].arithmetic
    else:
        parts = None if plan is None else (plan.before, plan.body, plan.after)
        forward = None if parts is None else visit.T * visit.B * sum(multiply_adds(p) for p in parts)
    precision = _precision(visit)
    measured = measure(visit, shapes, precision) if measuring else None
    found = reasons(visit, shapes, threads, measured)
    if measuring and measured is None:
        why = "a layer that records is run once" if shapes else "only the native machine's peak is known"
        found = (*found, f"not measured: {why}")
    return Account(precision, forward, shapes, visit.seconds, measured, found)


def _precision(visit: Visit) -> str:
    compiled = visit.compiled
    if visit.precision is not None:
        return visit.precision
    if compiled is None or visit.executor == "scan":  # what PyTorch does there depends on more than the weights
        return ""
    return _NAMES.get(compiled.dtype, str(compiled.dtype))


def _shapes(ran: Ran, visit: Visit, threads: int) -> tuple[Shape, ...]:
    thrifty = visit.thrifty and ran.graded
    wants = ran.first, ran.inputs, ran.statics
    found = ran.executor.shapes(ran.layout, ran.dtype, threads, *wants, ran.graded)
    if thrifty:  # the forward call keeps nothing
        found[0] = ran.executor.shapes(ran.layout, ran.dtype, threads, *wants, False)[0]
    return tuple(found)


def lines_of(visit: Visit, account: Account) -> list[str]:
    """What `explain` prints of it."""
    found = [("precision", account.precision)] if account.precision else []
    forward = account.shapes[0] if account.shapes else None
    if forward is not None and visit.T * visit.B:
        found += _how(visit, forward)
        found += _rows(visit, forward)
    if account.multiply_adds is not None:
        found.append(("arithmetic", _arithmetic(account)))
    if len(account.shapes) > 1 and visit.T * visit.B:
        found.append(("backward", _backward(account.shapes[1])))
    if visit.seconds:
        found.append(("time", _time(account)))
    if account.measured is not None:
        found += _distance(account.measured)
    found += [("what takes time", reason) for reason in account.reasons]
    return [f"{name + ':':<27}{text}" for name, text in found]


def _how(visit: Visit, shape: Shape) -> list[tuple[str, str]]:
    tiles = "; ".join(_tiles(p) for p in shape.phases)
    return [
        ("threads", _threads(visit, shape)),
        ("tiles in the loop", tiles),
        ("weights in the loop", _weights(shape)),
    ]


def _threads(visit: Visit, shape: Shape) -> str:
    each = ", ".join(map(str, shape.sequences))
    if visit.beside:
        return "1, beside the other direction"
    if shape.use == "alone":
        return "1"
    told = {
        "sequences": f"each has sequences of its own ({each}) and waits for none",
        "columns": "they share the columns of every step, and meet after each phase of it",
        "rows": f"they share the rows outside of the loop, and its sequences ({each})",
    }[shape.use]
    return f"{shape.threads}: {told}"


def _tiles(p: Phase) -> str:
    if not p.rows:
        return "none"
    told = f"{p.tile[0]} x {p.tile[1]} of {p.rows} rows x {p.columns} columns"
    return f"{told}, in registers {p.block[0]} x {p.block[1]}" if p.full else told


def _weights(shape: Shape) -> str:
    if not shape.weights:
        return "none"
    known = ", ".join(f"{name} {in_bytes(size)}" for name, size in caches().items())
    level = level_of(shape.own)
    where = f"from {level} ({known})" if level else "(the system does not tell the sizes of its caches)"
    part = f", of which each thread reads {in_bytes(shape.own)}" if shape.use == "columns" else ", read"
    whose = " by each thread" if shape.use in ("sequences", "rows") else ""
    return f"{in_bytes(shape.weights)}{part}{whose} at every step {where}"


def _rows(visit: Visit, shape: Shape) -> list[tuple[str, str]]:
    each = f"each {in_bytes(shape.rows_read)} read, {in_bytes(shape.rows_written)} written"
    passed = f", {in_bytes(shape.rows_passed)} passed on inside chunks of {several(shape.chunk, 'step')}"
    return [
        ("rows", each + (passed if shape.rows_passed else "")),
        ("bytes moved", f"{in_bytes(shape.moved)} in all, {in_bytes(shape.moved / visit.T)} a step"),
    ]


def _arithmetic(account: Account) -> str:
    told = f"{in_all(account.multiply_adds or 0)} multiply-adds forward"
    if len(account.shapes) > 1:
        told += f", {in_all(account.shapes[1].arithmetic)} backward"
    return told


def _backward(shape: Shape) -> str:
    tiles = "; ".join(_tiles(p) for p in shape.phases)
    told = f"{several(shape.threads, 'thread')}; tiles {tiles}"
    return f"{told}; {in_bytes(shape.weights)} of weights a step, {in_bytes(shape.moved)} in all"


def _time(account: Account) -> str:
    m = account.measured
    if m is None:
        return f"{in_time(account.seconds)} in this one call"
    told = f"{in_time(m.forward.seconds)} forward"
    if m.backward is not None:
        told += f", {in_time(m.backward.seconds)} backward"
    if m.itself is not None:
        told += f"; the call itself {in_time(m.itself)}"
    return f"{told} (shortest of several)"


def _distance(m: Measured) -> list[tuple[str, str]]:
    both: list[tuple[str, Against | None]] = [("forward", m.forward), ("backward", m.backward)]
    peaks = [f"{n} {per_cent(a.arithmetic / a.seconds)} of {2e-9 * a.rate:.3g} GFLOP/s" for n, a in both if a]
    reads = [f"{n} {per_cent(a.reading / a.seconds)} of {1e-9 * a.read:.3g} GB/s" for n, a in both if a and a.read]
    found = [("of the peak, arithmetic", ", ".join(peaks))]
    return found + ([("of the peak, reading", ", ".join(reads))] if reads else [])

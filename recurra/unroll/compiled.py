"""A cell's step as traced once, and whether that trace still holds.

A trace is keyed on the Python attributes of the cell and its submodules, `training` among them, and on the shape, dtype
and device of every weight. Anything else, the numbers of the weights above all, is read at each call.
"""

import atexit
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from recurra.cell import Cell, check_made, check_numbers, places_lock
from recurra.errors import InputError
from recurra.machine import devices, native, plain
from recurra.machine.devices import Executor
from recurra.machine.native import NativeExecutor
from recurra.machine.operands import FLOATS, Unsupported
from recurra.machine.segments import Segments
from recurra.passes import ZERO, backward_of, plan_of, recorded
from recurra.program.fingerprint import Fingerprint
from recurra.program.layout import Layout
from recurra.program.plan import Backward, Plan
from recurra.program.recorder import BrokenContract, Changing, Untraceable
from recurra.program.statics import Evaluator
from recurra.program.trace import Sample, outside_transforms, rows_of, trace
from recurra.unroll.precision import check_here
from recurra.unroll.rounding import Rounding
from recurra.unroll.second import Second

Weights = Mapping[str, Tensor]
_Place = tuple[dict[str, Any], str]  # a module's own dictionary of parameters or buffers, and the key in it
_KEPT = 8  # traces of one cell: training and eval, float and double, devices; and as many again that show something


class Compiled:
    """A trace and what came of it: a plan with an executor, or the reason why there is none.

    executor   None when the step runs on scan: `reason` says why, and `line` where in the user's file
    record     variables of the step whose values stand in the plan's output, to the right of the cell's own. The
               backward is that of the cell's own output; `whole` has the other.
    tapped     whether the plan has one input more for each state, whose gradients are those of the states
    """

    def __init__(self, cell: Cell, weights: Weights | None, record: tuple[str, ...] = (), tapped: bool = False) -> None:
        check_made(cell)
        self.record, self.tapped = record, tapped
        self.cell = weakref.ref(cell)
        self.name = cell.full_name
        self.input_size = cell.input_size
        self.side_sizes = dict(cell.side_sizes)
        self.zeros = (None,) * len(cell.state_sizes)
        self.zero_start = cell.starts_at_zero
        self._fingerprint = Fingerprint(cell)
        self._places, self._aliases = _places(cell)
        self._ties = [(self._places[first], places) for places, first in self._aliases.values()]
        self.names = tuple(self._places)
        self._homes = tuple(self._places.values())
        tensors = self._gather(weights)
        self._key = [(t.shape, t.dtype, t.device) for t in tensors]
        named = dict(zip(self.names, tensors, strict=True))
        check_numbers(self.name, named)
        self.dtype, self.device = rows_of(named)
        self._layouts: dict[tuple[int, int, bool], Layout] = {}
        self.dtypes: dict[tuple[object, ...], tuple[torch.dtype, ...]] = {}  # of scan's results under autocast
        self._ways: dict[tuple[str | None, bool], Way] = {}
        self.plan: Plan | None = None
        self.backward: Backward | None = None
        self.executor: Executor | None = None
        self.second: Second | None = None
        self.reason = self.line = ""
        self.broken = self._in_order = False
        self._operands: tuple[int, ...] | None = None
        try:
            with outside_transforms():
                self._compile(cell, named)
        except (Untraceable, Unsupported) as refused:
            self.reason, self.line = refused.reason, refused.line
            self.broken = isinstance(refused, BrokenContract)
            if isinstance(refused, Changing):
                self._fingerprint = Fingerprint(cell, loose=True)

    def _compile(self, cell: Cell, weights: Weights) -> None:
        if self._fingerprint.hooked():
            raise Untraceable("a module inside the cell has hooks, which may do anything")
        if self.dtype not in FLOATS:
            raise Untraceable(f"the weights are {self.dtype}, and programs run in float32 and float64")
        if self.device.type == "meta":
            raise Untraceable("the weights are on the meta device and have no numbers")
        step, sample = trace(cell, weights, self.record, self.tapped)
        if self.tapped:
            zeros = tuple(torch.full_like(s, ZERO) for s in sample.states)
            sample = replace(sample, inputs=(*sample.inputs, *zeros))
        plan = plan_of(step, self.tapped)
        backward = backward_of(plan)
        if self.record:
            plan, backward = recorded(plan, backward)
        _check(plan, sample)
        self.plan, self.backward = plan, backward
        self.evaluate = Evaluator(plan.statics)
        places = {name: k for k, name in enumerate(self.names)}
        if self.evaluate.trivial:
            self._operands = tuple(places[name] for name in self.evaluate.parameters)
            self._in_order = self._operands == tuple(range(len(self.names)))
        if self.device.type == "cpu" and (missing := native.available()):
            _say_once(missing)
        self.executor = devices.prepare(plan, backward, self.device)
        self.second = Second(plan, devices.without_second(self.device))

    def _gather(self, weights: Weights | None) -> list[Any]:
        """Every parameter and buffer, in the order of the names."""
        if weights is None:
            return [home[key] for home, key in self._homes]
        if len(weights) == len(self.names) and not self._aliases:
            return [weights[name] for name in self.names]
        aliased = {self._aliases[n][1] if n in self._aliases else n: t for n, t in weights.items()}
        for n in aliased:
            if n not in self._places:
                raise InputError(f"weights has {n!r}, but {self.name} has no parameter or buffer of that name.")
        return [aliased[n] if n in aliased else home[key] for n, (home, key) in self._places.items()]

    def weights_if_it_holds(self, weights: Weights | None) -> list[Tensor] | None:
        """The tensors of this call when nothing has changed that the trace depends on, else None."""
        if not self._fingerprint.holds():
            return None
        try:
            for (home, key), (other, name) in self._ties:
                if home[key] is not other[name]:
                    return None
            tensors = self._gather(weights)
            for t, (shape, dtype, device) in zip(tensors, self._key):
                if t.shape != shape or t.dtype is not dtype or t.device != device:
                    return None
        except (KeyError, AttributeError):  # removed, or None
            return None
        return tensors

    def statics(self, tensors: list[Tensor]) -> list[Tensor]:
        """The operands that an executor is handed, made from the weights under autograd."""
        if self._in_order:
            return tensors
        if self._operands is not None:
            return [tensors[k] for k in self._operands]
        return self.evaluate(dict(zip(self.names, tensors, strict=True)), self.dtype, self.device)

    @cached_property
    def whole(self) -> Executor:
        """What runs the plan with the backward of its whole output, of what is recorded too."""
        assert self.plan is not None
        return devices.prepare(self.plan, backward_of(self.plan), self.device)

    def way(self, precision: str | None, thrifty: bool = False) -> "Way":
        """Who runs the trace in a precision of its own, or with a root of the memory; made when first asked for."""
        if precision is None and not thrifty:
            return self
        found = self._ways.get((precision, thrifty))
        if found is None:
            found = Thrifty(self.way(precision)) if thrifty else Precise(self, precision or "")
            self._ways[precision, thrifty] = found
        return found

    def layout(self, T: int, B: int, reverse: bool) -> Layout:
        """The layout of B sequences of T steps."""
        found = self._layouts.get((T, B, reverse))
        if found is None:
            if len(self._layouts) > 256:
                self._layouts.clear()
            found = self._layouts[T, B, reverse] = Layout(T, B, None, reverse)
        return found


class Precise:
    """A trace in a precision of its own, as `SequenceOperation` takes it. Second derivatives are the trace's own."""

    rounding: Rounding | None = None  # of int8

    def __init__(self, compiled: Compiled, precision: str) -> None:
        assert compiled.plan is not None
        check_here(precision)
        self.plan, self.second, self._precision = compiled.plan, compiled.second, precision
        backward = None if precision == "int8" else compiled.backward
        self.executor: NativeExecutor = native.prepare(self.plan, backward, precision)
        if precision == "int8":
            self.rounding = Rounding(self.plan, compiled.executor, self.executor)

    @cached_property
    def whole(self) -> NativeExecutor:
        """As `Compiled.whole`."""
        return native.prepare(self.plan, backward_of(self.plan), self._precision)


class Thrifty:
    """A trace whose backward pass computes again what it needs, as `SequenceOperation` takes it."""

    def __init__(self, way: "Way") -> None:
        assert not isinstance(way, Thrifty) and way.executor is not None
        self.plan, self.second, self._way = way.plan, way.second, way
        self.executor = Segments(way.executor)

    @cached_property
    def whole(self) -> Segments:
        """As `Compiled.whole`."""
        return Segments(self._way.whole)


Way = Compiled | Precise | Thrifty


@cache
def _say_once(missing: str) -> None:
    warnings.warn(
        f"{missing}: Recurra's layers run on the plain loop, which is slow. "
        "Installing Recurra where a C++ compiler is found builds the native machine.",
        RuntimeWarning,
        stacklevel=2,
    )


def _check(plan: Plan, sample: Sample) -> None:
    """The plan must give on the traced rows what the step gave, as far as rounding leaves it determined."""
    like = sample.inputs[0]
    statics = Evaluator(plan.statics)(sample.weights, like.dtype, like.device)
    layout = Layout(1, len(like))

    def results(factor: float) -> tuple[Tensor, ...]:
        inputs, states = ([factor * row for row in rows] for rows in (sample.inputs, sample.states))
        with torch.no_grad():
            output, last = plain.run(plan, layout, inputs, statics, states)
        return (output, *last)

    tolerance = 1e-9 if like.dtype == torch.float64 else 1e-3
    expected_output = torch.cat([sample.output, *sample.watched], 1) if sample.watched else sample.output
    expected = [e.to(like.dtype) for e in (expected_output, *sample.nexts)]
    exact = results(1.0)
    close = [torch.isclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in zip(exact, expected, strict=True)]
    if all(bool(c.all()) for c in close):
        return
    # What changes as much with the last bits of the rows (a division by almost nothing) says nothing of the plan.
    nearby = results(1 + 4 * torch.finfo(like.dtype).eps)
    for a, b, near, right in zip(exact, expected, nearby, close, strict=True):
        if not bool((right | ((a - b).abs() <= 16 * (a - near).abs())).all()):
            raise Untraceable("the program of the step does not give what the step gives; please report this cell")


def _places(cell: Cell) -> tuple[dict[str, _Place], dict[str, tuple[_Place, str]]]:
    """Where each parameter and buffer is kept; and, of one with several names, the other names: (place, first name)."""
    first: dict[int, str] = {}
    places: dict[str, _Place] = {}
    aliases: dict[str, tuple[_Place, str]] = {}
    for prefix, module in cell.named_modules(remove_duplicate=False):
        for members in (module._parameters, module._buffers):
            for key, own in members.items():
                name = f"{prefix}.{key}" if prefix else key
                if own is not None and id(own) in first:
                    aliases[name] = ((members, key), first[id(own)])
                elif own is not None:
                    first[id(own)] = name
                    places[name] = (members, key)
    return places, aliases


_Traces = dict[int, list[Compiled]]  # by the id of the cell
_known: _Traces = {}
_special: _Traces = {}  # those that show something or are tapped
atexit.register(_known.clear)  # native programs must not outlive their module
atexit.register(_special.clear)


def traces() -> _Traces:
    """The traces of all cells that are alive, by the id of the cell."""
    return _known


def find(
    cell: Cell, weights: Weights | None, record: tuple[str, ...] = (), tapped: bool = False
) -> tuple[Compiled, list[Tensor]]:
    """The cell's trace, made anew when anything it depends on has changed, and the weights of this call.

    record: variables of the step that the plan is to show beside its output. tapped: see `Compiled`.
    """
    known = _special if record or tapped else _known
    with places_lock:
        entries = known.get(id(cell))
        if entries is not None:
            first = entries[0]
            if first.cell() is cell and first.record == record and first.tapped == tapped:
                tensors = first.weights_if_it_holds(weights)
                if tensors is not None:
                    return first, tensors
        return _find_slowly(cell, weights, record, tapped, known)


def _find_slowly(
    cell: Cell, weights: Weights | None, record: tuple[str, ...], tapped: bool, known: _Traces
) -> tuple[Compiled, list[Tensor]]:
    entries = [e for e in known.get(id(cell), ()) if e.cell() is cell]
    for entry in [e for e in entries if e.record == record and e.tapped == tapped]:
        tensors = entry.weights_if_it_holds(weights)
        if tensors is not None:
            known[id(cell)] = [entry, *[e for e in entries if e is not entry]]
            return entry, tensors
    if not entries:
        weakref.finalize(cell, known.pop, id(cell), None)
    entry = Compiled(cell, weights, record, tapped)
    known[id(cell)] = [entry, *entries[: _KEPT - 1]]
    tensors = entry.weights_if_it_holds(weights)
    assert tensors is not None, "a cell that changes while it is looked at"
    return entry, tensors

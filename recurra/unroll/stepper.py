"""One cell, one step at a time: the weights as they were, the state kept between steps."""

from typing import Any

import torch
from torch import Tensor

from recurra.cell import Cell, call_with, check_made_states, initial_states
from recurra.errors import InputError
from recurra.machine.precision import DTYPES
from recurra.unroll.casting import weights_in
from recurra.unroll.compiled import Compiled, Weights, find
from recurra.unroll.door import unroll
from recurra.unroll.notes import refuse_in_strict
from recurra.unroll.precision import NARROW, checked


class Stepper:
    """Runs a cell on (B, D) rows, step after step, with a snapshot of its weights.

    dtype    of the rows, that of the cell's weights; the precision may compute in another
    states   (B, n) each, contiguous and written in place by every step, as they are computed
    step     step(x, y): one step from the row tensor x (B, D), contiguous, into y (B, m)
    native   the native machine's handle, whose step(address of x, address of y) does the same; None when scan runs, and
             when rows are cast
    error    of int8 against fp32, as `Rounding` measures it; None in other precisions
    """

    def __init__(self, cell: Cell, weights: Weights | None, batch: int, precision: str | None = None) -> None:
        self.cell, self.batch, self.precision = cell, batch, checked(precision)
        self.native: Any = None
        self.error: float | None = None
        self.refresh(weights)

    def refresh(self, weights: Weights | None, keep_states: bool = False) -> None:
        """Takes the weights as they are now. The states begin anew unless they are kept."""
        self.compiled, tensors = self._find(weights)
        if self.compiled.side_sizes:
            raise InputError(
                f"{self.compiled.name} reads {', '.join(self.compiled.side_sizes)} beside x at every step, and a "
                "session has x alone. Call layer.eval() first, or make the session of the layer without the wrapper."
            )
        if self.cell.call_weights():
            raise InputError(
                f"{self.compiled.name} draws weights for every call, and a session is one call without end. "
                "Call layer.eval() first, or make the session of the layer without the wrapper."
            )
        names = self.compiled.names
        self.weights = {name: t.detach().clone() for name, t in zip(names, tensors, strict=True)}
        if not keep_states:
            self.states = self.first_states()
        with torch.no_grad():
            if self.compiled.executor is None:
                refuse_in_strict(self.compiled, self.compiled.reason, self.compiled.line)
                self.output_size = self._by_scan(self._row(), self.first_states())[0].shape[1]
                return
            self._statics = [s.detach() for s in self.compiled.statics(list(self.weights.values()))]
        assert self.compiled.plan is not None
        self.output_size = self.compiled.plan.output.width
        self._layout = self.compiled.layout(1, self.batch, False)
        name = self.precision if self.precision in NARROW else None
        way: Any = self.compiled.way(name)
        self._executor = way.executor
        if name == "int8":
            self.error = way.rounding.error(self.compiled.name, self._statics)
        session = getattr(self._executor, "session", None)
        if session is not None and self.dtype is self.compiled.dtype:
            self.native = session(self.batch, self._statics, self.states)

    def _find(self, weights: Weights | None) -> tuple[Compiled, list[Tensor]]:
        """The trace, in the dtype of the precision, and its weights."""
        compiled, tensors = find(self.cell, weights)
        self.dtype = compiled.dtype
        if self.precision is None or DTYPES[self.precision] is self.dtype:
            return compiled, tensors
        named = dict(zip(compiled.names, tensors, strict=True))
        return find(self.cell, weights_in(DTYPES[self.precision], named))

    def first_row(self) -> Tensor:
        """A row of zeros like those that steps are given."""
        return self._row().to(self.dtype)

    def _row(self) -> Tensor:
        """The same as it is computed with."""
        c = self.compiled
        return torch.zeros(self.batch, c.input_size, dtype=c.dtype, device=c.device)

    def first_states(self) -> list[Tensor]:
        """The states that the cell starts from."""
        with torch.no_grad():
            x = self._row()
            first = call_with(self.cell, self.weights, lambda: initial_states(self.cell, x, self.batch))
        if self.compiled.executor is not None:
            made = dict(zip(self.cell.state_names, first, strict=True))
            check_made_states(self.compiled.name, self.compiled.dtype, self.compiled.device, made)
        return [s.detach().clone(memory_format=torch.contiguous_format) for s in first]

    def set_states(self, states: tuple[Tensor, ...]) -> None:
        """Copies states into the stepper's own."""
        with torch.no_grad():
            for mine, given in zip(self.states, states, strict=True):
                mine.copy_(given)

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step."""
        if self.native is not None:
            self.native.step(x.data_ptr(), y.data_ptr())
            return
        with torch.no_grad():
            x = x.to(self.compiled.dtype)
            if self.compiled.executor is None:
                out, last = self._by_scan(x, self.states)
            else:
                out, last, _ = self._executor.forward(self._layout, [x], self._statics, self.states, False)
            y.copy_(out)
            self.set_states(tuple(last))

    def _by_scan(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, last = unroll(self.cell, x.unsqueeze(0), tuple(states), weights=self.weights, precision=self.precision)
        return y[0], list(last)

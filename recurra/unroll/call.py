"""A call of the door as one record, and how it becomes complete: resets, drawn weights, sides, first states."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from recurra.cell import (
    Cell,
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
    drawn_weights,
    initial_states,
    reset_side,
    resetting,
)
from recurra.unroll.compiled import Compiled, find
from recurra.unroll.recording import Recording

States = tuple[Tensor, ...]
Weights = Mapping[str, Tensor]


class Call(NamedTuple):  # made in a third of the time of a frozen dataclass
    """What is asked of the door: a cell over x (T, B, D), or over the rows (N, D) of a PackedSequence.

    states       (B, n) each; None: those that the cell starts from
    lengths      (B,); None: all of T. Of padded rows only
    weights      tensors by name that stand in for the cell's parameters and buffers, as in `torch.func.functional_call`
    sides        what the step of a wrapper reads beside x, (T, B, width) each, or (N, width); None: those that the cell
                 makes itself, and `cell.call_weights()` stand in for weights of the cell
    resets       (T, B) truth values: a new sequence begins at this step, and the states before it are the initial ones
    record       asks for variables of the step, or for gradients of its states, and is given their rows
    batch_sizes  of packed rows, step after step; states and resets are then by falling length too
    order        PackedSequence.sorted_indices, so that a sequence has the sides of its own place
    thrifty      whether the backward pass is to compute again what it needs, for the root of the memory
    precision    one of `machine.precision.NAMES`; None: as the weights are
    """

    cell: Cell
    x: Tensor
    states: States | None = None
    lengths: Tensor | None = None
    reverse: bool = False
    weights: Weights | None = None
    sides: States | None = None
    resets: Tensor | None = None
    record: Recording | None = None
    batch_sizes: Tensor | None = None
    order: Tensor | None = None
    thrifty: bool = False
    precision: str | None = None

    def find(self) -> tuple[Compiled, list[Tensor]]:
        """The trace of the cell that shows what is to be recorded, and the weights of this call."""
        if self.record is None:
            return find(self.cell, self.weights)
        return find(self.cell, self.weights, self.record.names, self.record.tapped)

    def inputs(self) -> States:
        """What a program reads at every step: x, the sides, the taps."""
        if self.record is None and not self.sides:
            return (self.x,)
        return (self.x, *(self.sides or ()), *self.taps())

    def taps(self) -> States:
        """Rows beside x, made here, whose gradients are those of the states; none where nobody wants these."""
        if self.record is None or is_compiling():
            return ()
        self.record.tap(self.cell.state_sizes.values(), self.x, self.lengths, self.reverse)
        return self.record.taps

    def first_states(self, batch: int) -> States:
        """The states that the cell starts from; gradients flow into what `initial` is made of."""
        states: States = call_with(self.cell, self.weights or {}, lambda: initial_states(self.cell, self.x, batch))
        return states


def with_resets(call: Call, resets: Tensor) -> Call:
    """The call of the cell with resets around it, which reads the marks (T, B) as a side."""
    if call.batch_sizes is not None:
        reaches = within(call.batch_sizes)
        marks = check_resets(resets, len(reaches), reaches.shape[1], reaches.sum(0))
        return _resetting(call, reset_side(marks, call.x, call.reverse)[reaches.to(call.x.device)])
    cell, x, lengths = call.cell, call.x, call.lengths
    check_made(cell)
    check_tensor(cell.full_name, x)
    check_input(cell.full_name, x, cell.input_size)
    T, B, _ = x.shape
    if lengths is not None:
        lengths = check_lengths(lengths, T, B)
    side = reset_side(check_resets(resets, T, B, lengths), x, call.reverse)
    call = drawn(call)
    return _resetting(call._replace(lengths=lengths, sides=_sides(call, x)), side)


def _resetting(call: Call, side: Tensor) -> Call:
    inside = None if call.weights is None else {f"inner.{name}": w for name, w in call.weights.items()}
    return call._replace(cell=resetting(call.cell), weights=inside, sides=(side, *(call.sides or ())), resets=None)


def drawn(call: Call) -> Call:
    """The call with the weights that a wrapper draws for it in the place of the cell's own."""
    cell, weights = call.cell, call.weights
    own = drawn_weights(cell, weights or {}) if call.sides is None else {}
    return call._replace(weights={**(weights or {}), **own}) if own else call


def with_packed_sides(call: Call, batch_sizes: Tensor) -> Call:
    """The call with the sides that the cell makes for packed rows: those of a padded x without memory, whose numbers
    are not read."""
    if not call.cell.side_sizes:
        return call._replace(sides=())
    order = call.order
    mask = within(batch_sizes).to(call.x.device)
    padded = call.x.new_zeros(()).expand(*mask.shape, call.x.shape[1])
    sides = _sides(call, padded)
    return call._replace(sides=tuple((s if order is None else s.index_select(1, order))[mask] for s in sides))


def complete(call: Call, compiled: Compiled, batch: int) -> Call:
    """The call with its states checked and its sides made or checked."""
    sides, states = call.sides, call.states
    if sides is not None or compiled.side_sizes:
        try:
            sides = _sides(call, call.x)
        except RuntimeError:  # what is wrong with x itself is told before what a wrapper makes of it
            check_dtypes(compiled.name, compiled.dtype, compiled.device, call.x, {})
            raise
    if states is not None:
        states = check_states(compiled.name, call.cell.state_sizes, states, batch)
    return call._replace(sides=sides, states=states)


def _sides(call: Call, x: Tensor) -> States:
    """The rows beside x that a wrapper's step reads: those given, checked, or those that it makes itself."""
    cell, weights = call.cell, call.weights
    if call.sides is not None:
        return check_sides(cell.full_name, cell.side_sizes, call.sides, x)
    if weights is None or not cell.side_sizes:
        return call_sides(cell, x)
    made: States = call_with(cell, weights, lambda: call_sides(cell, x))
    return made


def within(batch_sizes: Tensor) -> Tensor:
    """(T, B): whether a sequence of a PackedSequence reaches a step."""
    return torch.arange(int(batch_sizes[0]) if len(batch_sizes) else 0) < batch_sizes[:, None]

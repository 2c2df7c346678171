"""Recurrent: a cell applied along a sequence."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.cell import (
    Cell,
    check_input,
    check_lengths,
    check_made,
    check_resets,
    check_states,
    check_tensor,
    no_truth,
    one_length,
    truth,
)
from recurra.errors import InputError
from recurra.layers.layer import Layer, Lengths, Sequences, packed_resets, settings_of, thrifty
from recurra.layers.recording import hand_out, wanted
from recurra.unroll import Call, answer
from recurra.unroll.precision import checked

States = tuple[Tensor, ...] | None


class Recurrent(Layer):
    """y, state = layer(x, state=None, lengths=None, resets=None): the cell's step at every t, as fast as may be.

    x: (T, B, D), (B, T, D) with batch_first, (T, D) for one sequence, or a PackedSequence; y has the same layout.
    state: (B, n), or a tuple of them when the cell has several states; (n,) for one sequence. None: the cell's initial.
    lengths: (B,) whole numbers from 0 to T, in any order. Past its length a row's y is 0 and its state stays.
    reverse: each row runs from its last valid step to its first; outputs stay beside their inputs.
    resets: truth values (T, B), (B, T) with batch_first, (T,) for one sequence: a new sequence begins at this step, and
    the states before it are the cell's initial ones. In reverse, those before the last step of each sequence are.
    memory: "all", or "sqrt": of T steps the backward pass has the states of sqrt(T), and computes the others again.
    precision: what the recurrent program computes in, "fp32", "fp64", "fp32-fast", "bf16" or, for inference, "int8";
    weights keep their dtype, and what comes back has that of x. None: as the weights are, or as autocast says.
    Raises InputError for arguments that do not fit, CellError for a step that does not keep its states.
    """

    def __init__(
        self, cell: Cell, batch_first: bool = False, memory: str = "all", precision: str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(cell, Cell):
            raise InputError(f"Recurrent takes a recurra.Cell, and {type(cell).__name__} is none. Derive it from Cell.")
        check_made(cell)
        if batch_first is not False and batch_first is not True:
            raise no_truth("batch_first", batch_first)
        self.cell = cell
        self.batch_first = batch_first
        thrifty(memory)
        self.memory = memory
        self.precision = checked(precision)

    def forward(
        self,
        x: Sequences,
        state: Any = None,
        lengths: Lengths = None,
        reverse: bool = False,
        resets: Tensor | None = None,
    ) -> Any:
        reverse = truth("reverse", reverse)
        call = self.asked(x, state, lengths, reverse, resets)
        if self.memory != "all":
            call = call._replace(thrifty=thrifty(self.memory))
        return self.answered(x, call, *answer(call))

    def asked(self, x: Sequences, state: Any, lengths: Lengths, reverse: bool, resets: Tensor | None) -> Call:
        """The call of the door that stands for one of the layer."""
        call = self._asked(x, state, lengths, reverse, resets)
        return call if self.precision is None else call._replace(precision=self.precision)

    def _asked(self, x: Sequences, state: Any, lengths: Lengths, reverse: bool, resets: Tensor | None) -> Call:
        if isinstance(x, PackedSequence):
            return self._packed(x, state, lengths, reverse, resets)
        check_tensor(self.cell.full_name, x)
        if x.dim() == 2:
            return self._one_sequence(x, state, lengths, reverse, resets)
        cell, name = self.cell, self.cell.full_name
        check_input(name, x, cell.input_size, "B, T" if self.batch_first else "T, B")
        if self.batch_first:
            x = x.transpose(0, 1)
        T, B, _ = x.shape
        states = None if state is None else check_states(name, cell.state_sizes, state, B)
        if lengths is not None:
            lengths = check_lengths(lengths, T, B)
        if resets is not None:
            resets = check_resets(resets, T, B, lengths, "B, T" if self.batch_first else "T, B")
        return Call(cell, x, states, lengths, reverse, None, None, resets, wanted(self))

    def _one_sequence(self, x: Tensor, state: Any, lengths: Any, reverse: bool, resets: Tensor | None) -> Call:
        cell, name = self.cell, self.cell.full_name
        check_input(name, x, cell.input_size, "T")
        states: States = None
        if state is not None:
            given = state if isinstance(state, (tuple, list)) else (state,)
            rows = tuple(s.unsqueeze(0) if isinstance(s, Tensor) else s for s in given)
            states = check_states(name, cell.state_sizes, rows, 1)
        if lengths is not None:
            lengths = check_lengths(one_length(lengths, x.shape[0]), x.shape[0], 1)
        if resets is not None:
            resets = check_resets(resets, x.shape[0], 1, lengths, "T")
        return Call(cell, x.unsqueeze(1), states, lengths, reverse, None, None, resets, wanted(self))

    def _packed(self, x: PackedSequence, state: Any, lengths: Any, reverse: bool, resets: Tensor | None) -> Call:
        cell, name = self.cell, self.cell.full_name
        if lengths is not None:
            raise InputError("x is a PackedSequence and lengths are given too. It has its own: leave them out.")
        check_input(name, x.data, cell.input_size, "rows")
        states: States = None
        if state is not None:
            states = check_states(name, cell.state_sizes, state, int(x.batch_sizes[0]))
            if x.sorted_indices is not None:
                states = tuple(s.index_select(0, x.sorted_indices) for s in states)
        if resets is not None:
            resets = packed_resets(resets, x, self.batch_first)
        order = x.sorted_indices
        return Call(cell, x.data, states, None, reverse, None, None, resets, wanted(self), x.batch_sizes, order)

    def answered(self, x: Sequences, call: Call, y: Tensor, last: tuple[Tensor, ...]) -> tuple[Any, Any]:
        """What the door gave for a call, in the layout of the layer's x."""
        laid_out: Callable[[Tensor], Any] = _exchanged if self.batch_first else _as_it_is
        if isinstance(x, PackedSequence):
            laid_out = partial(_as_data, x)
            if x.unsorted_indices is not None:
                last = tuple(s.index_select(0, x.unsorted_indices) for s in last)
        elif x.dim() == 2:
            laid_out, last = _alone, tuple(s.squeeze(0) for s in last)
        if call.record is not None:
            hand_out(self, call.record, laid_out)
        return laid_out(y), _bare(last)

    def cells_by_part(self) -> dict[str, Cell]:
        return {"": self.cell}

    def extra_repr(self) -> str:
        return ", ".join((["batch_first=True"] if self.batch_first else []) + settings_of(self.memory, self.precision))


def _as_it_is(rows: Tensor) -> Tensor:
    return rows


def _exchanged(rows: Tensor) -> Tensor:
    """(T, B, ...) <-> (B, T, ...)."""
    return rows.transpose(0, 1)


def _alone(rows: Tensor) -> Tensor:
    """(T, 1, ...) -> (T, ...)."""
    return rows.squeeze(1)


def _as_data(like: PackedSequence, rows: Tensor) -> PackedSequence:
    return like._replace(data=rows)


def _bare(states: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return states[0] if len(states) == 1 else states

"""Wrapper: a cell around another one, as resets, regularisers and recordings are."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from recurra.cell.base import Cell, call_sides, call_with, check_made, drawn_weights, one_step
from recurra.errors import InputError

States = tuple[Tensor, ...]
InnerStep = Callable[[Tensor, States], tuple[Tensor, States]]
"""(x, states) -> (output, next states): the inner cell's step, its own sides included."""


class Wrapper(Cell, named_by_step=False):
    """A cell that has the inner cell's states and changes what goes into its step, or what comes out. Wrappers nest.

    A subclass defines `around`, and, where it reads further rows beside x, `own_sizes` and `own_sides`. The sides of a
    wrapper are its own, then those of the inner cell; a name that is taken inside gets a number (mask, mask2).
    Raises InputError when `inner` is no cell.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(named_by_step=False, **options)

    def __init__(self, inner: Cell) -> None:
        nn.Module.__init__(self)
        if not isinstance(inner, Cell):
            kind, own = type(inner).__name__, type(self).__name__
            raise InputError(f"{own} wraps a recurra.Cell, and {kind} is none. Derive it from Cell.")
        check_made(inner)
        self.inner = inner
        self.input_size, self.hidden_size = inner.input_size, inner.hidden_size
        self.state_names, self.state_sizes = inner.state_names, inner.state_sizes
        self._wrappers = {}
        self.training = inner.training

    # ---- for a subclass to define

    def around(self, step: InnerStep, x: Tensor, sides: tuple[Tensor, ...], states: States) -> tuple[Tensor, States]:
        """The wrapped step: (output, next states), given the inner one and the wrapper's own sides."""
        raise NotImplementedError

    def own_sizes(self) -> Mapping[str, int]:
        """Width by name of the wrapper's own sides. They may depend on `training`."""
        return {}

    def own_sides(self, x: Tensor) -> tuple[Tensor, ...]:
        """The wrapper's own sides for a call over x, as `Cell.sides`."""
        return ()

    # ---- what a cell is

    def step(self, x: Tensor, *rows: Tensor) -> Any:
        """step(x, *sides, *states): the output, where it is no state, and the next states."""
        mine = len(self.own_sizes())
        first = len(rows) - len(self.state_sizes)

        def inner(x: Tensor, states: States) -> tuple[Tensor, States]:
            return one_step(self.inner, x, states, rows[mine:first])

        y, nexts = self.around(inner, x, rows[:mine], rows[first:])
        return nexts if y is nexts[0] else (y, *nexts)

    def forward(self, x: Tensor, *rows: Tensor) -> Any:
        """One step: cell(x, *states), a call of its own, or cell(x, *sides, *states)."""
        if len(rows) != len(self.state_sizes):
            return self.step(x, *rows)
        sides = call_sides(self, x.unsqueeze(0))
        return call_with(self, drawn_weights(self), lambda: self.step(x, *(s[0] for s in sides), *rows))

    def initial(self, batch: int) -> Tensor | States:
        """The inner cell's."""
        return self.inner.initial(batch)

    @property
    def full_name(self) -> str:
        """Both names: Zoneout(LSTM)."""
        return f"{type(self).__name__}({self.inner.full_name})"

    @property
    def starts_at_zero(self) -> bool:
        """Whether the inner cell's initial states are zeros."""
        return type(self).initial is Wrapper.initial and self.inner.starts_at_zero

    @property
    def side_sizes(self) -> Mapping[str, int]:
        """Widths of the wrapper's own sides, then of the inner cell's."""
        inside = self.inner.side_sizes
        taken = {"x", *self.state_names, *inside}
        return {_free(name, taken): n for name, n in self.own_sizes().items()} | dict(inside)

    def sides(self, x: Tensor) -> tuple[Tensor, ...]:
        """The wrapper's own sides, then the inner cell's."""
        return (*self.own_sides(x), *self.inner.sides(x))

    def call_weights(self) -> Mapping[str, Tensor]:
        """The inner cell's."""
        return {f"inner.{name}": w for name, w in self.inner.call_weights().items()}

    def check_weights(self) -> None:
        """Looks at the inner cell's."""
        self.inner.check_weights()

    def extra_repr(self) -> str:
        return ""


def changed(y: Tensor, nexts: States, new: States) -> tuple[Tensor, States]:
    """(output, next states) when a wrapper puts `new` for `nexts`: an output that was the first state remains it."""
    return (new[0] if y is nexts[0] else y), new


def innermost(cell: Cell) -> Cell:
    """The cell inside all wrappers: whose equation it is."""
    while isinstance(cell, Wrapper):
        cell = cell.inner
    return cell


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}{number}"
    return free

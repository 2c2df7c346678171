"""Cell: the equation of one step, with its weights and the names and widths of its states."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from recurra.cell.arguments import check_sides, check_states
from recurra.cell.steps import split, state_names, state_sizes
from recurra.errors import CellError, InputError

# Held where weights stand in the places of a cell's own, and where its own are read: functional_call writes into the
# module, which other threads may use. (Layers of torch.nn's kinds share their cells.)
places_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # no child begins with a lock that nobody in it can release
    os.register_at_fork(
        before=places_lock.acquire, after_in_parent=places_lock.release, after_in_child=places_lock.release
    )
_NO_SIDES: Mapping[str, int] = MappingProxyType({})
_NO_WEIGHTS: Mapping[str, Tensor] = MappingProxyType({})


class Cell(torch.nn.Module):
    """One step of a recurrent network: (x_t, states at t-1) -> (y_t, states at t).

    A subclass defines `step(self, x, h, c)` in ordinary PyTorch: x (B, input_size), then one argument (B, n) for each
    state, whose names are the states' names. It returns the next states in this order, and the first is the output; or
    `y, h, c` when the output is no state. A single state may be returned bare. Rows must not depend on each other.

        class Peephole(recurra.Cell):
            def __init__(self, input_size, hidden_size):
                super().__init__(input_size, hidden_size)      # or, for widths of their own: h=20
                ...                                            # parameters and submodules
            def step(self, x, h, c):
                ...
                return h, c

    Every state is hidden_size wide unless given by name. States start at zero unless the class defines
    `initial(self, batch)`, which returns them as (batch, n), of the weights' dtype and device.

    Raises CellError when the class is made (no step, no state, arguments that are not plain names, reserved names), and
    at a step that returns too few states or changes a state's shape.
    """

    state_names: tuple[str, ...]
    step: Callable[..., Any]

    def __init_subclass__(cls, named_by_step: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if named_by_step and hasattr(cls, "step"):  # a wrapper has the states of the cell inside, a base class none yet
            cls.state_names = state_names(cls)

    def __init__(self, input_size: int, hidden_size: int, **widths: int) -> None:
        super().__init__()
        if not hasattr(self, "state_names"):
            state_names(type(self))  # says that there is no step
        self.input_size = input_size
        self.hidden_size = hidden_size
        self._wrappers: dict[type, Cell] = {}
        self.state_sizes = state_sizes(type(self).__name__, self.state_names, input_size, hidden_size, widths)

    def initial(self, batch: int) -> Tensor | tuple[Tensor, ...]:
        """The states before the first step: zeros (batch, n), of the dtype and device of the cell's parameters."""
        like = rows_like(self)
        return tuple(like.new_zeros(batch, n) for n in self.state_sizes.values())

    @property
    def full_name(self) -> str:
        """What messages call the cell: the name of its class, with that of the cell inside, where it wraps one."""
        return type(self).__name__

    @property
    def starts_at_zero(self) -> bool:
        """Whether the states before the first step are zeros, whatever the weights."""
        return type(self).initial is Cell.initial

    @property
    def side_sizes(self) -> Mapping[str, int]:
        """Width, by name, of each further row that a step reads beside x; only wrappers of a cell have any."""
        return _NO_SIDES

    def sides(self, x: Tensor) -> tuple[Tensor, ...]:
        """Those rows for a whole call, (T, B, width) each, where the caller gives none.

        x (T, B, D) tells sizes, dtype and device; its numbers must not be read.
        """
        return ()

    def call_weights(self) -> Mapping[str, Tensor]:
        """Tensors by name that stand in for parameters of the cell in one call; only wrappers of a cell have any."""
        return _NO_WEIGHTS

    def forward(self, x: Tensor, *rows: Tensor) -> Any:
        """One step: what `step(x, *states)` returns, or `step(x, *sides, *states)` where the cell has sides."""
        return self.step(x, *rows)

    @property
    def output_size(self) -> int:
        """Width of the output y_t, found by running `step` on two rows of zeros."""
        return output_width(self)

    def check_weights(self) -> None:
        """Looks, after a step has failed, for a weight of another shape than its place needs. Raises CellError.

        Here those of torch.nn.Linear within; a cell whose own weights' shapes are known looks at these too.
        """
        for path, m in self.named_modules():
            if isinstance(m, torch.nn.Linear) and m.weight.shape != (m.out_features, m.in_features):
                wanted = f"Linear({m.in_features}, {m.out_features}) needs {(m.out_features, m.in_features)}"
                raise misshapen(self, f"{path}.weight", m.weight, wanted)

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script calls first. Raises InputError."""
        raise unscriptable(self)

    def extra_repr(self) -> str:
        widths = "".join(f", {k}={n}" for k, n in self.state_sizes.items() if n != self.hidden_size)
        return f"{self.input_size}, {self.hidden_size}{widths}"


def misshapen(cell: Cell, name: str, weight: Tensor, wanted: str) -> CellError:
    """A weight has another shape than it needs."""
    return CellError(
        f"{name} of {cell.full_name} has the shape {tuple(weight.shape)}, but {wanted}. "
        "Give it a weight of that shape, or make the cell with other widths."
    )


def unscriptable(module: torch.nn.Module) -> InputError:
    """torch.jit.script reads Python, and ours is more than it knows."""
    return InputError(
        f"torch.jit.script cannot compile {type(module).__name__}, which is Python that TorchScript does not know. "
        "Use torch.export.export, which records its operations."
    )


def check_made(cell: Cell) -> None:
    """Raises InputError for what is no cell, CellError for one whose `__init__` left out that of Cell."""
    if not isinstance(cell, Cell):
        raise InputError(f"a recurra.Cell is run over time, and {type(cell).__name__} is none. Derive it from Cell.")
    if "state_sizes" not in cell.__dict__:
        name = type(cell).__name__
        raise CellError(
            f"{name} has no widths, because Cell.__init__ did not run. "
            f"Call super().__init__(input_size, hidden_size) in {name}.__init__."
        )


def check_numbers(name: str, weights: Mapping[str, Tensor]) -> None:
    """All weights have numbers, or none has any. Raises InputError: PyTorch computes with what is not there."""
    without = [n for n, w in weights.items() if w.is_meta]
    if without and len(without) < len(weights):
        other = next(n for n, w in weights.items() if not w.is_meta)
        raise InputError(
            f"{without[0]} of {name} is on meta, where weights have no numbers, and {other} is on "
            f"{weights[other].device}. Load the numbers of all weights, or move none to meta."
        )


def one_step(
    cell: Cell, x: Tensor, states: tuple[Tensor, ...], sides: tuple[Tensor, ...] = ()
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`cell.step`, its result checked and told apart into the output (B, m) and the next states."""
    return split(cell.step, cell.state_names, states, cell.step(x, *sides, *states))


def initial_states(cell: Cell, x: Tensor, batch: int) -> tuple[Tensor, ...]:
    """`cell.initial(batch)`, checked. A cell without parameters has the dtype and device of x."""
    if cell.starts_at_zero and next(cell.parameters(), None) is None:
        return tuple(x.new_zeros(batch, n) for n in cell.state_sizes.values())
    states = cell.initial(batch)
    return check_states(cell.full_name, cell.state_sizes, states, batch, origin="initial(batch)")


def call_sides(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    """`cell.sides(x)`, checked, for a call that gives none; nothing for a cell without sides."""
    if not cell.side_sizes:
        return ()
    return check_sides(cell.full_name, cell.side_sizes, cell.sides(x), x, origin="sides(x)")


class _Calling(torch.nn.Module):
    """A function called while other weights stand in for a cell's own."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, function: Any) -> Any:
        return function()


def call_with(cell: Cell, weights: Mapping[str, Tensor], function: Any) -> Any:
    """`function()` with the weights in the places of the cell's own; of several threads one at a time.

    Raises InputError under torch.jit.trace, which PyTorch does not let exchange weights.
    """
    named = {f"cell.{name}": w for name, w in weights.items()}
    if named and not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None:
        raise InputError(
            f"torch.jit.trace cannot record {cell.full_name} here, where other weights stand in for its own. "
            "Use torch.export.export, which can."
        )
    with undisturbed():
        return torch.func.functional_call(_Calling(cell), named, (function,)) if named else function()


def undisturbed() -> AbstractContextManager[Any]:
    """A cell has its own weights, or those that this thread has put in their places, as long as this lasts."""
    return nullcontext() if torch.compiler.is_compiling() else places_lock


def drawn_weights(cell: Cell, weights: Mapping[str, Tensor] = _NO_WEIGHTS) -> Mapping[str, Tensor]:
    """What `cell.call_weights()` makes of the weights, and of the cell's own where there are none."""
    if getattr(type(cell), "call_weights", Cell.call_weights) is Cell.call_weights:  # what is no cell is refused later
        return _NO_WEIGHTS
    drawn: Mapping[str, Tensor] = call_with(cell, weights, cell.call_weights)
    return drawn


def trial_step(
    cell: Cell, batch: int = 2, number: float = 0.0, watch: AbstractContextManager[object] | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and next states of one step on `batch` rows that hold `number` everywhere, from the initial states.

    Random numbers drawn and buffers written in it leave no trace. watch: entered around the step and nothing else.
    """
    like = rows_like(cell)
    buffers = {name: b.clone() for name, b in cell.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng([like.device] if like.is_cuda else []):
        x = like.new_full((batch, cell.input_size), number)
        states = initial_states(cell, x, batch)
        sides = tuple(x.new_full((batch, n), number) for n in cell.side_sizes.values())

        def step() -> tuple[Tensor, tuple[Tensor, ...]]:
            with watch or nullcontext():
                return one_step(cell, x, states, sides)

        y, nexts = call_with(cell, buffers, step)
    return y, nexts


def output_width(cell: Cell) -> int:
    """Width of y_t."""
    return trial_step(cell)[0].shape[1]


def telling_batches(cell: Cell, weights: Iterable[Tensor] = ()) -> Iterator[int]:
    """Numbers of rows by which a batch is told from everything else: primes that are nobody's width, the least first.

    weights: those that stand in for the cell's own.
    """
    taken = {n for t in (*weights, *cell.parameters(), *cell.buffers()) for n in t.shape}
    taken |= {cell.input_size, *cell.side_sizes.values(), *cell.state_sizes.values()}
    return (p for p in count(3, 2) if p not in taken and all(p % q for q in range(3, p, 2)))


def rows_like(module: torch.nn.Module) -> Tensor:
    """A tensor of the dtype and device of a module: those of its first floating parameter, else of a complex one."""
    complex_one = next((p for p in module.parameters() if p.is_complex()), torch.empty(0))
    return next((p for p in module.parameters() if p.is_floating_point()), complex_one)

"""The contract of a cell: what is checked when its class is made, when it is built, and when it steps."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import recurra
from examples import CELLS, CellExample, Leaky, Learned
from recurra import Cell, CellError, cells, scan

HERE = Path(__file__)


def at(text: str) -> str:
    """Where a message should point: the line of this file that holds `text`."""
    [line] = [n for n, s in enumerate(HERE.read_text().splitlines(), 1) if s.strip() == text]
    return f"see {HERE.name}, line {line}: {text}"


def message(error: type[Exception], call: object) -> str:
    assert callable(call)
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- making the class


def test_a_class_without_step() -> None:
    assert message(CellError, lambda: type("NoStep", (Cell,), {})(2, 3)) == (
        "NoStep has no method step. A cell defines step(self, x, h, ...) and returns its next states."
    )


def test_a_class_without_step_is_a_base_for_those_that_have_one() -> None:
    class Base(Cell):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.w = torch.nn.Linear(input_size, hidden_size)

    class Made(Base):
        def step(self, x, h, c):
            return self.w(x) + h, c

    assert Made(2, 3).state_names == ("h", "c") and Made(2, 3).state_sizes == {"h": 3, "c": 3}


def test_a_step_without_states() -> None:
    def make() -> None:
        class NoState(Cell):
            def step(self, x):  # no state
                return x

    assert message(CellError, make) == (
        "NoState.step names no state. States follow the input, as in step(self, x, h); "
        + at("def step(self, x):  # no state")
    )


def test_a_step_with_stars() -> None:
    def make() -> None:
        class Stars(Cell):
            def step(self, x, *states):
                return states

    assert message(CellError, make) == (
        "Stars.step takes *states, but input and states are named by plain arguments. "
        "Write them out, as in step(self, x, h, c); " + at("def step(self, x, *states):")
    )


def test_a_step_with_double_stars() -> None:
    def make() -> None:
        class DoubleStars(Cell):
            def step(self, x, h, **others):
                return h

    assert message(CellError, make).startswith("DoubleStars.step takes **others, but input and states are named by")


def test_a_step_with_keywords_only() -> None:
    def make() -> None:
        class Keyword(Cell):
            def step(self, x, h, *, c):
                return h, c

    assert message(CellError, make).startswith(
        "Keyword.step takes c by keyword only, but input and states are named by"
    )


def test_a_state_with_a_default() -> None:
    def make() -> None:
        class Default(Cell):
            def step(self, x, h, alpha=0.5):
                return h

    assert message(CellError, make) == (
        "Default.step gives alpha a default value, but input and states are always passed. "
        "Keep a setting as an attribute of the cell; " + at("def step(self, x, h, alpha=0.5):")
    )


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "x", "output"])
def test_reserved_names(name: str) -> None:
    first = "u" if name == "x" else "x"
    namespace: dict[str, object] = {"step": _step_with(name, first)}
    told = message(CellError, lambda: type("Reserved", (Cell,), namespace))
    assert told.startswith(f"Reserved.step calls a state {name}, a reserved name. Choose another; see ")


def _step_with(state: str, first: str) -> object:
    if state == "x":
        return lambda self, u, x: x
    return {
        "input_size": lambda self, x, input_size: input_size,
        "hidden_size": lambda self, x, hidden_size: hidden_size,
        "output": lambda self, x, output: output,
    }[state]


def test_states_are_named_by_the_signature_and_inherited() -> None:
    class Child(cells.LSTM):
        pass

    class Other(cells.LSTM):
        def step(self, x, memory):
            return memory

    assert cells.LSTM.state_names == Child.state_names == ("h", "c")
    assert Other.state_names == ("memory",)


# ----------------------------------------------------------------------------------------------------------- its widths


class Wide(Cell):
    def __init__(self, input_size, hidden_size, **widths):
        super().__init__(input_size, hidden_size, **widths)

    def step(self, x, h, y):
        return h, y


def test_widths() -> None:
    assert Wide(2, 3).state_sizes == {"h": 3, "y": 3}
    assert Wide(2, 3, y=10).state_sizes == {"h": 3, "y": 10}
    assert list(Wide(2, 3, y=10, h=4).state_sizes.items()) == [("h", 4), ("y", 10)]
    assert message(CellError, lambda: Wide(2, 3, z=10)) == (
        "Wide has no state z to be given a width: its step names h, y."
    )


@pytest.mark.parametrize(
    ("arguments", "widths", "told"),
    [
        ((0, 3), {}, "Wide got input_size=0. A width is a whole number of at least 1."),
        ((2, 3.0), {}, "Wide got hidden_size=3.0. A width is a whole number of at least 1."),
        ((2, True), {}, "Wide got hidden_size=True. A width is a whole number of at least 1."),
        ((2, 3), {"y": -1}, "Wide got y=-1. A width is a whole number of at least 1."),
    ],
)
def test_widths_that_are_none(arguments: tuple[object, ...], widths: dict[str, int], told: str) -> None:
    assert message(CellError, lambda: Wide(*arguments, **widths)) == told


def test_nonlinearity() -> None:
    told = "Elman got nonlinearity='gelu'. Choose tanh or relu."
    assert message(CellError, lambda: cells.Elman(2, 3, nonlinearity="gelu")) == told


def test_repr_names_widths_of_their_own() -> None:
    assert repr(Wide(2, 3, y=10)) == "Wide(2, 3, y=10)"
    assert repr(cells.GRU(2, 3)) == "GRU(2, 3)"


# ------------------------------------------------------------------------------------------------------------- the step


class Shrinks(Cell):
    def step(self, x, h, c):
        c = torch.tanh(c)
        c = c[:, :2]  # the culprit
        h = h * 2
        return h, c


class Forgets(Cell):
    def step(self, x, h, c):
        return h * 2  # one of two


class ReturnsTooMany(Cell):
    def step(self, x, h):
        return h, h, h  # three


class ReturnsNothing(Cell):
    def step(self, x, h):
        h = h + 1


class ReturnsNumbers(Cell):
    def step(self, x, h, c):
        return h, 1.0  # a number


class Branches(Cell):
    def step(self, x, h):  # of two branches
        if x.shape[0] > 100:
            return h
        return h[:, :1]


class Flattens(Cell):
    def step(self, x, h):
        y = h.sum(-1)  # rank one
        return y, h


X = torch.zeros(4, 3, 2)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            Shrinks,
            "Shrinks.step received c (3, 5) but returned c (3, 2). A state keeps its shape from one step to the next; "
            + at("c = c[:, :2]  # the culprit"),
        ),
        (
            Forgets,
            "Forgets.step takes the states h, c but returned 1 value, so c is missing. "
            "Return h, c, or y, h, c when the output is no state; " + at("return h * 2  # one of two"),
        ),
        (
            ReturnsTooMany,
            "ReturnsTooMany.step takes the states h but returned 3 values. "
            "Return h, or y, h when the output is no state; " + at("return h, h, h  # three"),
        ),
        (
            ReturnsNothing,
            "ReturnsNothing.step takes the states h but returned a value of type NoneType. "
            "Return h, or y, h when the output is no state; see",
        ),
        (
            ReturnsNumbers,
            "ReturnsNumbers.step takes the states h, c but returned a value of type float. "
            "Return h, c, or y, h, c when the output is no state; " + at("return h, 1.0  # a number"),
        ),
        (
            Branches,
            "Branches.step received h (3, 5) but returned h (3, 1). A state keeps its shape from one step to the next; "
            + at("def step(self, x, h):  # of two branches"),
        ),
        (
            Flattens,
            "Flattens.step returned an output of shape (3,) for 3 rows. An output has the shape (rows, width); "
            + at("y = h.sum(-1)  # rank one"),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("length", [None, [4, 1, 4]])
def test_a_step_that_breaks_the_contract(make: type[Cell], told: str, length: list[int] | None) -> None:
    lengths = None if length is None else torch.tensor(length)
    assert message(CellError, lambda: scan(make(2, 5), X, lengths=lengths)).startswith(told)


def test_an_initial_that_does_not_fit() -> None:
    class Bare(Leaky):
        def initial(self, batch: int) -> Tensor:
            return torch.zeros(5)

    assert message(CellError, lambda: scan(Bare(2, 5), X)) == (
        "initial(batch) of Bare has h of shape (5,), but a batch of 3 needs (3, 5). "
        "A state has one row for each sequence of the batch."
    )


# ------------------------------------------------------------------------------------------------------------ over all


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_initial_states_and_output_size(example: CellExample, dtype: torch.dtype) -> None:
    cell = example.make(3, 5).to(dtype)
    initial = cell.initial(4)
    states = (initial,) if isinstance(initial, Tensor) else initial
    assert [s.shape for s in states] == [(4, n) for n in cell.state_sizes.values()]
    assert all(s.dtype == dtype for s in states)
    y, last = scan(cell, torch.randn(2, 4, 3, dtype=dtype))
    assert y.shape == (2, 4, cell.output_size) and y.dtype == dtype
    assert [s.shape for s in last] == [s.shape for s in states]


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_calling_a_cell_is_one_step(example: CellExample) -> None:
    cell = example.make(3, 5)
    x, states = torch.randn(4, 3), tuple(torch.randn(4, n) for n in cell.state_sizes.values())
    result = cell(x, *states)
    values = (result,) if isinstance(result, torch.Tensor) else result
    y, last = scan(cell, x[None], states)
    torch.testing.assert_close((values[0], *values[-len(states) :]), (y[0], *last), rtol=0, atol=0)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_a_copy_is_a_cell_of_its_own(example: CellExample) -> None:
    cell = example.make(3, 5)
    twin = copy.deepcopy(cell)
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(scan(twin, x), scan(cell, x), rtol=0, atol=0)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert not torch.equal(scan(twin, x)[0], scan(cell, x)[0])


def test_finding_the_output_size_leaves_no_trace() -> None:
    class Noisy(Cell):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.norm = nn.BatchNorm1d(hidden_size)

        def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            h = self.norm(h + torch.rand_like(h))
            return torch.cat([h, x], -1), h

    cell, before = Noisy(2, 5), torch.get_rng_state()
    assert cell.output_size == 7
    assert torch.equal(torch.get_rng_state(), before)
    assert cell.norm.num_batches_tracked == 0


def test_a_cell_without_parameters_follows_its_input() -> None:
    class Sum(Cell):
        def step(self, x, h):
            return h + x

    y, _ = scan(Sum(2, 2), torch.ones(3, 1, 2, dtype=torch.float64))
    assert y.dtype == torch.float64 and y[-1].tolist() == [[3, 3]]


def test_learned_states_get_gradients() -> None:
    cell = Learned(2, 3)
    scan(cell, torch.randn(4, 5, 2))[0].sum().backward()
    assert cell.h0.grad is not None and cell.h0.grad.abs().min() > 0


# ----------------------------------------------------------------------------------------------------- the public names


def test_every_public_name_is_there() -> None:
    assert set(recurra.__all__) == set(recurra._HOMES)
    missing = [name for name in recurra.__all__ if not hasattr(recurra, name)]
    assert not missing
    assert set(recurra.__all__) <= set(dir(recurra))


def test_scan_and_unroll_are_functions_whatever_was_imported() -> None:
    import recurra.scan
    import recurra.unroll

    assert recurra.scan.__name__ == "scan" and callable(recurra.scan)
    assert recurra.unroll.__name__ == "unroll" and callable(recurra.unroll)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match=re.escape("module 'recurra' has no attribute 'Peephole'")):
        recurra.Peephole  # noqa: B018


def test_every_error_is_a_recurra_error() -> None:
    errors = [getattr(recurra, name) for name in recurra.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(error, recurra.RecurraError) and error.__doc__ for error in errors)
    assert issubclass(recurra.InputError, ValueError)

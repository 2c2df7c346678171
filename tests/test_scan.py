"""The laws of the plain loop, for every cell: a row is a function of its own valid steps and of nothing else."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from checks import alike, flip, numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from examples import CELLS, CellExample, Leaky
from recurra import Cell, CellError, InputError, VariationalDropout, cells, explain, scan, strict, unroll
from recurra.cell import call_with

D, H = 3, 4
over_cells = pytest.mark.parametrize("example", CELLS, ids=str)


def made(example: CellExample, seed: int = 0) -> Cell:
    torch.manual_seed(seed)
    return example.make(D, H).double()


def some_states(cell: Cell, batch: int) -> tuple[Tensor, ...]:
    return tuple(numbers(batch, n, seed=k) for k, n in enumerate(cell.state_sizes.values(), 7))


ragged = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@over_cells
def test_it_is_the_loop(example: CellExample) -> None:
    cell, x = made(example), numbers(5, 2, D)
    states, ys = some_states(cell, 2), []
    y, last = scan(cell, x, states)
    sides = cell.sides(x)
    for t in range(5):
        result = call_with(cell, cell.call_weights(), partial(cell.step, x[t], *(s[t] for s in sides), *states))
        values = (result,) if isinstance(result, Tensor) else result
        ys.append(values[0])
        states = tuple(values[-len(states) :])
    alike(y, torch.stack(ys))
    alike(last, states)


@over_cells
@settings(max_examples=15)
@given(cut=st.integers(0, 6))
def test_cutting_a_sequence_changes_nothing(example: CellExample, cut: int) -> None:
    cell, x = made(example), numbers(6, 2, D)
    whole, last = scan(cell, x)
    first, middle = scan(cell, x[:cut])
    second, end = scan(cell, x[cut:], middle)
    alike(torch.cat([first, second]), whole)
    alike(end, last)


@over_cells
@settings(max_examples=15)
@given(lengths=ragged, reverse=st.booleans())
def test_each_row_runs_alone_over_its_valid_steps(example: CellExample, lengths: list[int], reverse: bool) -> None:
    cell, x = made(example), numbers(5, len(lengths), D)
    states = some_states(cell, len(lengths))
    y, last = scan(cell, x, states, torch.tensor(lengths), reverse)
    for b, n in enumerate(lengths):
        alone, end = scan(cell, x[:n, b : b + 1], tuple(s[b : b + 1] for s in states), reverse=reverse)
        alike(y[:n, b : b + 1], alone)
        alike(tuple(s[b : b + 1] for s in last), end)
    assert all(not y[n:, b].any() for b, n in enumerate(lengths))


@over_cells
@settings(max_examples=15)
@given(lengths=ragged)
def test_reverse_is_forward_over_each_row_flipped(example: CellExample, lengths: list[int]) -> None:
    cell, x, n = made(example), numbers(5, len(lengths), D), torch.tensor(lengths)
    y, last = scan(cell, x, None, n, reverse=True)
    flipped, end = scan(cell, flip(x, lengths), None, n)
    alike(flip(flipped, lengths), y)
    alike(end, last)


@over_cells
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("filling", [float("nan"), float("inf"), 1e30])
def test_padding_changes_no_result_and_no_gradient(example: CellExample, reverse: bool, filling: float) -> None:
    lengths = torch.tensor([2, 0, 5, 3])
    padding = (torch.arange(5)[:, None] >= lengths)[..., None]
    results = []
    for value in (0.0, filling):
        cell = made(example)
        x = numbers(5, 4, D).masked_fill(padding, value).requires_grad_()
        y, last = scan(cell, x, None, lengths, reverse)
        (y.square().sum() + sum(s.square().sum() for s in last)).backward()
        results.append((y, last, x.grad, [p.grad for p in cell.parameters()]))
        assert x.grad is not None and not x.grad[padding.expand_as(x)].any()
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@over_cells
@pytest.mark.parametrize("lengths", [None, torch.tensor([0, 0])])
def test_no_steps(example: CellExample, lengths: Tensor | None) -> None:
    cell = made(example)
    states = some_states(cell, 2)
    y, last = scan(cell, numbers(0, 2, D), states, lengths)
    assert y.shape == (0, 2, cell.output_size) and y.dtype == torch.float64
    alike(last, states)
    y, last = scan(cell, numbers(3, 2, D), states, torch.tensor([0, 0]))
    assert y.shape == (3, 2, cell.output_size) and not y.any()
    alike(last, states)


@over_cells
def test_no_rows(example: CellExample) -> None:
    cell = made(example)
    for lengths in (None, torch.zeros(0, dtype=torch.long)):
        y, last = scan(cell, numbers(3, 0, D), None, lengths)
        assert y.shape == (3, 0, cell.output_size)
        assert [s.shape for s in last] == [(0, n) for n in cell.state_sizes.values()]


@over_cells
@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives(example: CellExample, reverse: bool) -> None:
    cell = made(example)
    names = [name for name, _ in cell.named_parameters()]
    lengths = torch.tensor([3, 0, 1])

    def run(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        states, weights = others[: len(cell.state_sizes)], others[len(cell.state_sizes) :]
        with torch.nn.utils.stateless._reparametrize_module(cell, dict(zip(names, weights, strict=True))):
            y, last = scan(cell, x, states, lengths, reverse)
        return (y, *last)

    leaves = [numbers(3, 3, D), *some_states(cell, 3), *(p.detach() for p in cell.parameters())]
    if "relu" in example.name:
        leaves = [t + 0.05 for t in leaves]  # away from the corner
    inputs = [t.clone().requires_grad_() for t in leaves]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True, check_forward_ad=True, check_backward_ad=False)


@over_cells
def test_vmap_over_data(example: CellExample) -> None:
    cell, x, lengths = made(example), numbers(2, 4, 3, D), torch.tensor([4, 0, 2])
    y, _ = torch.func.vmap(lambda one: scan(cell, one, None, lengths))(x)
    alike(y, torch.stack([scan(cell, one, None, lengths)[0] for one in x]))


# ------------------------------------------------------------------------------------------------------------ bad input

X = torch.zeros(5, 3, D)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (
            torch.zeros(5, 3, 7),
            "x has the shape (5, 3, 7), but GRU takes (T, B, 3). "
            "Give x a last axis of 3, or make the cell with input_size=7.",
        ),
        (torch.zeros(5, 3), "x has the shape (5, 3), but GRU takes (T, B, 3). Give x 3 axes, not 2."),
        (torch.zeros(()), "x has the shape (), but GRU takes (T, B, 3). Give x 3 axes, not 0."),
        (torch.zeros(1, 5, 3, D), "x has the shape (1, 5, 3, 3), but GRU takes (T, B, 3). Give x 3 axes, not 4."),
        (torch.zeros(5, 3, 0), "x has the shape (5, 3, 0), but GRU takes (T, B, 3). Give x a last axis of 3."),
        (np.zeros((5, 3, D)), "x is an ndarray, but GRU takes a tensor. Pass torch.as_tensor(x)."),
        (
            torch.zeros(5, 3, D).to_sparse(),
            "x has the layout torch.sparse_coo, but GRU takes a dense tensor. Pass x.to_dense().",
        ),
        (
            torch.zeros(5, 3, D, dtype=torch.complex64),
            "x has the dtype torch.complex64, but the weights of GRU are torch.float32. "
            "Convert one of them: x.to(torch.float32).",
        ),
    ],
)
def test_inputs_that_do_not_fit(x: Tensor, told: str) -> None:
    with pytest.raises(InputError) as caught:
        scan(cells.GRU(D, H), x)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ([5, 9, 1], "lengths[1] is 9, but x has 5 steps. Pad x to 9 steps, or give lengths of at most 5."),
        ([5, 6, 9], "lengths[1] is 6, but x has 5 steps. Pad x to 9 steps, or give lengths of at most 5."),
        ([5, 1, -1], "lengths[2] is -1. A length is at least 0."),
        ([5, 1], "lengths has the shape (2,), but x holds 3 sequences. Pass one length for each."),
        ([[5, 1, 2]], "lengths has the shape (1, 3), but x holds 3 sequences. Pass one length for each."),
        ([5.0, 1, 2], "lengths has the dtype torch.float32, but counts steps. Pass whole numbers: lengths.long()."),
        ([True] * 3, "lengths has the dtype torch.bool, but counts steps. Pass whole numbers: lengths.long()."),
        (
            torch.ones(3, dtype=torch.long, device="meta"),
            "lengths is on the meta device and has no numbers, but how many steps run depends on them. "
            "Pass lengths on the CPU.",
        ),
        (
            torch.ones(3, dtype=torch.long).to_sparse(),
            "lengths has the layout torch.sparse_coo, but how many steps run depends on them. Pass lengths.to_dense().",
        ),
    ],
)
def test_lengths_that_do_not_fit(lengths: list[int] | Tensor, told: str) -> None:
    with pytest.raises(InputError) as caught:
        scan(cells.GRU(D, H), X, lengths=torch.as_tensor(lengths))
    assert str(caught.value) == told


@pytest.mark.parametrize("run", [scan, unroll])
def test_lengths_that_vmap_maps_are_refused(run: Any) -> None:
    cell, marks = cells.GRU(D, H), torch.zeros(2, 5, 3, dtype=torch.bool)
    for call, mapped, told in (
        (
            lambda n: run(cell, X, lengths=n)[0],
            torch.ones(2, 3, dtype=torch.long),
            "lengths differs from call to call of",
        ),
        (lambda m: run(cell, X, lengths=[1, 2, 3], resets=m)[0], marks, "resets differs from call to call of"),
    ):
        with pytest.raises(InputError, match=f"{told} torch.func.vmap, but .*. Make the mapped axis a part of the bat"):
            torch.func.vmap(call)(mapped)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (
            (torch.zeros(3, H),),
            "the given state of LSTM is 1 value, but its states are h, c: give one tensor for each.",
        ),
        (
            7,
            "the given state of LSTM is an int, but its states are h, c: give one tensor for each.",
        ),
        (
            (torch.zeros(3, H).to_sparse(), torch.zeros(3, H)),
            "the given state of LSTM has h in the layout torch.sparse_coo, but a state is a dense tensor. "
            "Make it one: h.to_dense().",
        ),
        (
            {"h": 1},
            "the given state of LSTM is a dict, but its states are h, c: give one tensor for each.",
        ),
        (
            (torch.zeros(3, H), torch.zeros(2, H)),
            "the given state of LSTM has c of shape (2, 4), but a batch of 3 needs (3, 4). "
            "A state has one row for each sequence of the batch.",
        ),
    ],
)
def test_states_that_do_not_fit(states: tuple[Tensor, ...], told: str) -> None:
    with pytest.raises(InputError) as caught:
        scan(cells.LSTM(D, H), X, states)
    assert str(caught.value) == told


def test_a_step_that_goes_wrong_later_is_told_too() -> None:
    class Later(Leaky):
        def step(self, x: Tensor, h: Tensor) -> Tensor:
            return h if x.sum() == 0 else h[:, :1]

    x = X.clone()
    x[3] = 1
    with pytest.raises(CellError, match=r"Later.step received h \(3, 4\) but returned h \(3, 1\)"):
        scan(Later(D, H), x)


def test_a_dtype_that_is_not_the_weights_is_told() -> None:
    cell = cells.GRU(3, 4)
    for x, h, message in (
        (torch.ones(2, 1, 3, dtype=torch.int64), None, "x has the dtype torch.int64, but the weights of GRU are"),
        (torch.ones(2, 1, 3), (torch.ones(1, 4).half(),), "state h has the dtype torch.float16, but the weights"),
    ):
        with pytest.raises(InputError, match=message):
            scan(cell, x, h)
        with strict(), pytest.raises(InputError, match=message):
            unroll(cell, x, h)


@pytest.mark.parametrize("run", [scan, unroll])
def test_a_weight_of_another_shape_is_told(run: Any) -> None:
    """Whether a parameter of the cell itself or that of a Linear inside, and inside a wrapper too."""
    remedy = "Give it a weight of that shape, or make the cell with other widths."
    lstm, mine, wrapped = cells.LSTM(D, H), Leaky(D, H), VariationalDropout(cells.LSTM(D, H), x=0.1)
    for cell in (lstm, wrapped.inner):
        cell.weight_hh = nn.Parameter(torch.zeros(16, 5))
    mine.w.weight = nn.Parameter(torch.zeros(9, D))
    for cell in (lstm, wrapped):
        with pytest.raises(CellError) as caught:
            run(cell, X)
        told = "weight_hh of LSTM has the shape (16, 5), but input_size=3 and hidden_size=4 need (16, 4). "
        assert str(caught.value) == told + remedy
    with pytest.raises(CellError) as caught:
        run(mine, X)
    assert str(caught.value) == "w.weight of Leaky has the shape (9, 3), but Linear(3, 4) needs (4, 3). " + remedy


def test_complex_weights_run_as_written_and_take_complex_rows() -> None:
    cell, x = cells.LSTM(D, H).to(torch.complex64), torch.randn(5, 3, D, dtype=torch.complex64, requires_grad=True)
    told = explain(cell, x)
    assert told.executors == ("scan",) and "the weights are torch.complex64, and programs run in float32" in str(told)
    y, last = unroll(cell, x)
    expected, end = torch.nn.LSTM(D, H).to(torch.complex64), None
    expected.load_state_dict({f"{name}_l0": p for name, p in cell.named_parameters()})
    theirs, end = expected(x)
    torch.testing.assert_close((y, last), (theirs, tuple(s[0] for s in end)))
    with pytest.raises(InputError) as caught:
        unroll(cell, x.real)
    assert str(caught.value) == (
        "x has the dtype torch.float32, but the weights of LSTM are torch.complex64. "
        "Convert one of them: x.to(torch.complex64)."
    )

"""Resets: a row whose marks say where new sequences begin is what each of its sequences is alone, to the last bit."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from checks import contracting, filled, random_lengths, weighed
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample, Learned, Nudged, Peephole
from recurra import Cell, InputError, Recurrent, cells, scan, unroll
from recurra.cell import resetting
from recurra.unroll import explain
from recurra.unroll.compiled import find

pytestmark = pytest.mark.usefixtures("strict")  # a fall-back to scan is an error here
States = tuple[Tensor, ...]
T, B, D = 11, 5, 3
over_cells = pytest.mark.parametrize("example", CELLS, ids=str)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
ragged = pytest.mark.parametrize("ragged", [False, True], ids=["whole", "lengths"])


def marks_within(lengths: Sequence[int], steps: int = T, often: float = 0.3) -> Tensor:
    """Random marks (T, B), none past a length; one row has a mark at every step, one none."""
    marks = torch.rand(steps, len(lengths)) < often
    marks[:, 0], marks[:, -1] = True, False
    return marks & (torch.arange(steps)[:, None] < torch.tensor(lengths))


def pieces(marks: Tensor, b: int, n: int) -> list[tuple[int, int]]:
    """(first step, end) of the sequences of a row of n steps, in order; the first may be one that went on."""
    starts = sorted({0, *(int(t) for t in marks[:n, b].nonzero())})
    return list(zip(starts, [*starts[1:], n], strict=True))


Result = tuple[Tensor, States]


def by_pieces(
    run: Callable[..., Result],
    cell: Cell,
    x: Tensor,
    states: States,
    lengths: Sequence[int],
    reverse: bool,
    marks: Tensor,
) -> tuple[list[Tensor], States]:
    """What resets mean: separate calls. Each row's outputs up to its length, and the last states."""
    ys, lasts = [], []
    for b, n in enumerate(lengths):
        given: States | None = tuple(s[b : b + 1] for s in states)
        if marks[:1, b].any() and not reverse:
            given = None
        parts = pieces(marks, b, n)
        found = []
        for lo, hi in reversed(parts) if reverse else parts:
            y, given_on = run(cell, x[lo:hi, b : b + 1], given, None, reverse)
            found.append(y[:, 0])
            given, last = None, given_on
        ys.append(torch.cat(found[::-1] if reverse else found))
        lasts.append(last)
    return ys, tuple(torch.cat(s) for s in zip(*lasts, strict=True))


def made(example: CellExample, dtype: torch.dtype) -> tuple[Cell, Tensor, States]:
    cell = contracting(example.make(D, 6)).to(dtype)
    x = torch.randn(T, B, D, dtype=dtype)
    return cell, x, tuple(torch.randn(B, n, dtype=dtype) for n in cell.state_sizes.values())


# -------------------------------------------------------------------------------------------------- separate calls


@over_cells
@both_ways
@ragged
def test_the_same_bits_as_separate_calls(example: CellExample, reverse: bool, ragged: bool) -> None:
    for dtype in (torch.float32, torch.float64):
        cell, x, states = made(example, dtype)
        lengths = random_lengths(T, B) if ragged else torch.full((B,), T)
        marks = marks_within(lengths.tolist())
        with torch.no_grad():
            y, last = unroll(cell, x, states, lengths if ragged else None, reverse, resets=marks)
            ys, ends = by_pieces(unroll, cell, x, states, lengths.tolist(), reverse, marks)
        for b, n in enumerate(lengths.tolist()):
            assert torch.equal(y[:n, b], ys[b]) and not y[n:, b].any()
        for mine, alone in zip(last, ends, strict=True):
            assert torch.equal(mine, alone)


def gradients(cell: Cell, leaves: Sequence[Tensor], rows: Sequence[Tensor], last: States) -> list[Tensor]:
    """Of every leaf and parameter, for one loss of the rows' outputs and of the last states."""
    wanted = [*leaves, *cell.parameters()]
    return filled(wanted, torch.autograd.grad(weighed(*rows, *last), wanted, allow_unused=True))


@over_cells
@both_ways
@ragged
def test_the_gradients_of_separate_calls(example: CellExample, reverse: bool, ragged: bool) -> None:
    """Of x, of the states given (nothing passes a reset), of learned first states, of every weight; and scan agrees."""
    cell, x, states = made(example, torch.float64)
    leaves = [t.requires_grad_() for t in (x, *states)]
    lengths = random_lengths(T, B).tolist() if ragged else [T] * B
    marks = marks_within(lengths)
    alone = gradients(cell, leaves, *by_pieces(scan, cell, x, states, lengths, reverse, marks))
    for run in (unroll, scan):
        y, last = run(cell, x, states, torch.tensor(lengths) if ragged else None, reverse, resets=marks)
        rows = [y[:n, b] for b, n in enumerate(lengths)]
        for mine, theirs in zip(gradients(cell, leaves, rows, last), alone, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("example", LAYERS, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_every_layer_runs_each_sequence_alone(example: LayerExample, batch_first: bool) -> None:
    """Both directions included: padded, packed and one row at a time."""
    layer = example.make(D, batch_first).double()
    x, lengths = torch.randn(T, B, D, dtype=torch.double), [T, 4, 7, 1, 9]
    marks = marks_within(lengths)

    def layout(t: Tensor) -> Tensor:
        return t.transpose(0, 1) if batch_first else t

    y, last = layer(layout(x), lengths=lengths, resets=layout(marks))
    packed = pack_padded_sequence(layout(x), torch.tensor(lengths), batch_first, enforce_sorted=False)
    of_packed, last_packed = layer(packed, resets=layout(marks))
    torch.testing.assert_close(pad_packed_sequence(of_packed, batch_first)[0], y)
    torch.testing.assert_close(last_packed, last)
    y = layout(y)
    for b, n in enumerate(lengths):
        alone, _ = layer(x[:n, b], resets=marks[:n, b])
        torch.testing.assert_close(y[:n, b], alone)
        for lo, hi in pieces(marks, b, n):
            torch.testing.assert_close(y[lo:hi, b], layer(x[lo:hi, b])[0])


@both_ways
def test_a_sequence_that_goes_on_from_an_earlier_chunk(reverse: bool) -> None:
    """Chunks with the state carried over and marks of their own are the whole with all the marks."""
    cell, x, states = made(CELLS[-1], torch.float32)
    marks = marks_within([T] * B)
    y, last = unroll(cell, x, states, None, reverse, resets=marks)
    ys, carried = [], states
    cuts = [(0, 4), (4, 5), (5, T)]
    for lo, hi in cuts[::-1] if reverse else cuts:
        if reverse and hi < T:  # what a chunk begins with, going backwards, ends at the mark of the chunk before it
            first = tuple(s.expand_as(c) for s, c in zip(_initial(cell), carried, strict=True))
            carried = tuple(torch.where(marks[hi][:, None], f, c) for f, c in zip(first, carried, strict=True))
        part, carried = unroll(cell, x[lo:hi], carried, None, reverse, resets=marks[lo:hi])
        ys.append(part)
    assert torch.equal(torch.cat(ys[::-1] if reverse else ys), y)
    assert all(torch.equal(a, b) for a, b in zip(carried, last, strict=True))


def _initial(cell: Cell) -> States:
    first = cell.initial(1)
    return (first,) if isinstance(first, Tensor) else first


# ----------------------------------------------------------------------------------------------- what must not pass


@pytest.mark.parametrize("make", [cells.GRU, Learned, Peephole])
def test_what_is_not_finite_before_a_reset_stays_there(make: Callable[[int, int], Cell]) -> None:
    cell = make(D, 4).double()
    x = torch.randn(6, 2, D, dtype=torch.double)
    x[2, 0], x[1, 1] = float("nan"), float("inf")
    x.requires_grad_()
    marks = torch.zeros(6, 2, dtype=torch.bool)
    marks[3] = True
    states = tuple(torch.full((2, n), float("nan"), dtype=torch.double) for n in cell.state_sizes.values())
    for run in (unroll, scan):
        y, last = run(cell, x, states, resets=marks)
        alone, end = run(cell, x[3:])
        assert torch.equal(y[3:], alone) and all(torch.equal(a, b) for a, b in zip(last, end, strict=True))
        assert not y[:3].isfinite().all()
        ours, theirs = (torch.autograd.grad(r.sum(), x, retain_graph=True)[0][3:] for r in (y[3:], alone))
        assert bool(ours.isfinite().all())
        torch.testing.assert_close(ours, theirs)


def test_no_gradient_passes_a_reset() -> None:
    cell, x, states = made(CELLS[0], torch.float64)
    given = tuple(s.requires_grad_() for s in states)
    x.requires_grad_()
    marks = torch.zeros(T, B, dtype=torch.bool)
    marks[4] = True
    y, _ = unroll(cell, x, given, resets=marks)
    d_x, *d_given = torch.autograd.grad(y[4:].sum(), [x, *given])
    assert not d_x[:4].any() and bool(d_x[4:].all()) and not any(bool(d.any()) for d in d_given)
    y, _ = unroll(cell, x, None, None, True, resets=marks)
    (d_x,) = torch.autograd.grad(y[:4].sum(), x)
    assert bool(d_x[:4].all()) and not d_x[4:].any()


# ---------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("make", [cells.LSTM, Learned, lambda D, H: Nudged(Learned(D, H))])
@both_ways
def test_every_derivative(make: Callable[[int, int], Cell], reverse: bool) -> None:
    cell = make(2, 2).double()
    names = [name for name, _ in cell.named_parameters()]
    marks = torch.tensor([[False, True], [True, False], [False, False], [False, True]])

    class Scanned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Result:
            return scan(self.cell, x, None, None, reverse, resets=marks)

    def call(x: Tensor, *weights: Tensor, run: object = unroll) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        if run is unroll:
            y, last = unroll(cell, x, None, None, reverse, named, resets=marks)
        else:
            y, last = functional_call(Scanned(), {f"cell.{k}": w for k, w in named.items()}, (x,))
        return torch.cat([t.reshape(-1) for t in (y, *last)])

    def by_scan(*at: Tensor) -> Tensor:
        return call(*at, run=scan)

    at = tuple(t.detach().clone() for t in (torch.randn(4, 2, 2, dtype=torch.double), *cell.parameters()))
    tracked = [t.clone().requires_grad_() for t in at]
    assert gradcheck(call, tracked, fast_mode=True) and gradgradcheck(call, tracked, fast_mode=True)
    along = tuple(torch.randn_like(t) for t in at)
    torch.testing.assert_close(jvp(call, at, along), jvp(by_scan, at, along))
    many = tuple(torch.stack([t, 2 * t]) for t in at)
    torch.testing.assert_close(vmap(call)(*many), vmap(by_scan)(*many))
    each = vmap(grad(lambda *a: call(*a).square().sum()))(*many)
    torch.testing.assert_close(each, vmap(grad(lambda *a: by_scan(*a).square().sum()))(*many))


# ------------------------------------------------------------------------------------------------- traces and copies


def test_resets_are_traced_once_and_leave_the_trace_without_them_alone() -> None:
    layer, x = Recurrent(Peephole(D, 4)), torch.randn(T, B, D)
    layer(x)
    plain = find(layer.cell, None)[0]
    names = [name for name, _ in layer.named_modules()]
    for often in (0.0, 0.5):
        layer(x, resets=torch.rand(T, B) < often)
    with_resets = find(resetting(layer.cell), None)[0]
    layer(x, resets=torch.rand(T, B) < 0.2)
    assert find(layer.cell, None)[0] is plain and find(resetting(layer.cell), None)[0] is with_resets
    assert [name for name, _ in layer.named_modules()] == names and "cell.wx.weight" in layer.state_dict()
    told = str(explain(layer, x, resets=torch.zeros(T, B, dtype=torch.bool)))
    assert told.startswith("Peephole (input 3; states h 4, c 4), T = 11, B = 5: native machine")


START = 0.5


class StartsSomewhere(Learned):
    """Its first state reads a global variable."""

    def initial(self, batch: int) -> Tensor:
        return super().initial(batch) + START


def test_what_initial_reads_is_part_of_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x, marks = StartsSomewhere(D, 4), torch.randn(T, B, D), torch.rand(T, B) < 0.3
    before = unroll(cell, x, resets=marks)[0]
    monkeypatch.setattr(f"{__name__}.START", 1.0)
    after = unroll(cell, x, resets=marks)[0]
    torch.testing.assert_close(after, scan(cell, x, resets=marks)[0])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_has_resets_of_its_own(duplicate: Callable[[Any], Any]) -> None:
    cell, x, marks = cells.GRU(D, 4), torch.randn(T, B, D), torch.rand(T, B) < 0.3
    before = unroll(cell, x, resets=marks)[0]
    other = duplicate(cell)
    assert torch.equal(unroll(other, x, resets=marks)[0], before) and resetting(other).inner is other
    other._parameters = {name: nn.Parameter(2 * p) for name, p in cell.named_parameters()}
    assert torch.equal(unroll(other, x, resets=marks)[0], scan_close(other, x, marks, before))
    assert torch.equal(unroll(cell, x, resets=marks)[0], before)


def scan_close(cell: Cell, x: Tensor, marks: Tensor, other: Tensor) -> Tensor:
    """The outputs, seen to be scan's and not `other`."""
    y = unroll(cell, x, resets=marks)[0]
    torch.testing.assert_close(y, scan(cell, x, resets=marks)[0])
    assert not torch.equal(y, other)
    return y


def test_no_steps_and_no_rows() -> None:
    layer = Recurrent(cells.GRU(D, 4))
    for steps, batch in ((0, 2), (3, 0), (0, 0)):
        x, marks = torch.randn(steps, batch, D), torch.zeros(steps, batch, dtype=torch.bool)
        for reverse in (False, True):
            y, h = layer(x, reverse=reverse, resets=marks)
            assert y.shape == (steps, batch, 4) and h.shape == (batch, 4)


@pytest.mark.parametrize("run", [unroll, scan])
def test_what_is_not_a_number_before_a_mark_reaches_the_weights_gradients_alone(run: Callable[..., Result]) -> None:
    """As docs/layers.md says: those of x and of the outputs behind the mark are finite; 0 times NaN is NaN in a sum."""
    cell, x, marks = cells.GRU(D, 4), torch.randn(5, 2, D), torch.zeros(5, 2, dtype=torch.bool)
    marks[3, 0], x[1, 0] = True, torch.nan
    for cleared in (False, True):
        given = (x.nan_to_num() if cleared else x).requires_grad_()
        y, _ = run(cell, given, resets=marks)
        assert y[3:].isfinite().all() and y[:, 1].isfinite().all()
        dx, *dw = torch.autograd.grad(y[3:].sum(), [given, *cell.parameters()])
        assert dx[3:].isfinite().all() and dx[:, 1].isfinite().all()
        assert all(bool(d.isfinite().all()) is cleared for d in dw)


# ------------------------------------------------------------------------------------------------------- bad input


def told(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


LAYER_OF_EACH_KIND = [lambda b: Recurrent(cells.GRU(D, 4), b), lambda b: recurra.LSTM(D, 4, batch_first=b)]
one_of_each = pytest.mark.parametrize("make", LAYER_OF_EACH_KIND, ids=["Recurrent", "LSTM"])


@one_of_each
def test_marks_that_do_not_fit(make: Callable[[bool], nn.Module]) -> None:
    x, marks = torch.randn(5, 2, D), torch.zeros(5, 2, dtype=torch.bool)
    layer, batch_first = make(False), make(True)
    assert told(lambda: layer(x, resets=marks.t())) == (
        "resets has the shape (2, 5), but x has 5 steps of 2 sequences. Give one mark for each: (T, B) = (5, 2)."
    )
    assert told(lambda: layer(x, resets=marks.long())) == (
        "resets has the dtype torch.int64, but marks steps by yes and no. Pass resets.bool()."
    )
    assert told(lambda: layer(x, resets="no")) == (
        "resets is a str, but marks steps. Pass a tensor (T, B) of truth values."
    )
    assert told(lambda: layer(x[:, 0], resets=marks)) == (
        "resets has the shape (5, 2), but x has 5 steps of 1 sequence. Give one mark for each: (T) = (5,)."
    )
    assert told(lambda: batch_first(x, resets=marks.t())) == (
        "resets has the shape (2, 5), but x has 2 steps of 5 sequences. Give one mark for each: (B, T) = (5, 2)."
    )


@pytest.mark.parametrize("run", [unroll, scan])
def test_marks_without_memory(run: Callable[..., Result]) -> None:
    x, marks = torch.randn(5, 2, D), torch.zeros(5, 2, dtype=torch.bool, device="meta")
    assert told(lambda: run(cells.GRU(D, 4), x, resets=marks)) == (
        "resets is on the meta device and has no marks, but x has numbers. Make resets where x is."
    )
    assert told(lambda: run(cells.GRU(D, 4), x, lengths=[1, 2], resets=marks)) == (
        "resets is on the meta device and has no numbers, but no mark may lie past a row's length. "
        "Pass resets on the CPU."
    )


@pytest.mark.parametrize("run", [unroll, scan])
def test_a_mark_past_the_end_of_a_row(run: Callable[..., Result]) -> None:
    x, marks = torch.randn(5, 2, D), torch.zeros(5, 2, dtype=torch.bool)
    marks[3, 1] = True
    assert told(lambda: run(cells.GRU(D, 4), x, None, torch.tensor([5, 3]), resets=marks)) == (
        "resets begins a sequence at step 3 of row 1, but lengths[1] is 3, where the row has ended. "
        "Clear what lies past it: resets[3:, 1] = False."
    )


@one_of_each
def test_a_mark_past_the_end_is_told_in_the_layout_of_the_layer(make: Callable[[bool], nn.Module]) -> None:
    x, marks = torch.randn(2, 5, D), torch.zeros(2, 5, dtype=torch.bool)
    marks[1, 3] = True
    layer = make(True)
    packed = pack_padded_sequence(x, torch.tensor([3, 5]), True, enforce_sorted=False)
    line = "resets begins a sequence at step 3 of row {0}, but lengths[{0}] is 3, where the row has ended. "
    remedy = "Clear what lies past it: resets[{0}, 3:] = False."
    assert told(lambda: layer(x, lengths=[5, 3], resets=marks)) == (line + remedy).format(1)
    assert told(lambda: layer(packed, resets=marks.flip(0))) == (line + remedy).format(0)
    assert told(lambda: layer(x[1], lengths=3, resets=marks[1])) == (
        line.format(0) + "Clear what lies past it: resets[3:] = False."
    )


@pytest.mark.parametrize("run", [unroll, scan])
def test_other_arguments_are_told_in_the_cells_own_name(run: Callable[..., Result]) -> None:
    cell, marks = cells.GRU(D, 4), torch.zeros(5, 2, dtype=torch.bool)
    assert told(lambda: run(cell, torch.randn(5, 2, 7), resets=marks)).startswith(
        "x has the shape (5, 2, 7), but GRU takes (T, B, 3)."
    )
    assert told(lambda: run(cell, torch.randn(5, 2, 3), (torch.zeros(2, 5),), resets=marks)).startswith(
        "the given state of GRU has h of shape (2, 5)"
    )

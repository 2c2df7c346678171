"""The same bits: the result of a row depends on no thread, no other row, and no way of cutting the sequence.

Each output of a product is one chain of multiply-adds over k in order, whatever the number of rows, whether weights are
packed or read in place; so every equality here is torch.equal.
"""

import copy
import functools
from dataclasses import dataclass

import pytest
import torch
from checks import needs_machine
from torch import Tensor

import recurra
from examples import CELLS, CellExample
from recurra import Cell, InputError, strict
from recurra.unroll import visits

pytestmark = [
    needs_machine,
    pytest.mark.usefixtures("strict"),
]

DTYPES = [pytest.param(d, id=str(d)[6:]) for d in (torch.float32, torch.float64)]
# T, B, H: from one row, whose weights are read in place, to chunks of rows, panels packed by two threads, and odd edges
SIZES = [(1, 1, 250), (12, 33, 37), (3, 17, 250)]
D = 7
States = tuple[Tensor, ...]
Result = tuple[Tensor, States]


@dataclass(frozen=True)
class Case:
    cell: Cell
    x: Tensor
    states: States

    def run(self, T: slice = slice(None), B: slice = slice(None), states: States | None = None) -> Result:
        """Some steps of some rows."""
        given = tuple(s[B] for s in self.states) if states is None else states
        with torch.no_grad(), visits() as seen:
            found = recurra.unroll(self.cell, self.x[T, B], given)
        assert [v.executor for v in seen] == ["native machine"]
        return found


@pytest.fixture(params=SIZES, ids=lambda s: "T{}-B{}-H{}".format(*s))
def size(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@functools.cache
def _cell(example: CellExample, H: int, dtype: torch.dtype) -> Cell:
    """One cell for all tests, traced once; no test writes to it."""
    return example.make(D, H).to(dtype)


@pytest.fixture(params=CELLS, ids=str)
def case(request: pytest.FixtureRequest, size: tuple[int, int, int], dtype: torch.dtype) -> Case:
    example: CellExample = request.param
    T, B, H = size
    cell = _cell(example, H, dtype)
    states = tuple(torch.randn(B, n, dtype=dtype) for n in cell.state_sizes.values())
    return Case(cell, torch.randn(T, B, D, dtype=dtype), states)


def assert_equal(a: Result, b: Result) -> None:
    assert bool(a[0].isfinite().all())
    for mine, other in zip((a[0], *a[1]), (b[0], *b[1]), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.tsan
def test_one_thread_and_two(case: Case) -> None:
    torch.set_num_threads(2)
    two = case.run()
    torch.set_num_threads(1)
    assert_equal(case.run(), two)


def test_a_row_alone_and_in_a_batch(case: Case) -> None:
    y, last = case.run()
    B = case.x.shape[1]
    for part in (slice(0, 1), slice(B // 2, B // 2 + 1), slice(B - 1, B), slice(0, B - B // 3), slice(B // 5, B)):
        assert_equal(case.run(B=part), (y[:, part], tuple(s[part] for s in last)))


def test_step_by_step_and_in_chunks(case: Case) -> None:
    whole, T = case.run(), len(case.x)
    for cuts in (range(T + 1), sorted({0, 1, min(8, T), T})):
        states, ys = case.states, []
        for a, b in zip(cuts, [*cuts][1:]):
            y, states = case.run(T=slice(a, b), states=states)
            ys.append(y)
        assert_equal((torch.cat(ys), states), whole)


def test_a_session(case: Case) -> None:
    whole = case.run()
    state = case.states if len(case.states) > 1 else case.states[0]
    if case.cell.side_sizes or case.cell.call_weights():
        with pytest.raises(InputError, match=r"and a session (has x alone|is one call without end)"):
            recurra.Session(recurra.Recurrent(case.cell), state=state)
        return
    session = recurra.Session(recurra.Recurrent(case.cell), state=state)
    ys = torch.stack([session.step(x).clone() for x in case.x])
    last = session.state
    assert_equal((ys, last if isinstance(last, tuple) else (last,)), whole)


@pytest.mark.parametrize("reverse", [False, True])
def test_padded_and_each_row_alone(case: Case, reverse: bool) -> None:
    T, B, _ = case.x.shape
    lengths = torch.randint(0, T + 1, (B,))
    lengths[0], lengths[B // 2], lengths[-1] = T, T // 2, max(T - 1, 1)
    with torch.no_grad():
        y, last = recurra.unroll(case.cell, case.x, case.states, lengths, reverse)
        for row in sorted({0, B // 2, B // 3, B - 1} - set((lengths == 0).nonzero().flatten().tolist())):
            n, part = int(lengths[row]), slice(row, row + 1)
            alone = recurra.unroll(case.cell, case.x[:n, part], tuple(s[part] for s in case.states), None, reverse)
            assert_equal((y[:n, part], tuple(s[part] for s in last)), alone)
            assert not bool(y[n:, part].any())


def gradients(case: Case) -> list[Tensor]:
    """Outputs and last states of a training step, then all its gradients."""
    x, states = case.x.clone().requires_grad_(), tuple(s.clone().requires_grad_() for s in case.states)
    lengths = torch.arange(case.x.shape[1]) % (len(case.x) + 1)
    lengths[-1] = len(case.x)
    y, last = recurra.unroll(case.cell, x, states, lengths)
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() + sum(s.sum() for s in last)
    found = torch.autograd.grad(loss, [x, *states, *case.cell.parameters()], allow_unused=True)
    return [*(t.detach() for t in (y, *last)), *(d for d in found if d is not None)]


def test_training_and_not_and_training_again(case: Case) -> None:
    first = gradients(case)
    for _ in range(2):
        again = gradients(case)
        assert len(again) == len(first)
        for a, b in zip(again, first, strict=True):
            assert torch.equal(a, b)
    lengths = torch.arange(case.x.shape[1]) % (len(case.x) + 1)
    lengths[-1] = len(case.x)
    with torch.no_grad():
        y, last = recurra.unroll(case.cell, case.x, case.states, lengths)
    for a, b in zip((y, *last), first, strict=False):
        assert torch.equal(a, b)


def test_strides_and_addresses_do_not_matter(case: Case) -> None:
    """Inputs and weights that begin anywhere and whose rows lie apart."""
    wide = torch.randn(*case.x.shape[:2], D + 3, dtype=case.x.dtype)
    wide[..., 1:-2] = case.x
    with strict(), torch.no_grad():
        expected = recurra.unroll(case.cell, case.x, case.states, None, True)
        assert_equal(recurra.unroll(case.cell, wide[..., 1:-2], case.states, None, True), expected)
        cell = copy.deepcopy(case.cell)
        for p in cell.parameters():
            shape = (*p.shape[:-1], p.shape[-1] + 3)
            wide = torch.randn(shape, dtype=p.dtype)
            wide[..., 1:-2] = p
            p.data = wide[..., 1:-2]
        assert_equal(recurra.unroll(cell, case.x, case.states, None, True), expected)

"""Derivatives of derivatives on the native machine: those of the same program in PyTorch, of any order."""

from collections.abc import Iterable, Sequence
from copy import deepcopy

import pytest
import torch
from steps import STEPS, Step
from torch import Tensor, nn

import recurra
from examples import CELLS, CellExample
from recurra import Cell, StrictError, unroll
from recurra.machine.operands import Unsupported
from recurra.machine.plain import PlainExecutor
from recurra.passes import backward_of, compile_step, history, reverse, split
from recurra.program.layout import Layout
from recurra.scan import scan
from recurra.unroll import explain, function, second
from recurra.unroll.rows import earlier
from recurra.unroll.second import Second

CASES = {
    "whole": (None, False),
    "reversed": (None, True),
    "lengths": ([1, 0, 4, 2], False),
    "lengths reversed": ([4, 2, 0, 2], True),
}
Given = Sequence[Tensor | None]


@pytest.fixture
def machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may go through PyTorch."""

    def refused(*_: object) -> None:
        raise AssertionError("the program was run in PyTorch")

    monkeypatch.setattr(function, "run_in_pytorch", refused)


def drawn(cell: Cell, T: int = 4, B: int = 4) -> list[Tensor]:
    """x, then first states, of the cell's dtype."""
    like = next(cell.parameters(), torch.empty(0, dtype=torch.double))
    sizes = [(T, B, cell.input_size), *[(B, n) for n in cell.state_sizes.values()]]
    return [torch.randn(size, dtype=torch.double).to(like.dtype).requires_grad_() for size in sizes]


def derivatives(
    cell: Cell, given: Given, lengths: list[int] | None = None, reverse: bool = False, order: int = 2, run=unroll
) -> list[Tensor]:
    """Gradients of every order up to `order`, of all that was given, all weights and all cotangents."""
    numbers = torch.Generator().manual_seed(0)

    def like(values: Iterable[Tensor]) -> list[Tensor]:
        return [torch.randn(v.shape, dtype=torch.double, generator=numbers).to(v.dtype) for v in values]

    x, *states = given
    first = None if None in states else tuple(states)
    y, last = run(cell, x, first, None if lengths is None else torch.tensor(lengths), reverse)
    values, found = [y, *last], []
    leaves = [t for t in (x, *(first or ()), *cell.parameters()) if t is not None and t.requires_grad]
    for k in range(order):
        d = [t.requires_grad_() for t in like(values)]
        flowing = [(v, t) for v, t in zip(values, d, strict=True) if v.requires_grad]
        if not flowing:
            break
        values = torch.autograd.grad(
            [v for v, _ in flowing], leaves, [t for _, t in flowing], create_graph=k + 1 < order, allow_unused=True
        )
        values = [torch.zeros_like(t) if v is None else v for v, t in zip(values, leaves, strict=True)]
        found += values
        leaves += d
    return found


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor], allowed: float = 1e-12) -> None:
    """Each to within so much of its largest value."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        if b.numel():
            assert away(a, b) <= allowed


def away(a: Tensor, b: Tensor) -> float:
    """The largest difference, by the largest value of b."""
    return float(((a - b).abs().max() / b.abs().max().clamp(min=1.0)).detach())


def in_pytorch(monkeypatch: pytest.MonkeyPatch, *args: object, **kwargs: object) -> list[Tensor]:
    """The same derivatives, with the machine told that it cannot."""
    with monkeypatch.context() as patch:
        patch.setattr(Second, "reason", "a test says so")
        patch.setattr(function, "refuse_derivatives_in_strict", lambda *_: None)
        return derivatives(*args, **kwargs)


def native(monkeypatch: pytest.MonkeyPatch, *args: object, **kwargs: object) -> list[Tensor]:
    """The same derivatives, with PyTorch out of reach."""
    with monkeypatch.context() as patch:
        patch.setattr(function, "run_in_pytorch", None)
        return derivatives(*args, **kwargs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.usefixtures("strict")
def test_second_derivatives_are_those_of_the_program_in_pytorch(
    example: CellExample, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = example.make(3, 2).double()
    given = drawn(cell)
    same(native(monkeypatch, cell, given, *CASES[case]), in_pytorch(monkeypatch, cell, given, *CASES[case]))


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.usefixtures("strict")
def test_in_single_precision(example: CellExample, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-5 of the largest value; where PyTorch is further from the exact one than that, to as much."""
    cell = example.make(3, 2)
    given = drawn(cell)
    ours, theirs = native(monkeypatch, cell, given), in_pytorch(monkeypatch, cell, given)
    exact = derivatives(deepcopy(cell).double(), [t.detach().double().requires_grad_() for t in given])
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert away(a.double(), c) <= 1e-5 + away(b.double(), c)


@pytest.mark.parametrize("make", STEPS)
@pytest.mark.parametrize("case", ["whole", "lengths reversed"])
def test_of_every_idiom(make: type[Step], case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make()
    given = drawn(cell)
    same(native(monkeypatch, cell, given, *CASES[case]), in_pytorch(monkeypatch, cell, given, *CASES[case]))


class Scalars(Cell):
    """Weights of one number each, as rows meet them: in a sum, a product, a state, an output; one wide, and n wide."""

    def __init__(self, hidden_size: int, shape: tuple[int, ...]) -> None:
        super().__init__(3, hidden_size)
        self.a, self.b = (nn.Parameter(torch.full(shape, number)) for number in (0.7, 0.3))
        self.v = nn.Parameter(torch.linspace(0.5, 1.0, hidden_size))
        self.w = nn.Linear(3, hidden_size)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        n = torch.tanh(self.w(x) + self.a * h + self.b + self.v)
        h = n * torch.sigmoid(self.b) * self.v.expand_as(h)[:, :1] + self.a
        return self.a.expand(h.shape) * n.sum(1, keepdim=True) + torch.exp(self.v[:1]) * self.b.view(1, 1), h


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("hidden_size", [1, 4])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.usefixtures("strict", "machine_only")
def test_a_weight_of_one_number_gathers_the_gradients_of_a_row(
    shape: tuple[int, ...], hidden_size: int, order: int
) -> None:
    cell = Scalars(hidden_size, shape).double()
    given = drawn(cell)
    same(derivatives(cell, given, order=order), derivatives(cell, given, order=order, run=scan))


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_third_derivatives(example: CellExample, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = example.make(2, 2).double()
    given = drawn(cell, 3, 4)
    lengths = [1, 3, 0, 2]
    same(native(monkeypatch, cell, given, lengths, order=3), in_pytorch(monkeypatch, cell, given, lengths, order=3))


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 3), (70, 2)])
def test_one_step_and_many_from_the_cells_own_start(
    example: CellExample, T: int, B: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = example.make(2, 3).double()
    x, *states = drawn(cell, T, B)
    given = [x, *[None] * len(states)]
    same(native(monkeypatch, cell, given), in_pytorch(monkeypatch, cell, given), 1e-10)


@pytest.mark.parametrize("example", CELLS[::5], ids=str)
@pytest.mark.parametrize(("T", "B", "lengths"), [(0, 2, None), (2, 0, None), (3, 2, [0, 0])])
def test_no_rows(example: CellExample, T: int, B: int, lengths: list[int] | None) -> None:
    cell = example.make(3, 2).double()
    given = drawn(cell, T, B)
    same(derivatives(cell, given, lengths), derivatives(cell, given, lengths, run=scan))


@pytest.mark.usefixtures("strict", "machine_only")
def test_a_gradient_penalty_by_part_of_what_it_could_ask_for() -> None:
    """One of output and last states only; gradients of x only, or of the weights only."""
    for example in CELLS:
        cell = example.make(3, 2).double()
        given = drawn(cell)
        weights = list(cell.parameters())

        def penalty(run, of: int, by: list[Tensor], cell=cell, given=given, weights=weights) -> list[Tensor | None]:
            x, *states = given
            y, last = run(cell, x, tuple(states))
            value = (y, *last)[of].square().sum()
            found = torch.autograd.grad(value, by, create_graph=True, allow_unused=True)
            size = sum((d.square().sum() for d in found if d is not None), torch.zeros(()))
            if not size.requires_grad:
                return [torch.zeros_like(t) for t in (*given, *weights)]
            return list(torch.autograd.grad(size, [*given, *weights], allow_unused=True, materialize_grads=True))

        for of in range(1 + len(cell.state_sizes)):
            for by in ([given[0]], weights):
                same(penalty(unroll, of, by), penalty(scan, of, by))


@pytest.mark.usefixtures("machine_only")
def test_each_gradient_has_memory_of_its_own() -> None:
    """Clipping in place scales each once, and the graph behind it still holds."""
    for example in CELLS:
        cell = example.make(3, 2).double()
        given = drawn(cell)
        leaves = [given[0], *cell.parameters()]
        y, _ = unroll(cell, given[0])
        found = torch.autograd.grad(y.square().sum(), leaves, create_graph=True, allow_unused=True)
        found = [d for d in found if d is not None]
        before = [d.detach().clone() for d in found]
        with torch.no_grad():
            for d in found:
                d.mul_(0.5)
        for d, b in zip(found, before, strict=True):
            torch.testing.assert_close(d, 0.5 * b)


def test_weights_that_stay_still_get_no_gradient() -> None:
    cell = CELLS[5].make(3, 2).double().requires_grad_(False)
    x, *_ = drawn(cell)
    (d,) = torch.autograd.grad(unroll(cell, x)[0].square().sum(), x, create_graph=True)
    d.square().sum().backward()
    assert x.grad is not None and all(p.grad is None for p in cell.parameters())


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_explain_says_who_runs_them(example: CellExample) -> None:
    cell = example.make(3, 2)
    assert "second derivatives:        native machine" in str(explain(cell, torch.randn(2, 2, 3)))


def test_a_refusal_is_told_and_pytorch_runs_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = CELLS[5].make(3, 2).double()
    given = drawn(cell)
    assert explain(cell, given[0]).native

    def refuse(*_: object) -> None:
        raise Unsupported("a test says so")

    monkeypatch.setattr(second.native, "prepare", refuse)
    assert "second derivatives:        PyTorch, because a test says so" in str(explain(cell, given[0]))
    same(derivatives(cell, given), derivatives(cell, given, run=scan))


def test_in_strict_mode_such_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = CELLS[5].make(3, 2).double()
    x, *_ = drawn(cell)
    y, _ = unroll(cell, x)

    def refuse(*_: object) -> None:
        raise Unsupported("a test says so")

    monkeypatch.setattr(second.native, "prepare", refuse)
    with recurra.strict():
        torch.autograd.grad(y.sum(), x, retain_graph=True)  # first derivatives are native
        with pytest.raises(StrictError) as raised:
            torch.autograd.grad(y.sum(), x, create_graph=True)
        none, _ = unroll(cell, x[:0])  # of no rows there is nothing to run
        torch.autograd.grad(none.sum(), x, create_graph=True, allow_unused=True)
    assert str(raised.value) == (
        f"The second derivatives of {cell.full_name} would run in PyTorch, not on the native machine: a test says so. "
        "Take its gradients without create_graph, or leave strict mode."
    )
    torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_the_programs_mean_the_gradients_without_the_machine(example: CellExample) -> None:
    """The reverse program as written gives what PyTorch's autograd gives of the forward one."""
    cell = example.make(3, 2).double()
    plan, backward = compile_step(cell)
    layout = Layout(3, 2, (2, 2, 1))
    rows = [torch.randn(layout.N, v.width, dtype=torch.double) for v in plan.inputs.values()]
    first = [torch.randn(2, s.width, dtype=torch.double) for s in plan.states.values()]
    statics = [torch.randn(s.shape, dtype=torch.double) for s in plan.statics]
    ahead = PlainExecutor(plan, backward)
    output, last, kept = ahead.forward(layout, rows, statics, first, True)
    d, d_last = torch.randn_like(output), [torch.randn_like(s) for s in last]
    need = (True,) * len(rows), (True,) * len(statics)
    d_rows, _, d_first = ahead.backward(layout, kept, rows, statics, first, output, d, d_last, *need)

    def run(step, layout, rows, first):
        derived = split(step)
        chosen = [statics[plan.statics.index(s)] for s in derived.statics]
        return PlainExecutor(derived, backward_of(derived)).forward(layout, rows, chosen, first, False)

    states, _, _ = run(history(plan), layout, rows, first)
    terms = reverse(plan)
    assert terms is not None
    sources = [*rows, earlier(layout, states, torch.cat(first, 1)), d]
    read = [sources[k] for k in terms.reads]
    found, ours, _ = run(terms.step, layout.mirrored(), read, d_last)
    same(ours, d_first)
    parts = [*read, *found.split(terms.pieces, 1)]
    for where, theirs in zip(terms.d_inputs, d_rows, strict=True):
        assert (where is None) == (theirs is None)
        if where is not None and theirs is not None:
            k, lo, hi = where
            same([parts[k][:, lo:hi]], [theirs])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [None, (3, 3, 1), (4, 2, 2)])
def test_rows_one_step_earlier(sizes: tuple[int, ...] | None, reverse: bool) -> None:
    layout = Layout(3, 4, sizes, reverse)
    rows, first = torch.arange(100, 100 + layout.N)[:, None], torch.arange(4)[:, None]
    found = earlier(layout, rows, first).flatten().tolist()
    for t, n in enumerate(layout.sizes()):
        before = t + 1 if reverse else t - 1
        there = layout.sizes()[before] if 0 <= before < 3 else 0
        for r in range(n):
            expected = 100 + layout.offsets[before] + r if r < there else r
            assert found[layout.offsets[t] + r] == expected

"""The native machine computes what scan and torch.nn compute: outputs, last states and every gradient.

Scratch memory and every fresh tensor hold NaN before they are written, no compiler can be found, and each test sees
that the machine ran. The measure is max|difference| / max|reference| of a tensor; the reference, also of fp32, is in
fp64 on the same numbers.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from checks import contracting, needs_machine, random_lengths, weighed
from steps import STEPS, Idioms, Step
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recurra
from examples import CELLS, CellExample
from recurra import Cell, cells, scan, strict
from recurra.machine.program import library
from recurra.unroll import visits

pytestmark = needs_machine

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}


@dataclass(frozen=True)
class Case:
    """Sizes, direction, and how sequences end and begin: `lengths` unequal with zeros, `first` states given."""

    T: int
    B: int
    D: int
    H: int
    lengths: bool = False
    reverse: bool = False
    first: bool = True

    def __str__(self) -> str:
        marks = [w for w in ("lengths", "reverse") if getattr(self, w)] + ([] if self.first else ["no states"])
        return " ".join([f"T{self.T}-B{self.B}-D{self.D}-H{self.H}", *marks])


CASES = [
    Case(0, 3, 4, 5),
    Case(1, 1, 1, 1),
    Case(1, 17, 3, 37, first=False),
    Case(2, 3, 5, 250, reverse=True),
    Case(2, 1, 3, 17, lengths=True),
    Case(63, 3, 7, 37, lengths=True, reverse=True),
    Case(257, 3, 2, 17),
]
SATURATED = (Idioms,)  # tanh is 1 to seven digits there, and what is left of its derivative in fp32 is rounding


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What is not written is NaN; and there is no compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    torch.set_num_threads(1)  # two threads give the same bits: test_same_bits.py
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("CXX", "/nowhere/c++")
    library.poison(True)
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert bool(torch.empty(7).isnan().all())
    yield
    torch.use_deterministic_algorithms(False)
    library.poison(False)


@dataclass(frozen=True)
class Call:
    """One call of a cell: what goes in, and the weights of what comes out in the loss."""

    cell: Cell
    x: Tensor
    states: tuple[Tensor, ...] | None
    lengths: Tensor | None
    reverse: bool

    def to(self, dtype: torch.dtype) -> "Call":
        cell = copy_of(self.cell, dtype)
        states = None if self.states is None else tuple(s.detach().to(dtype).requires_grad_() for s in self.states)
        return Call(cell, self.x.detach().to(dtype).requires_grad_(), states, self.lengths, self.reverse)


def copy_of(cell: Cell, dtype: torch.dtype) -> Cell:
    return copy.deepcopy(cell).to(dtype)


def call(cell: Cell, case: Case) -> Call:
    """In fp64, of numbers that fp32 has too."""
    x = torch.randn(case.T, case.B, case.D)
    _, states = scan(cell.float(), torch.randn(3, case.B, case.D))  # such as the cell can be in
    lengths = random_lengths(case.T, case.B) if case.lengths else None
    return Call(cell, x, states if case.first else None, lengths, case.reverse).to(torch.float64)


def everything(run: object, c: Call) -> dict[str, Tensor]:
    """Outputs, last states and every gradient, by name."""
    y, last = run(c.cell, c.x, c.states, c.lengths, c.reverse)  # type: ignore[operator]
    names = {"x": c.x} | {f"first {k}": s for k, s in enumerate(c.states or ())} | dict(c.cell.named_parameters())
    found = {"y": y} | {f"last {k}": s for k, s in enumerate(last)}
    loss = weighed(*found.values())
    gradients = torch.autograd.grad(loss, list(names.values()), allow_unused=True) if loss.requires_grad else ()
    for (name, t), d in zip(names.items(), gradients or [None] * len(names), strict=True):
        found[f"d {name}"] = torch.zeros_like(t) if d is None else d
    return {name: t.detach() for name, t in found.items()}


def assert_same(ours: dict[str, Tensor], truth: dict[str, Tensor], exact: float) -> None:
    assert ours.keys() == truth.keys()
    for name, t in truth.items():
        assert ours[name].shape == t.shape, name
        if not t.numel():
            continue
        assert bool(ours[name].isfinite().all()), f"{name}: not finite"
        difference, size = float((ours[name].double() - t.double()).abs().max()), float(t.abs().max())
        assert difference <= exact * max(size, 1e-4), f"{name}: {difference:.3g} off, and the largest is {size:.3g}"


def on_the_machine(c: Call) -> dict[str, Tensor]:
    """What the machine makes of the call; and it was the machine."""
    with strict(), visits() as seen:
        found = everything(recurra.unroll, c)
    assert [v.executor for v in seen] == ["native machine"]
    return found


def check(c: Call, truth: dict[str, Tensor], dtypes: Sequence[torch.dtype] = tuple(EXACT)) -> None:
    """The machine in fp32 and fp64 against the truth in fp64."""
    for dtype in dtypes:
        assert_same(on_the_machine(c.to(dtype)), truth, EXACT[dtype])


@pytest.mark.tsan
@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_cell_is_scan(example: CellExample, case: Case) -> None:
    c = call(contracting(example.make(case.D, case.H)), case)
    check(c, everything(scan, c))


@pytest.mark.parametrize("make", STEPS)
def test_every_idiom_is_scan(make: type[Step]) -> None:
    for lengths, reverse in ((False, False), (True, False), (True, True)):
        c = call(contracting(make()), Case(5, 7, make().input_size, 6, lengths, reverse))
        check(c, everything(scan, c), (torch.float64,) if make in SATURATED else tuple(EXACT))


# ---- torch.nn


def of_torch(example: CellExample, c: Call) -> dict[str, Tensor]:
    """The same call of torch.nn's own layer; a reversed one walks each sequence from its last step."""
    assert example.torch_layer is not None
    layer = example.torch_layer(c.cell.input_size, c.cell.output_size).to(c.x.dtype)
    layer.load_state_dict({f"{name}_l0": p for name, p in c.cell.state_dict().items()})
    assert isinstance(layer, nn.RNNBase)

    def run(cell: Cell, x: Tensor, states: Sequence[Tensor], lengths: Tensor | None, reverse: bool) -> object:
        given = tuple(s.unsqueeze(0) for s in states)
        hx = given if len(given) > 1 else given[0]
        if reverse:
            x = x.flip(0)
        if lengths is None:
            y, last = layer(x, hx)
        else:
            packed, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)
            y, _ = pad_packed_sequence(packed, total_length=len(x))
        last = last if isinstance(last, tuple) else (last,)
        return (y.flip(0) if reverse else y), tuple(s.squeeze(0) for s in last)

    found = everything(run, Call(_Parameters(layer), c.x, c.states, c.lengths, c.reverse))  # type: ignore[arg-type]
    return {name.removesuffix("_l0"): t for name, t in found.items()}


class _Parameters(nn.Module):
    """A torch.nn layer where a cell is expected: only its parameters are asked for."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self._of = [layer]

    def named_parameters(self, *args: object, **kwargs: object) -> Iterator[tuple[str, nn.Parameter]]:
        return self._of[0].named_parameters()


TORCH_CASES = [
    Case(1, 1, 1, 1),
    Case(2, 17, 3, 250),
    Case(63, 3, 7, 37, reverse=True),
    Case(63, 5, 3, 17, lengths=True),
    Case(257, 33, 2, 17),
]


@pytest.mark.parametrize("example", [e for e in CELLS if e.torch_layer], ids=str)
@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_every_cell_of_torch_is_torchs(example: CellExample, case: Case) -> None:
    c = call(contracting(example.make(case.D, case.H)), case)
    if c.lengths is not None:  # torch.nn refuses sequences without a step
        c = Call(c.cell, c.x, c.states, c.lengths.clamp(min=1), c.reverse)
    check(c, of_torch(example, c))


# ---- what is not asked for


@pytest.mark.parametrize("H", [2, 4, 8, 16])
def test_numbers_of_a_row_over_columns_of_one_vector(H: int) -> None:
    """A row as wide as a vector is no longer than the one number of another row spread over it."""
    c = call(contracting(cells.GRULayerNorm(3, H, eps=0.1)), Case(2, 5, 3, H))
    check(c, everything(scan, c))


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_only_some_gradients(example: CellExample) -> None:
    """Of inputs alone, of one weight alone, of a loss of the last states alone: the same numbers."""
    c = call(contracting(example.make(3, 17)), Case(5, 3, 3, 17, lengths=True))
    ours, truth = recurra.unroll(c.cell, c.x, c.states, c.lengths), scan(c.cell, c.x, c.states, c.lengths)
    assert c.states is not None
    for t in (c.x, c.states[-1], next(c.cell.parameters())):
        for pick in (lambda r: r[0], lambda r: r[1][-1]):
            got, expected = (
                torch.autograd.grad(weighed(pick(r)), t, retain_graph=True, allow_unused=True)[0] for r in (ours, truth)
            )
            zero = torch.zeros_like(t)
            assert_same({"d": zero if got is None else got}, {"d": zero if expected is None else expected}, 1e-12)


def test_the_measure_notices_a_wrong_number() -> None:
    t = torch.randn(5)
    with pytest.raises(AssertionError, match="off"):
        assert_same({"y": t + 2e-5 * t.abs().max()}, {"y": t}, 1e-5)
    with pytest.raises(AssertionError, match="not finite"):
        assert_same({"y": t * float("nan")}, {"y": t}, 1e-5)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_no_steps_and_no_gradient_still_have_the_shape_of_the_output(example: CellExample):
    cell = example.make(3, 4)
    x = torch.randn(0, 2, cell.input_size)
    with torch.no_grad(), strict():
        y, last = recurra.unroll(cell, x)
    expected, states = scan(cell, x)
    assert y.shape == expected.shape
    assert [s.shape for s in last] == [s.shape for s in states]

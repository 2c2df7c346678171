"""Triton's kernels against the plan in PyTorch and against scan: on a GPU, or here in Triton's interpreter.

No test file of its own: tests/test_triton.py runs it in a process with TRITON_INTERPRET=1, `make cuda` on a GPU.
"""

import os
from collections.abc import Iterator, Sequence

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses to be deterministic

import pytest
import torch
from checks import everything, few_lengths, weighed
from torch import Tensor

import recurra
from examples import CELLS, CellExample
from recurra.machine import devices, triton_program
from recurra.machine.plain import PlainExecutor
from recurra.machine.triton import TritonExecutor, available
from recurra.machine.triton_functions import INTERPRETED
from recurra.machine.triton_program import Cut
from recurra.machine.triton_source import Kernel
from recurra.passes.pipeline import split
from recurra.program.graph import Graph
from recurra.program.layout import Layout
from recurra.program.ops import OPS, Op
from recurra.program.plan import Backward, Plan, Step
from recurra.scan import scan
from recurra.unroll.compiled import Compiled

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = pytest.mark.skipif(bool(available(DEVICE) or (not INTERPRETED and not torch.cuda.is_available())),
                                reason=available(DEVICE) or "no GPU here")  # fmt: skip
BY_NAME = {example.name: example for example in CELLS}
SEVERAL = ["LSTM", "LSTMLayerNorm", "user's Concatenated", "GRUResetBefore", "SLSTM", "ElmanOutput", "user's Learned"]
Case = tuple[int, int, tuple[int, ...] | None, bool]  # T, B, rows of each step, reverse
LAYOUTS: list[Case] = [(2, 4, (3, 1), False), (2, 3, (3, 1), True)]
ALONE: Case = (1, 2, None, False)


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Memory that nothing wrote is NaN."""
    torch.use_deterministic_algorithms(True, warn_only=not INTERPRETED)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def through_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of weights on the CPU, too, run as kernels."""

    def prepare(plan: Plan, backward: Backward | None, device: torch.device) -> TritonExecutor:
        return TritonExecutor(plan, backward)

    monkeypatch.setattr(devices, "prepare", prepare)
    monkeypatch.setattr(devices, "without_second", lambda device: "kernels have none")


def small(kernel: Kernel, across: int, apart: bool) -> Cut:
    """A layout in which every loop over tiles, pieces and blocks of rows goes round more than once."""
    if INTERPRETED:
        return Cut(2, across, (2,) * len(kernel.tiles), 2, apart)
    return Cut(16, across, (16,) * len(kernel.tiles), 16, apart)


def compare(example: CellExample, layouts: Sequence[Case], D: int, H: int,
            dtype: torch.dtype = torch.float64) -> None:  # fmt: skip
    """Outputs, last states and every gradient are those of the plan in PyTorch."""
    cell = example.make(D, H).to(DEVICE, dtype)
    compiled = Compiled(cell, None)
    plan, backward = compiled.plan, compiled.backward
    assert plan is not None and backward is not None, compiled.reason
    tensors = compiled.weights_if_it_holds(None)
    assert tensors is not None
    statics = [s.detach() for s in compiled.statics(tensors)]
    ours, plain = TritonExecutor(plan, backward), PlainExecutor(plan, backward)
    for T, B, sizes, reverse in layouts:
        layout = Layout(T, B, sizes, reverse)
        like = {"dtype": dtype, "device": DEVICE}
        inputs = [torch.randn(layout.N, v.width, **like) for v in plan.inputs.values()]
        states: list[Tensor | None] = [1 + torch.rand(B, v.width, **like) for v in plan.states.values()]
        y, last, kept = ours.forward(layout, inputs, statics, states, True)
        expected, ends, env = plain.forward(layout, inputs, statics, states, True)
        assert_close([y, *last], [expected, *ends])
        d, d_last = torch.randn_like(y), [torch.randn_like(s) for s in last]
        wanted = (True,) * len(inputs), [True] * len(statics)
        found = ours.backward(layout, kept, inputs, statics, states, y, d, d_last, *wanted)
        truth = plain.backward(layout, env, inputs, statics, states, expected, d, d_last, *wanted)
        for mine, theirs in zip(found, truth, strict=True):
            assert_close([zeros_for(a, b) for a, b in zip(mine, theirs, strict=True)], list(theirs))


def zeros_for(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    """What nothing depends on, the plan in PyTorch gives as zeros."""
    return torch.zeros_like(theirs) if ours is None and theirs is not None else ours


def assert_close(ours: Sequence[Tensor | None], truth: Sequence[Tensor | None]) -> None:
    double = all(t is None or t.dtype is torch.float64 for t in ours)
    exact = 1e-10 if double else 2e-4
    torch.testing.assert_close(ours, truth, rtol=exact, atol=exact)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_every_cell_is_what_its_plan_is_in_pytorch(example: CellExample) -> None:
    compare(example, [LAYOUTS[CELLS.index(example) % 2]], 3, 5)


@pytest.mark.parametrize("across", [1, 2])
@pytest.mark.parametrize("name", SEVERAL)
def test_whatever_the_tiles_are(name: str, across: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in blocks, columns in tiles, products in pieces, and instances that share the columns of a step."""
    apart = INTERPRETED and across > 1  # the interpreter runs one instance after the other, and none could wait
    monkeypatch.setattr(triton_program, "cut_for", lambda kernel, *_: small(kernel, across, apart))
    sizes: list[Case] = [(2, 3, (3, 1), across == 2)] if INTERPRETED else [(5, 40, (40, 33, 20, 3, 1), across == 2)]
    compare(BY_NAME[name], sizes, 2, 3 if INTERPRETED else 67)


@pytest.mark.parametrize("name", SEVERAL)
def test_in_single_precision(name: str) -> None:
    compare(BY_NAME[name], [ALONE] if INTERPRETED else [ALONE, (40, 20, None, False)], 3, 5, torch.float32)


@pytest.mark.usefixtures("through_triton")
@pytest.mark.parametrize("name", ["LSTM", "user's Learned", "wrapper with a side"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_call_is_what_scan_is(name: str, reverse: bool) -> None:
    """Lengths in any order, from the door on: packing, autograd, sides."""
    cell = BY_NAME[name].make(3, 4).to(DEVICE).double()
    x = torch.randn(3, 3, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    lengths = few_lengths(3, 3)
    with torch.no_grad():
        alone, _ = recurra.unroll(cell, x, lengths=lengths, reverse=reverse)
    told = recurra.explain(cell, x, lengths=lengths, reverse=reverse)
    assert told.executors == ("Triton",), told
    assert "one kernel for all steps, 1 program instance of 3 sequences" in str(told) or not INTERPRETED
    y, last = scan(cell, x, None, lengths, reverse)
    wanted = [x, *cell.parameters()]
    truth = [y, *last, *torch.autograd.grad(weighed(y, *last), wanted, allow_unused=True)]
    found = everything(cell, x, lengths, reverse)
    assert torch.equal(found[0], alone), "the same bits, whether something is kept for a backward pass or not"
    assert_close(found, [zeros_for(t, f) for t, f in zip(truth, found, strict=True)])


@pytest.mark.usefixtures("through_triton")
def test_what_stands_on_an_executor() -> None:
    """memory="sqrt", what is recorded with its gradients, resets, and gradients of gradients."""
    plain, thrifty = (recurra.Recurrent(BY_NAME["user's Peephole"].make(3, 4), memory=m) for m in ("all", "sqrt"))
    thrifty.load_state_dict(plain.state_dict())
    x = torch.randn(5, 2, 3, device=DEVICE)
    resets = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 0], [0, 0]], dtype=torch.bool, device=DEVICE)
    found = []
    for layer in (plain.to(DEVICE), thrifty.to(DEVICE)):
        with layer.record("f") as seen:
            y, _ = layer(x, resets=resets)
        loss = y.sum() + seen["f"].square().sum()
        gradients = torch.autograd.grad(loss, list(layer.parameters()))
        found.append([y, seen["f"], *gradients])
    assert_close(found[0], found[1])
    cell = BY_NAME["Elman"].make(2, 3).to(DEVICE).double()
    rows = torch.randn(2, 2, 2, dtype=torch.float64, device=DEVICE, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: recurra.unroll(cell, x)[0], rows)


# ---- operations


COMPUTED = [op for op in OPS.values() if op.triton and op.kind in ("pointwise", "reduction")]


def apply(op: Op, operands: Sequence[Tensor]) -> Tensor:
    """One operation as a kernel over all rows."""
    g, width = Graph(), operands[0].shape[1]
    leaves = [g.leaf("input", name, width) for name in "abc"[: len(operands)]]
    state = g.leaf("state", "s", 1)
    step = Step(op.name, {v.name: v for v in leaves}, {"s": state}, (state,), g(op.name, *leaves))
    first = [operands[0].new_zeros(len(operands[0]), 1)]
    found: Tensor = TritonExecutor(split(step), None).forward(Layout(1, len(first[0])), operands, [], first, False)[0]
    return found


@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
def test_every_operation_is_that_of_pytorch(op: Op) -> None:
    for dtype in (torch.float32, torch.float64):
        compare_operation(op, dtype)


def compare_operation(op: Op, dtype: torch.dtype) -> None:
    """On a grid with what is not finite; in rows that are all NaN, infinite or equal."""
    nan, inf = float("nan"), float("inf")
    values = torch.tensor([-30.0, -2.5, -0.5, -1e-4, 0.0, 1e-4, 0.2, 0.7, 1.0, 3.0, 25.0, nan, inf, -inf])
    values = values.to(DEVICE, dtype)
    if op.name in ("log", "sqrt", "rsqrt"):
        values = values[values > 0]
    elif op.name == "log1p":
        values = values[values > -1]
    if op.kind == "reduction":
        rows = torch.randn(6, 300, device=DEVICE, dtype=dtype) + 1000
        rows[1, 299], rows[2, 0], rows[3, 7], rows[4] = nan, inf, -inf, -3.0
        operands = [rows]
    else:
        pairs = torch.cartesian_prod(values, values) if op.arity != 1 else values[:, None]
        operands = [p.reshape(-1, 7 if len(p) % 7 == 0 else 1).contiguous() for p in pairs.T]
        operands = [*operands, operands[0].flip(0)][: op.arity]
    expected = op.value(*operands)
    exact = 8 * torch.finfo(dtype).eps
    found = apply(op, operands)
    if op.name in ("dsigmoid", "dtanh", "fma", "rowsum"):  # a fused chain rounds once
        exact *= 300
    torch.testing.assert_close(found, expected.expand_as(found), rtol=exact, atol=exact, equal_nan=True)


def test_every_row_of_the_table_that_is_computed_has_its_text() -> None:
    assert {op.name for op in COMPUTED} == {op.name for op in OPS.values() if op.kind in ("pointwise", "reduction")}

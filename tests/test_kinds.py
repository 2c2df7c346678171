"""Products in fewer bits, by what arithmetic says of them: exact where numbers have few bits, else within a bound."""

import pytest
import torch
from torch import Tensor

import recurra
from recurra.machine import native
from recurra.machine.precision import lacking
from recurra.machine.program import KINDS, library
from recurra.program.layout import Layout
from recurra.unroll.compiled import find

SIZES = [
    (1, 1, 1),
    (1, 7, 5),
    (3, 16, 33),
    (9, 31, 16),
    (9, 32, 64),
    (40, 34, 130),
    (200, 65, 20),
    (300, 40, 50),
    (5, 700, 9),
]  # rows, inputs, units

pytestmark = pytest.mark.skipif(bool(native.available()), reason=native.available() or "the native machine is here")


class Product(recurra.Cell):
    """h_t = W x_t: nothing recurs."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = torch.nn.Linear(input_size, hidden_size, bias=False)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return self.W(x)


def results(precision: str, x: Tensor, W: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, dx and dW of a product in that precision; gradients only where it has them."""
    cell = Product(x.shape[1], len(W))
    with torch.no_grad():
        cell.W.weight.copy_(W)
    compiled, _ = find(cell, None)
    assert compiled.plan is not None
    machine = native.prepare(compiled.plan, compiled.backward, precision)
    layout, statics = Layout(len(x), 1), [W]
    y, _, kept = machine.forward(layout, [x], statics, [None], True)
    if precision == "int8":
        return y, x, W
    d_inputs, d_statics, _ = machine.backward(layout, kept, [x], statics, [None], y, d, [None], (True,), [True])
    assert d_inputs[0] is not None and d_statics[0] is not None
    return y, d_inputs[0], d_statics[0]


@pytest.mark.parametrize(("rows", "inputs", "units"), SIZES)
@pytest.mark.parametrize("precision", ["bf16", "fp32-fast"])
def test_numbers_of_few_bits_are_multiplied_exactly(precision: str, rows: int, inputs: int, units: int) -> None:
    if precision == "fp32-fast" and library.isa() in ("v3", "v4", "generic"):
        pytest.skip("this processor has no products of bfloat16 numbers")
    x, W, d = (torch.randint(-9, 10, s).float() for s in ((rows, inputs), (units, inputs), (rows, units)))
    if precision == "fp32-fast":  # sixteen bits: too many for one bfloat16 number, not for two
        x, W = x + 1 / 512, W + 1 / 512
    exact = (x.double() @ W.double().T, d.double() @ W.double(), d.double().T @ x.double())
    lost = 2.0**-18 * inputs if precision == "fp32-fast" else 0.0  # low times low is left out
    for found, right in zip(results(precision, x, W, d), exact, strict=True):
        assert float((found - right).abs().max()) <= lost


@pytest.mark.parametrize(("rows", "inputs", "units"), SIZES)
def test_weights_of_eight_bits_are_rounded_once(rows: int, inputs: int, units: int) -> None:
    x, W = torch.randn(rows, inputs), torch.randn(units, inputs)
    y, *_ = results("int8", x, W, x)
    half = W.abs().amax(1) / 127 / 2
    bound = x.abs().sum(1, keepdim=True) * half * (1 + 1e-5) + 1e-5
    assert bool(((y - x @ W.T).abs() <= bound).all())
    assert inputs == 1 or float((y - x @ W.T).abs().max()) > 1e-5  # they are rounded


def by_tiles(a: Tensor, w: Tensor, halves: bool) -> Tensor:
    """a w^T as TDPBF16PS sums, by Intel's manual: of 32 k the even, the odd, each from zero, both, and onto the sum."""

    def rounded(x: Tensor) -> Tensor:
        whole = -(-x.shape[1] // 32) * 32
        return torch.nn.functional.pad(x, (0, whole - x.shape[1])).bfloat16().float()

    pairs = [(rounded(a), rounded(w))]
    if halves:
        (high, high_w), low, low_w = pairs[0], rounded(a - a.bfloat16()), rounded(w - w.bfloat16())
        pairs = [(low, high_w), (high, high_w), (high, low_w)]
    total = torch.zeros(len(a), len(w))
    for k in range(0, pairs[0][0].shape[1], 32):
        for left, right in pairs:
            sums = torch.zeros(2, len(a), len(w))
            for i in range(32):
                sums[i % 2] += left[:, k + i, None] * right[:, k + i]  # the product of two is exact
            total = total + (sums[0] + sums[1])
    return total


@pytest.mark.skipif(library is None or library.isa() != "amx", reason="no matrix unit here; make tiles emulates one")
@pytest.mark.parametrize(("rows", "inputs", "units"), SIZES)
@pytest.mark.parametrize("precision", ["bf16", "fp32-fast"])
def test_tiles_are_packed_and_summed_as_the_manual_says(precision: str, rows: int, inputs: int, units: int) -> None:
    x, W, d = torch.randn(rows, inputs), torch.randn(units, inputs), torch.randn(rows, units)
    halves = precision == "fp32-fast"
    right = by_tiles(x, W, halves), by_tiles(d, W.T, halves), by_tiles(d.T, x.T, halves)
    for found, expected in zip(results(precision, x, W, d), right, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("precision", ["bf16", "fp32-fast", "int8"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "Elman"])
def test_the_same_bits_in_any_company_and_step_by_step(precision: str, name: str) -> None:
    """Rows that fill a tile or a block and part of the next; one thread and two; one call, two, and streamed."""
    if precision == "fp32-fast" and library.isa() in ("v3", "v4", "generic"):
        pytest.skip("this processor has no products of bfloat16 numbers")
    T, B, D, H = 5, 50, 33, 37
    cell = getattr(recurra.cells, name)(D, H)
    compiled, table = find(cell, None)
    assert compiled.plan is not None
    machine = native.prepare(compiled.plan, None, precision)
    statics = [s.detach() for s in compiled.statics(table)]
    x, first = torch.randn(T, B, D), [torch.randn(B, H) for _ in cell.state_sizes]

    def run(steps: slice, rows: slice, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        own = x[steps, rows].contiguous()
        y, last, _ = machine.forward(
            Layout(*own.shape[:2]),
            [own.reshape(-1, D)],
            statics,
            [s[rows].contiguous() for s in states],
            False,
        )
        return y.view(*own.shape[:2], H), last

    whole = slice(None)
    y, last = run(whole, whole, first)
    torch.set_num_threads(1)
    assert torch.equal(run(whole, whole, first)[0], y)
    for rows in (slice(0, 1), slice(3, 10), slice(4, 20), slice(0, 17), slice(9, 41), slice(1, 50)):
        alone, states = run(whole, rows, first)
        assert torch.equal(alone, y[:, rows]) and all(
            torch.equal(s, t[rows]) for s, t in zip(states, last, strict=True)
        )
    begun, states = run(slice(0, 2), whole, first)
    assert torch.equal(torch.cat([begun, run(slice(2, T), whole, states)[0]]), y)
    for rows in (slice(7, 8), slice(0, 17)):
        own, to = [s[rows].clone() for s in first], torch.empty(len(range(B)[rows]), H)
        session = machine.session(len(to), statics, own)
        for t in range(T):
            session.step(x[t, rows].contiguous().data_ptr(), to.data_ptr())
            assert torch.equal(to, y[t, rows])


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_what_is_no_number_stays_none(precision: str) -> None:
    x, W = torch.randn(12, 33), torch.randn(20, 33)
    x[3, 5], W[7, 32], W[2] = torch.nan, torch.nan, 0.0
    y, *_ = results(precision, x, W, torch.randn(12, 20))
    right = x @ W.T
    assert torch.equal(y.isnan(), right.isnan()) and bool((y[:3, 2] == 0).all())


def test_those_that_are_worth_using_are_told() -> None:
    has_products = library.isa() not in ("v3", "v4", "generic")
    assert set(library.kinds()) >= {KINDS[name] for name in ("fp32", "fp64", "bf16", "int8")}
    assert lacking("bf16") == lacking("int8") == ""
    if KINDS["fp32-fast"] not in library.kinds():
        assert lacking("fp32-fast") == (
            "fp32-fast needs AMX, which this processor lacks; it has fp32, fp64, bf16, int8"
        )
    else:
        assert has_products

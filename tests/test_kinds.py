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

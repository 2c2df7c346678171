"""Weights of 8 bits: for inference only, with an error that is measured, told and bounded."""

import pytest
import torch
from checks import needs_machine
from precisions import Looking, fused
from torch import Tensor, nn

import recurra
from recurra import Cell, InputError, Recurrent, Session, cells, explain
from recurra.machine.precision import lacking
from recurra.unroll.rounding import BOUND

pytestmark = [needs_machine, pytest.mark.skipif(bool(lacking("int8")), reason=lacking("int8"))]


class Remainder(Cell):
    """What is left of large numbers: rounded weights have no digits for it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.w = nn.Parameter(torch.randn(hidden_size, input_size))
        with torch.no_grad():
            self.w[:, 0] = 1000

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.w) - 1000 * x[:, :1]


@pytest.mark.usefixtures("dynamo")
def test_int8_is_for_inference() -> None:
    layer, x = recurra.LSTM(3, 4, bidirectional=True, precision="int8"), torch.randn(4, 1, 3)
    for call in (lambda: layer(x), lambda: Recurrent(cells.GRU(3, 4), precision="int8")(x), lambda: fused(layer)(x)):
        with pytest.raises(Exception, match="gradients") as caught:
            call()
        assert (
            "precision is 'int8', which is for inference, and this call asks for gradients. "
            "Call the layer inside torch.no_grad(), or choose 'fp32' or 'bf16'."
        ) in str(caught.value)
    with torch.no_grad():
        layer(x)
    with (
        torch.no_grad(),
        pytest.raises(InputError, match=r"only the native machine has, and Looking does not run there"),
    ):
        Recurrent(Looking(3, 4), precision="int8")(x)


@torch.no_grad()
def test_the_error_of_int8_is_measured_and_shown() -> None:
    layer, x = recurra.LSTM(32, 64, precision="int8"), torch.randn(4, 1, 32)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    told = explain(layer, x)
    error = told.visits[0].error
    assert error is not None and 1e-4 < error < BOUND
    assert f"native machine in int8 ({error:.2g} of the largest output away from fp32)" in str(told)
    session = Session(layer)
    session.step(x[0])
    assert session.error == error and torch.equal(torch.rand(1), expected)
    assert Session(layer).error is None
    layer.weight_ih_l0[0, 0] = 15  # its row has few digits left
    after = explain(layer, x).visits[0].error
    assert after is not None and after > error
    session.refresh()
    assert session.error == after


@pytest.mark.usefixtures("dynamo")
@torch.no_grad()
def test_int8_refuses_weights_that_it_cannot_hold() -> None:
    layer, x = Recurrent(Remainder(8, 4), precision="int8"), torch.randn(4, 1, 8)
    wanted = (
        r"^precision is 'int8', and the outputs of Remainder are then [0-9.e+]+ of the largest away from those in "
        r"fp32, where 0\.05 is the most\. Choose 'bf16' or 'fp32' for it\.$"
    )
    for call in (lambda: layer(x), lambda: Session(layer).step(x[0])):
        with pytest.raises(InputError, match=wanted):
            call()
    with pytest.raises(Exception, match="of the largest away from those in fp32"):
        fused(layer)(x)
    layer.precision = "fp32"
    assert layer(x)[0].shape == (4, 1, 4)


@torch.no_grad()
def test_the_error_is_that_of_the_numbers_not_of_where_they_lie() -> None:
    """Written past PyTorch's versions, turned about in place, or where another layer's weights lay before."""
    layer, x = Recurrent(cells.GRU(16, 16), precision="int8"), torch.randn(3, 1, 16)
    errors = [explain(layer, x).visits[0].error]
    for change in (lambda w: w[0].fill_(0.9), lambda w: w.copy_(w.flip(1)), lambda w: w.neg_()):
        change(layer.cell.weight_ih.data)
        errors.append(explain(layer, x).visits[0].error)
    assert len(set(errors)) == 4
    layer.cell.weight_ih.data[0] = 1000.0 * torch.rand(16)
    layer.cell.weight_hh.data[0] = float("nan")
    with pytest.raises(InputError) as caught:
        layer(x)
    assert str(caught.value) == (
        "precision is 'int8', and the outputs of GRU on random numbers are not finite, in int8 or in fp32. "
        "Look for a weight that is not; or choose 'bf16' or 'fp32' for it."
    )


def test_function_transforms_refuse_int8() -> None:
    layer, x = Recurrent(cells.GRU(3, 4), precision="int8"), torch.randn(2, 5, 1, 3)

    def run(x: Tensor) -> Tensor:
        return layer(x)[0]

    for call in (
        lambda: torch.func.vmap(run)(x),
        lambda: torch.func.jvp(run, (x[0],), (x[0],)),
        lambda: torch.func.grad(lambda x: run(x).sum())(x[0]),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == (
            "precision is 'int8', which only the native machine has, and GRU does not run there: a function transform "
            "or forward mode is active. Choose 'fp32' or 'bf16'."
        )

"""Parameters by the names that torch.nn's cells have, in the same layout and with the same initial values.

What the constructors of the cells in this folder share. A cell of one's own needs none of it.
"""

import math
from numbers import Real

import torch
from torch import Tensor, nn

from recurra.cell import Cell, misshapen
from recurra.errors import CellError

Device = torch.device | str | int | None
Dtype = torch.dtype | None
Shapes = dict[str, tuple[int, ...]]


class Weighted(Cell, named_by_step=False):
    """A cell whose parameters `shapes` lists, drawn from U(-1/√H, 1/√H).

    A cell with arguments, state widths or modules of its own has a constructor of its own: first `prepare`, then
    what is particular, then `reset_parameters`, so that every parameter is drawn once, in its order.
    """

    weight_ih: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None, dtype: Dtype = None
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.reset_parameters()

    def prepare(
        self, input_size: int, hidden_size: int, bias: bool, device: Device, dtype: Dtype, **widths: int
    ) -> None:
        """Makes the cell, its parameters not yet drawn; bias=False leaves those None whose names begin with bias."""
        super().__init__(input_size, hidden_size, **widths)
        if bias is not False and bias is not True:
            raise CellError(f"{type(self).__name__} got bias={bias!r}. Choose True or False.")
        for name, shape in self.shapes().items():
            there = bias or not name.startswith("bias")
            self.register_parameter(
                name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if there else None
            )

    def shapes(self) -> Shapes:
        """The shape of every parameter by name, in their order; widths of input and states are known."""
        raise NotImplementedError

    def check_weights(self) -> None:
        super().check_weights()
        sizes = f"input_size={self.input_size} and hidden_size={self.hidden_size}"
        for name, shape in self.shapes().items():
            weight = getattr(self, name)
            if weight is not None and weight.shape != shape:
                raise misshapen(self, name, weight, f"{sizes} need {shape}")
        weights = [*self.named_parameters()]
        for name, weight in weights[1:]:
            first, dtype = weights[0][0], weights[0][1].dtype
            if weight.dtype is not dtype:
                raise CellError(
                    f"{name} of {self.full_name} has the dtype {weight.dtype}, but its {first} is {dtype}. "
                    f"Convert one of them, or all: .to({dtype})."
                )

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        k = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            nn.init.uniform_(p, -k, k)


class InputGated(Weighted, named_by_step=False):
    """A cell whose `gates` blocks of H rows see the input only: weight_ih (gates H, D), bias_ih (gates H,)."""

    gates: int
    bias_ih: Tensor | None

    def shapes(self) -> Shapes:
        rows = self.gates * self.hidden_size
        return {"weight_ih": (rows, self.input_size), "bias_ih": (rows,)}


class Gated(Weighted, named_by_step=False):
    """A cell whose `gates` blocks of H rows see the input and the first state (B, n).

    weight_ih (gates H, D), weight_hh (gates H, n), bias_ih and bias_hh (gates H,).
    """

    gates: int
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def shapes(self) -> Shapes:
        rows, state = self.gates * self.hidden_size, next(iter(self.state_sizes.values()))
        weights = {"weight_ih": (rows, self.input_size), "weight_hh": (rows, state)}
        return {**weights, "bias_ih": (rows,), "bias_hh": (rows,)}


class ForgetGated(Gated, named_by_step=False):
    """One whose gate number `forget`, counted from 0, starts with a bias of the user's if there is one."""

    forget = 1
    forget_bias: float | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: Dtype = None,
        *,
        forget_bias: float | None = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.forget_bias = checked_forget_bias(self, forget_bias, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        set_forget_bias(self.forget_bias, self.forget, self.hidden_size, self.bias_ih, self.bias_hh)


def checked_forget_bias(cell: Cell, forget_bias: float | None, bias: bool) -> float | None:
    """forget_bias. Raises CellError for what is no number, and for one of a cell without biases."""
    if forget_bias is not None and not isinstance(forget_bias, Real):
        name = type(cell).__name__
        raise CellError(f"{name} got forget_bias={forget_bias!r}. Give a number, as 1.0, or leave it out.")
    if forget_bias is not None and not bias:
        name = type(cell).__name__
        raise CellError(f"{name} got forget_bias={forget_bias} and bias=False. Leave one of them out.")
    return forget_bias


@torch.no_grad()
def set_forget_bias(value: float | None, gate: int, width: int, first: Tensor | None, second: Tensor | None) -> None:
    """Makes the two biases of gate number `gate` add up to `value`; does nothing when it is None."""
    if value is not None and first is not None and second is not None:
        rows = slice(gate * width, (gate + 1) * width)
        first[rows] = value
        second[rows] = 0

"""The simple recurrent network of Elman 1990, "Finding structure in time", Cognitive Science 14(2), 179-211."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cell import Cell
from recurra.cells._parameters import Device, add_gates, draw
from recurra.errors import CellError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


def check_nonlinearity(cell: Cell, nonlinearity: str) -> None:
    if nonlinearity not in NONLINEARITIES:
        raise CellError(
            f"{type(cell).__name__} got nonlinearity={nonlinearity!r}. Choose {' or '.join(NONLINEARITIES)}."
        )


class Elman(Cell):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   φ = tanh or relu.

    Elman 1990. The output is the state h (B, H).

    Parameters: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,), as in torch.nn.RNNCell, drawn from
    U(-1/√H, 1/√H). bias=False leaves both biases None.

    Deviations: Elman's φ is the logistic function, and he has one bias; two are kept as torch.nn has two. The output
    equation of the paper is a cell of its own, ElmanOutput.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_nonlinearity(self, nonlinearity)
        self.nonlinearity = nonlinearity
        add_gates(self, hidden_size, input_size, hidden_size, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        draw(self, self.hidden_size)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        return NONLINEARITIES[self.nonlinearity](a)


class ElmanOutput(Cell):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   y_t = σ(W_o h_t + b_o),   φ = tanh or relu.

    Elman 1990, both equations. The state is h (B, H), the output y (B, output_size).

    Parameters: those of Elman, and output.weight (O, H), output.bias (O,) as in torch.nn.Linear.

    Deviation: Elman's φ is the logistic function too.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_nonlinearity(self, nonlinearity)
        self.nonlinearity = nonlinearity
        add_gates(self, hidden_size, input_size, hidden_size, bias, device, dtype)
        self.output = nn.Linear(hidden_size, output_size, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        draw(self, self.hidden_size)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        h = NONLINEARITIES[self.nonlinearity](a)
        y = torch.sigmoid(self.output(h))
        return y, h

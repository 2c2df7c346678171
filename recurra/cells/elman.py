"""The simple recurrent network of Elman 1990, "Finding structure in time", Cognitive Science 14(2), 179-211."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cell import Cell, check_width
from recurra.cells._parameters import Device, Dtype, Gated
from recurra.errors import CellError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


def checked_nonlinearity(cell: Cell, nonlinearity: str) -> str:
    """nonlinearity. Raises CellError for one that there is not."""
    if nonlinearity not in NONLINEARITIES:
        raise CellError(
            f"{type(cell).__name__} got nonlinearity={nonlinearity!r}. Choose {' or '.join(NONLINEARITIES)}."
        )
    return nonlinearity


class Elman(Gated):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   φ = tanh or relu.

    Elman 1990. The output is the state h (B, H).

    Parameters: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,), as in torch.nn.RNNCell, drawn from
    U(-1/√H, 1/√H). bias=False leaves both biases None.

    Deviations: Elman's φ is the logistic function, his h starts at 0.5, here at 0, and his gradients go back one step,
    here through all. He has one bias; two are kept as torch.nn has two. The output equation of the paper is a cell of
    its own, ElmanOutput.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = checked_nonlinearity(self, nonlinearity)
        self.reset_parameters()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        return NONLINEARITIES[self.nonlinearity](a)


class WithOutput(Gated, named_by_step=False):
    """Elman's hidden layer, and an output of a width of its own."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        check_width(type(self).__name__, "output_size", output_size)
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = checked_nonlinearity(self, nonlinearity)
        self.add_output(output_size, bias, device, dtype)
        self.reset_parameters()

    def add_output(self, output_size: int, bias: bool, device: Device, dtype: Dtype) -> None:
        """Makes the layers of the output."""
        self.output = nn.Linear(self.hidden_size, output_size, bias, device, dtype)


class ElmanOutput(WithOutput):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   y_t = σ(W_o h_t + b_o),   φ = tanh or relu.

    Elman 1990, both equations. The state is h (B, H), the output y (B, output_size).

    Parameters: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,), output.weight W_o (O, H) and output.bias
    b_o (O,), all drawn from U(-1/√H, 1/√H). bias=False leaves the biases None.

    Deviations: Elman's φ is the logistic function too; the start, the gradients and the two biases as in Elman.
    """

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        h = NONLINEARITIES[self.nonlinearity](a)
        y = torch.sigmoid(self.output(h))
        return y, h


class ElmanOutputBefore(WithOutput):
    """y_t = σ(W_y h_{t-1} + b_y + W_o x_t + b_o),   h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   φ = tanh or relu.

    After Elman 1990: a textbook variant whose output reads the previous state and the input, so that h_t is of no use
    before the next step. The state is h (B, H), the output y (B, output_size).

    Parameters: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,), output.weight W_y (O, H), output.bias b_y
    (O,), skip.weight W_o (O, D) and skip.bias b_o (O,), all drawn from U(-1/√H, 1/√H). bias=False leaves the biases
    None.

    Deviations: textbooks leave the output function open, here it is σ as in ElmanOutput; two biases b_y and b_o, and
    two of h, where they have one.
    """

    def add_output(self, output_size: int, bias: bool, device: Device, dtype: Dtype) -> None:
        super().add_output(output_size, bias, device, dtype)
        self.skip = nn.Linear(self.input_size, output_size, bias, device, dtype)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sigmoid(self.output(h) + self.skip(x))
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        return y, NONLINEARITIES[self.nonlinearity](a)

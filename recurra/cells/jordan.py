"""The simple recurrent network of Jordan 1986, "Serial order: a parallel distributed processing approach"."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cell import check_width
from recurra.cells._parameters import Device, Dtype, Gated


class Jordan(Gated):
    """h_t = tanh(W_ih x_t + b_ih + W_hh y_{t-1} + b_hh),   y_t = σ(W_o h_t + b_o).

    Jordan 1986, ICS Report 8604, UC San Diego: the output, not the hidden layer, is fed back. The state is y
    (B, output_size), and it is the output; h (B, H) is forgotten after each step.

    Parameters: weight_ih (H, D), weight_hh (H, O), bias_ih and bias_hh (H,), output.weight (O, H), output.bias (O,),
    all drawn from U(-1/√H, 1/√H). bias=False leaves the biases None.

    Deviations: Jordan's state units also decay into themselves (s_t = μ s_{t-1} + y_{t-1}), left out as in most
    textbooks; his hidden units are logistic, and x_t is a plan that stays the same through a sequence. Two biases of h,
    as torch.nn has.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        check_width(type(self).__name__, "output_size", output_size)
        self.prepare(input_size, hidden_size, bias, device, dtype, y=output_size)
        self.output = nn.Linear(hidden_size, output_size, bias, device, dtype)
        self.reset_parameters()

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        h = torch.tanh(F.linear(x, self.weight_ih, self.bias_ih) + F.linear(y, self.weight_hh, self.bias_hh))
        return torch.sigmoid(self.output(h))

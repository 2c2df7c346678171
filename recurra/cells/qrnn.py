"""The quasi-recurrent network: gates are a convolution over time, and only their pooling recurs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells._parameters import Device, Dtype, Shapes, Weighted


class QRNN(Weighted):
    """z_t = tanh(V_z x_{t-1} + W_z x_t + b_z)
    f_t = σ(V_f x_{t-1} + W_f x_t + b_f)
    o_t = σ(V_o x_{t-1} + W_o x_t + b_o)
    c_t = f_t ∘ c_{t-1} + (1 - f_t) ∘ z_t
    h_t = o_t ∘ c_t

    Bradbury, Merity, Xiong and Socher 2017, arXiv:1611.01576: a window of k = 2 inputs and fo-pooling. Gate order in
    every parameter: z, f, o. States: c (B, H), and before (B, D), the previous input, zero at the start. The output h
    is no state.

    Parameters: weight_ih W (3H, D), weight_bh V (3H, D), bias_ih (3H,), drawn from U(-1/√H, 1/√H). bias=False leaves
    bias_ih None.

    Deviations: the paper's equations show no bias; wider windows, f- and ifo-pooling are left out.
    """

    weight_bh: Tensor
    bias_ih: Tensor | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None, dtype: Dtype = None
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype, before=input_size)
        self.reset_parameters()

    def shapes(self) -> Shapes:
        rows, D = 3 * self.hidden_size, self.input_size
        return {"weight_ih": (rows, D), "weight_bh": (rows, D), "bias_ih": (rows,)}

    def step(self, x: Tensor, c: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates = F.linear(before, self.weight_bh) + F.linear(x, self.weight_ih, self.bias_ih)
        z, f, o = gates.chunk(3, -1)
        z, f, o = torch.tanh(z), torch.sigmoid(f), torch.sigmoid(o)
        c = torch.lerp(z, c, f)
        return o * c, c, x

"""The minimal gated unit: one gate that forgets and resets."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cell import Cell
from recurra.cells._parameters import Device, add_gates, check_forget_bias, draw, set_forget_bias


class MGU(Cell):
    """f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
    n_t = tanh(W_in x_t + b_in + W_hn (f_t ∘ h_{t-1}) + b_hn)
    h_t = (1 - f_t) ∘ h_{t-1} + f_t ∘ n_t

    Zhou, Wu, Zhang and Zhou 2016, arXiv:1603.09420. f_t is applied before the product, as the reset gate is in
    GRUResetBefore. Gate order in every parameter: f, n. The state h (B, H) is the output.

    Parameters: weight_ih (2H, D), weight_hh (2H, H), bias_ih and bias_hh (2H,), drawn from U(-1/√H, 1/√H). bias=False
    leaves both biases None. forget_bias starts the two biases of f at this sum; f near 1 here means to forget.

    Deviation: the paper has one bias; two are kept as torch.nn has two.
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
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_forget_bias(self, forget_bias, bias)
        self.forget_bias = forget_bias
        add_gates(self, 2 * hidden_size, input_size, hidden_size, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        draw(self, self.hidden_size)
        set_forget_bias(self.forget_bias, slice(self.hidden_size), self.bias_ih, self.bias_hh)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        W_f, W_n = self.weight_hh.chunk(2)
        b_f, b_n = (None, None) if self.bias_hh is None else self.bias_hh.chunk(2)
        x_f, x_n = F.linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        f = torch.sigmoid(x_f + F.linear(h, W_f, b_f))
        n = torch.tanh(x_n + F.linear(f * h, W_n, b_n))
        return (1 - f) * h + f * n

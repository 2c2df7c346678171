"""The minimal gated unit: one gate that forgets and resets."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells._parameters import ForgetGated


class MGU(ForgetGated):
    """f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
    n_t = tanh(W_in x_t + b_in + W_hn (f_t ∘ h_{t-1}) + b_hn)
    h_t = (1 - f_t) ∘ h_{t-1} + f_t ∘ n_t

    Zhou, Wu, Zhang and Zhou 2016, arXiv:1603.09420. f_t is applied before the product, as the reset gate is in
    GRUResetBefore. Gate order in every parameter: f, n. The state h (B, H) is the output.

    Parameters: weight_ih (2H, D), weight_hh (2H, H), bias_ih and bias_hh (2H,), drawn from U(-1/√H, 1/√H). bias=False
    leaves both biases None. forget_bias starts the two biases of f at this sum; f near 1 here means to forget.

    Deviation: the paper has one bias; two are kept as torch.nn has two.
    """

    gates = 2
    forget = 0

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        W_f, W_n = self.weight_hh.chunk(2)
        b_f, b_n = (None, None) if self.bias_hh is None else self.bias_hh.chunk(2)
        x_f, x_n = F.linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        f = torch.sigmoid(x_f + F.linear(h, W_f, b_f))
        n = torch.tanh(x_n + F.linear(f * h, W_n, b_n))
        return (1 - f) * h + f * n

"""The gated recurrent unit, with the reset gate after or before the recurrent product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells._parameters import Gated


class GRU(Gated):
    """r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t ∘ (W_hn h_{t-1} + b_hn))
    h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    cuDNN's and torch.nn's variant of the unit of Cho et al. 2014, arXiv:1406.1078: the reset gate is applied after the
    product, so that one product serves all three gates. Gate order in every parameter: r, z, n. The state h (B, H) is
    the output.

    Parameters: weight_ih (3H, D), weight_hh (3H, H), bias_ih and bias_hh (3H,), as in torch.nn.GRUCell, drawn from
    U(-1/√H, 1/√H). bias=False leaves both biases None.

    Deviations from the paper: the place of r_t, as published in GRUResetBefore; the paper has no biases.
    """

    gates = 3

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        x_r, x_z, x_n = F.linear(x, self.weight_ih, self.bias_ih).chunk(3, -1)
        h_r, h_z, h_n = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
        r = torch.sigmoid(x_r + h_r)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return (1 - z) * n + z * h


class GRUResetBefore(Gated):
    """r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + W_hn (r_t ∘ h_{t-1}) + b_hn)
    h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

    Cho et al. 2014, arXiv:1406.1078: the reset gate is applied before the product. Gate order in every parameter:
    r, z, n. The state h (B, H) is the output.

    Parameters: weight_ih (3H, D), weight_hh (3H, H), bias_ih and bias_hh (3H,), drawn from U(-1/√H, 1/√H). bias=False
    leaves both biases None.

    Deviation: the paper has no biases; here two, as torch.nn has. (Chung et al. 2014 exchange z_t and 1 - z_t.)
    """

    gates = 3

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        H = self.hidden_size
        b_rz, b_n = (None, None) if self.bias_hh is None else (self.bias_hh[: 2 * H], self.bias_hh[2 * H :])
        gates = F.linear(x, self.weight_ih, self.bias_ih)
        x_rz, x_n = gates[:, : 2 * H], gates[:, 2 * H :]
        r, z = torch.sigmoid(x_rz + F.linear(h, self.weight_hh[: 2 * H], b_rz)).chunk(2, -1)
        n = torch.tanh(x_n + F.linear(r * h, self.weight_hh[2 * H :], b_n))
        return (1 - z) * n + z * h

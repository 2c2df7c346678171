"""minGRU and minLSTM: gates that do not see the state, so that the recurrence is linear."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells._parameters import InputGated


class MinGRU(InputGated):
    """z_t = σ(W_z x_t + b_z)
    n_t = W_n x_t + b_n
    h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ n_t

    Feng, Tung, Hajimirsadeghi, Ahmed and Bengio 2024, arXiv:2410.01201. Gate order in every parameter: z, n. The state
    h (B, H) is the output.

    Parameters: weight_ih (2H, D), bias_ih (2H,), drawn from U(-1/√H, 1/√H). bias=False leaves bias_ih None.

    Deviation: the paper trains in log space, for which it makes n_t positive by a function g; a loop needs neither, and
    n_t is what the paper's equation says.
    """

    gates = 2

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        z, n = F.linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        z = torch.sigmoid(z)
        return torch.lerp(h, n, z)


class MinLSTM(InputGated):
    """f_t = σ(W_f x_t + b_f),   i_t = σ(W_i x_t + b_i),   n_t = W_n x_t + b_n
    h_t = f_t / (f_t + i_t) ∘ h_{t-1} + i_t / (f_t + i_t) ∘ n_t

    Feng, Tung, Hajimirsadeghi, Ahmed and Bengio 2024, arXiv:2410.01201. Gate order in every parameter: f, i, n. The
    state h (B, H) is the output; there is no cell state and no output gate.

    Parameters: weight_ih (3H, D), bias_ih (3H,), drawn from U(-1/√H, 1/√H). bias=False leaves bias_ih None.

    Deviation: not in log space, as in MinGRU. f / (f + i) is computed as σ(log f - log i), which is not 0 / 0 when both
    gates are shut.
    """

    gates = 3

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        f, i, n = F.linear(x, self.weight_ih, self.bias_ih).chunk(3, -1)
        keep = torch.sigmoid(F.softplus(-i) - F.softplus(-f))
        return torch.lerp(n, h, keep)

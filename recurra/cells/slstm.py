"""The scalar LSTM of xLSTM: exponential gates, a normaliser, and a stabiliser that keeps them in range."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells._parameters import Device, Dtype, ForgetGated, checked_forget_bias
from recurra.errors import CellError

LOG_FORGET: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": F.logsigmoid, "exp": lambda a: a}
EMPTY = -1e30  # the logarithm of the scale of nothing


class SLSTM(ForgetGated):
    """z_t = tanh(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    i_t = exp(ĩ_t),   ĩ_t = W_ii x_t + b_ii + W_hi h_{t-1} + b_hi
    f_t = σ(f̃_t) or exp(f̃_t),   f̃_t = W_if x_t + b_if + W_hf h_{t-1} + b_hf
    o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
    m_t = max(log f_t + m_{t-1}, ĩ_t),   i'_t = exp(ĩ_t - m_t),   f'_t = exp(log f_t + m_{t-1} - m_t)
    c_t = f'_t ∘ c_{t-1} + i'_t ∘ z_t,   n_t = f'_t ∘ n_{t-1} + i'_t
    h_t = o_t ∘ c_t / n_t

    Beck et al. 2024, arXiv:2405.04517, section 2.2: sLSTM. Gate order in every parameter: i, f, z, o. States:
    h (B, H), the output, c (B, H), n (B, H) and m (B, H). The true memory is exp(m) c over exp(m) n, so that no gate
    overflows. h, c and n start at 0, m at -1e30, so that the first step remembers nothing whatever its gates. After it
    n ≥ 1 and |c| ≤ n, for one of f' and i' is 1: nothing is divided by 0, unless a state from elsewhere has such an n.

    Parameters: weight_ih (4H, D), weight_hh (4H, H), bias_ih and bias_hh (4H,), drawn from U(-1/√H, 1/√H). bias=False
    leaves both biases None. forget_gate: "sigmoid" or "exp". forget_bias as in LSTM.

    Deviations: one head, where the paper's several make weight_hh block-diagonal; two biases, as torch.nn has. The
    block around the cell (convolution, group norm, projections) is not part of it.
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        forget_gate: str = "sigmoid",
        device: Device = None,
        dtype: Dtype = None,
        *,
        forget_bias: float | None = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.forget_bias = checked_forget_bias(self, forget_bias, bias)
        if forget_gate not in LOG_FORGET:
            raise CellError(f"SLSTM got forget_gate={forget_gate!r}. Choose {' or '.join(LOG_FORGET)}.")
        self.forget_gate = forget_gate
        self.reset_parameters()

    def initial(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        zero = self.weight_hh.new_zeros(batch, self.hidden_size)
        return zero, zero, zero, torch.full_like(zero, EMPTY)

    def step(self, x: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, f, z, o = gates.chunk(4, -1)
        old = LOG_FORGET[self.forget_gate](f) + m
        m = torch.maximum(old, i)
        keep, write = torch.exp(old - m), torch.exp(i - m)
        z, o = torch.tanh(z), torch.sigmoid(o)
        c = keep * c + write * z
        n = keep * n + write
        h = o * c / n
        return h, c, n, m

"""Long short-term memory, with the forget gate, as torch.nn writes it; and with a projected state."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cell import check_width
from recurra.cells._parameters import Device, Dtype, ForgetGated, Shapes, checked_forget_bias


class LSTM(ForgetGated):
    """i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
    f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
    c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
    h_t = o_t ∘ tanh(c_t)

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8); the forget gate is that of Gers, Schmidhuber and Cummins
    2000, Neural Computation 12(10). Gate order in every parameter: i, f, g, o. States: h and c (B, H); the output is h.

    Parameters: weight_ih (4H, D), weight_hh (4H, H), bias_ih and bias_hh (4H,), as in torch.nn.LSTMCell, drawn from
    U(-1/√H, 1/√H). bias=False leaves both biases None. forget_bias=1.0 starts the forget gate's two biases at this sum
    (Jozefowicz et al. 2015).

    Deviations: none of the papers' blocks, squashing ranges and truncated gradients; two biases, as torch.nn has.
    """

    gates = 4

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        h = o * torch.tanh(c)
        return h, c


class LSTMProjected(ForgetGated):
    """i_t, f_t, g_t, o_t, c_t as in LSTM,   h_t = W_hr (o_t ∘ tanh(c_t)).

    Sak, Senior and Beaufays 2014, arXiv:1402.1128. Gate order in every parameter: i, f, g, o. States: h (B, proj_size),
    c (B, H); the output is h.

    Parameters: weight_ih (4H, D), weight_hh (4H, P), bias_ih and bias_hh (4H,), weight_hr (P, H), as in
    torch.nn.LSTM(proj_size=P), drawn from U(-1/√H, 1/√H). bias=False leaves both biases None. forget_bias as in
    LSTM.

    Deviations: the paper's peepholes and its second, non-recurrent projection are left out, and there are two biases,
    as in torch.nn.
    """

    gates = 4
    weight_hr: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: Dtype = None,
        *,
        forget_bias: float | None = None,
    ) -> None:
        check_width(type(self).__name__, "proj_size", proj_size, "; without a projection the cell is LSTM")
        self.prepare(input_size, hidden_size, bias, device, dtype, h=proj_size)
        self.forget_bias = checked_forget_bias(self, forget_bias, bias)
        self.reset_parameters()

    def shapes(self) -> Shapes:
        return {**super().shapes(), "weight_hr": (self.state_sizes["h"], self.hidden_size)}

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        h = F.linear(o * torch.tanh(c), self.weight_hr)
        return h, c

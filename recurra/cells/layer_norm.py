"""LSTM and GRU with layer normalisation inside the step."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells._parameters import Device, Dtype, Shapes, Weighted, checked_forget_bias, set_forget_bias


class LayerNormed(Weighted, named_by_step=False):
    """A cell with weight_ih (gates H, D) and weight_hh (gates H, H), whose biases are those of its layer norms."""

    gates: int
    weight_hh: Tensor

    def shapes(self) -> Shapes:
        rows = self.gates * self.hidden_size
        return {"weight_ih": (rows, self.input_size), "weight_hh": (rows, self.hidden_size)}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for norm in self.children():
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()


class LSTMLayerNorm(LayerNormed):
    """(i_t, f_t, g_t, o_t) = LN(W_ih x_t) + LN(W_hh h_{t-1})
    c_t = σ(f_t) ∘ c_{t-1} + σ(i_t) ∘ tanh(g_t)
    h_t = σ(o_t) ∘ tanh(LN(c_t)),   LN(a) = α ∘ (a - mean a) / √(var a + ε) + β

    Ba, Kiros and Hinton 2016, arXiv:1607.06450. Each LN has its α and β, and the first two take mean and variance over
    all four gates together. Gate order in every parameter: i, f, g, o. States: h and c (B, H); the output is h.

    Parameters: weight_ih (4H, D), weight_hh (4H, H), drawn from U(-1/√H, 1/√H); norm_ih and norm_hh (4H), norm_c (H),
    as torch.nn.LayerNorm: α starts at 1, β at 0. bias=False leaves every β None. forget_bias as in LSTM, in β.

    Deviations: the paper adds a bias to the gates, which β of norm_ih is already, and has no ε (eps=1e-5 unless given).
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        eps: float = 1e-5,
        device: Device = None,
        dtype: Dtype = None,
        *,
        forget_bias: float | None = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.forget_bias = checked_forget_bias(self, forget_bias, bias)
        norm = partial(nn.LayerNorm, eps=eps, bias=bias, device=device, dtype=dtype)
        self.norm_ih, self.norm_hh, self.norm_c = norm(4 * hidden_size), norm(4 * hidden_size), norm(hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        set_forget_bias(self.forget_bias, 1, self.hidden_size, self.norm_ih.bias, self.norm_hh.bias)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.norm_ih(F.linear(x, self.weight_ih)) + self.norm_hh(F.linear(h, self.weight_hh))
        i, f, g, o = gates.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        h = o * torch.tanh(self.norm_c(c))
        return h, c


class GRULayerNorm(LayerNormed):
    """(r_t, z_t) = σ(LN(W_irz x_t) + LN(W_hrz h_{t-1}))
    n_t = tanh(LN(W_in x_t) + r_t ∘ LN(W_hn h_{t-1}))
    h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1},   LN(a) = α ∘ (a - mean a) / √(var a + ε) + β

    Ba, Kiros and Hinton 2016, arXiv:1607.06450. Each LN has its α and β; those of the gates take mean and variance over
    r and z together. Gate order in every parameter: r, z, n. The state h (B, H) is the output.

    Parameters: weight_ih (3H, D), weight_hh (3H, H), drawn from U(-1/√H, 1/√H); norm_ih and norm_hh (2H), norm_in and
    norm_hn (H), as torch.nn.LayerNorm: α starts at 1, β at 0. bias=False leaves every β None.

    Deviations: the paper exchanges z_t and 1 - z_t, here as in GRU, whose place of r_t is the paper's; it has no ε
    (eps=1e-5 unless given).
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        eps: float = 1e-5,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        norm = partial(nn.LayerNorm, eps=eps, bias=bias, device=device, dtype=dtype)
        self.norm_ih, self.norm_hh = norm(2 * hidden_size), norm(2 * hidden_size)
        self.norm_in, self.norm_hn = norm(hidden_size), norm(hidden_size)
        self.reset_parameters()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        H = self.hidden_size
        x, g = F.linear(x, self.weight_ih), F.linear(h, self.weight_hh)
        r, z = torch.sigmoid(self.norm_ih(x[:, : 2 * H]) + self.norm_hh(g[:, : 2 * H])).chunk(2, -1)
        n = torch.tanh(self.norm_in(x[:, 2 * H :]) + r * self.norm_hn(g[:, 2 * H :]))
        return (1 - z) * n + z * h

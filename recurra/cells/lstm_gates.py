"""Long short-term memory with other gates: none that forgets, gates that see the cell, two gates in one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells._parameters import ForgetGated, Gated, Shapes


class LSTMOriginal(Gated):
    """i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
    c_t = c_{t-1} + i_t ∘ g_t
    h_t = o_t ∘ tanh(c_t)

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8): the first LSTM, which never forgets. Gate order in every
    parameter: i, g, o. States: h and c (B, H); the output is h.

    Parameters: weight_ih (3H, D), weight_hh (3H, H), bias_ih and bias_hh (3H,), drawn from U(-1/√H, 1/√H). bias=False
    leaves both biases None.

    Deviations: the paper squashes g_t into (-2, 2), groups cells into blocks that share gates, lets gates read the
    previous values of gates, and truncates its gradients at them; none of these here. Two biases, as torch.nn has.
    """

    gates = 3

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, g, o = gates.chunk(3, -1)
        i, g, o = torch.sigmoid(i), torch.tanh(g), torch.sigmoid(o)
        c = c + i * g
        h = o * torch.tanh(c)
        return h, c


class LSTMPeephole(ForgetGated):
    """i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i ∘ c_{t-1})
    f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf + p_f ∘ c_{t-1})
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
    o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o ∘ c_t)
    h_t = o_t ∘ tanh(c_t)

    Gers and Schmidhuber 2000, IJCNN; Gers, Schraudolph and Schmidhuber 2002, JMLR 3: the gates see the cell, the output
    gate the new one. Gate order in every parameter: i, f, g, o, and i, f, o in weight_ph. States: h and c (B, H); the
    output is h.

    Parameters: weight_ih (4H, D), weight_hh (4H, H), weight_ph (3H,), bias_ih and bias_hh (4H,), drawn from
    U(-1/√H, 1/√H). bias=False leaves both biases None. forget_bias as in LSTM.

    Deviations: the papers cut the gradients through the peepholes, here they are whole, and group cells into blocks
    that share gates, here each has its own. Two biases, as torch.nn has.
    """

    gates = 4
    weight_ph: Tensor

    def shapes(self) -> Shapes:
        return {**super().shapes(), "weight_ph": (3 * self.hidden_size,)}

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, -1)
        p_i, p_f, p_o = self.weight_ph.chunk(3)
        i, f, g = torch.sigmoid(i + p_i * c), torch.sigmoid(f + p_f * c), torch.tanh(g)
        c = f * c + i * g
        o = torch.sigmoid(o + p_o * c)
        h = o * torch.tanh(c)
        return h, c


class LSTMCoupled(Gated):
    """i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
    c_t = (1 - i_t) ∘ c_{t-1} + i_t ∘ g_t
    h_t = o_t ∘ tanh(c_t)

    Greff, Srivastava, Koutník, Steunebrink and Schmidhuber 2017, arXiv:1503.04069 (there CIFG): what is written takes
    the place of what is forgotten, f_t = 1 - i_t. Gate order in every parameter: i, g, o. States: h and c (B, H); the
    output is h.

    Parameters: weight_ih (3H, D), weight_hh (3H, H), bias_ih and bias_hh (3H,), drawn from U(-1/√H, 1/√H). bias=False
    leaves both biases None.

    Deviations: the paper's peepholes are left out; two biases, as torch.nn has.
    """

    gates = 3

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, g, o = gates.chunk(3, -1)
        i, g, o = torch.sigmoid(i), torch.tanh(g), torch.sigmoid(o)
        c = torch.lerp(c, g, i)
        h = o * torch.tanh(c)
        return h, c

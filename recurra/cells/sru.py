"""The simple recurrent unit: gates that see their own unit's past only, and a highway past the memory."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells._parameters import Shapes, Weighted


class SRU(Weighted):
    """f_t = σ(W_f x_t + v_f ∘ c_{t-1} + b_f)
    r_t = σ(W_r x_t + v_r ∘ c_{t-1} + b_r)
    c_t = f_t ∘ c_{t-1} + (1 - f_t) ∘ (W x_t)
    h_t = r_t ∘ c_t + (1 - r_t) ∘ α x_t,   α = √3

    Lei, Zhang, Wang, Dai and Artzi 2018, arXiv:1709.02755. Gate order in every parameter: W, f, r (and the highway's
    rows last); f, r in weight_ch and bias_ih. The state is c (B, H); h is the output only.

    Parameters: weight_ih (3H, D), or (4H, D) when D and H differ, its last H rows making x_t as wide as h_t; drawn from
    U(-√(3/D), √(3/D)), the rows of the gates times √½. weight_ch v (2H,), drawn from U(-√1.5, √1.5). bias_ih (2H,),
    starts at 0. bias=False leaves bias_ih None.

    Deviations: the highway's product for D ≠ H, and the factors √½, are those of the authors' code. α is fixed: the
    paper's √(1 + 2 exp(b_r)) at its b_r = 0.
    """

    weight_ch: Tensor
    bias_ih: Tensor | None

    def shapes(self) -> Shapes:
        D, H = self.input_size, self.hidden_size
        return {"weight_ih": (3 * H if D == H else 4 * H, D), "weight_ch": (2 * H,), "bias_ih": (2 * H,)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        H, k = self.hidden_size, math.sqrt(3 / self.input_size)
        nn.init.uniform_(self.weight_ih, -k, k)
        self.weight_ih[H : 3 * H] *= math.sqrt(0.5)
        nn.init.uniform_(self.weight_ch, -math.sqrt(1.5), math.sqrt(1.5))
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)

    def step(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        u, f, r, *skip = F.linear(x, self.weight_ih).chunk(self.weight_ih.shape[0] // self.hidden_size, -1)
        v_f, v_r = self.weight_ch.chunk(2)
        if self.bias_ih is not None:
            b_f, b_r = self.bias_ih.chunk(2)
            f, r = f + b_f, r + b_r
        f, r = torch.sigmoid(f + v_f * c), torch.sigmoid(r + v_r * c)
        c = torch.lerp(u, c, f)
        highway = math.sqrt(3) * (skip[0] if skip else x)
        return torch.lerp(highway, c, r), c

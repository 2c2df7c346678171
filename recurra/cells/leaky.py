"""The leaky integrator: units that move a part of the way to where an Elman network would jump."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cell import Cell
from recurra.cells._parameters import Device, add, add_gates, draw
from recurra.cells.elman import NONLINEARITIES, check_nonlinearity
from recurra.errors import CellError


class LeakyIntegrator(Cell):
    """h_t = (1 - a) ∘ h_{t-1} + a ∘ φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   a = σ(α),   φ = tanh or relu.

    Jaeger, Lukoševičius, Popovici and Siewert 2007, Neural Networks 20(3), leaky echo state networks; a is also the
    Euler step Δt/τ of the continuous-time network τ h' = -h + φ(…) (Funahashi and Nakamura 1993). The output is the
    state h (B, H).

    Parameters: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,), drawn from U(-1/√H, 1/√H), and logit_leak
    α (H,), which starts so that a = leak (0.5 unless given) for every unit. bias=False leaves both biases None.

    Deviations: a is learned for each unit, and all weights are, where an echo state network keeps them as drawn:
    `requires_grad_(False)` on them; its W_hh is sparse and scaled to a spectral radius.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    logit_leak: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        leak: float = 0.5,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_nonlinearity(self, nonlinearity)
        if not 0 < leak < 1:
            raise CellError(
                f"LeakyIntegrator got leak={leak}. Give a number between 0 and 1; without a leak use Elman."
            )
        self.nonlinearity = nonlinearity
        self.leak = leak
        add_gates(self, hidden_size, input_size, hidden_size, bias, device, dtype)
        add(self, device, dtype, logit_leak=(hidden_size,))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        draw(self, self.hidden_size)
        nn.init.constant_(self.logit_leak, math.log(self.leak / (1 - self.leak)))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        return torch.lerp(h, NONLINEARITIES[self.nonlinearity](a), torch.sigmoid(self.logit_leak))

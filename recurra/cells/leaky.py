"""The leaky integrator: units that move a part of the way to where an Elman network would jump."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells._parameters import Device, Dtype, Gated, Shapes
from recurra.cells.elman import NONLINEARITIES, checked_nonlinearity
from recurra.errors import CellError


class LeakyIntegrator(Gated):
    """h_t = (1 - a) ∘ h_{t-1} + a ∘ φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh),   a = σ(α),   φ = tanh or relu.

    Jaeger, Lukoševičius, Popovici and Siewert 2007, Neural Networks 20(3), leaky echo state networks; a is also the
    Euler step Δt/τ of the continuous-time network τ h' = -h + φ(…) (Funahashi and Nakamura 1993). The output is the
    state h (B, H).

    Parameters: weight_ih (H, D), weight_hh (H, H), bias_ih and bias_hh (H,), drawn from U(-1/√H, 1/√H), and logit_leak
    α (H,), which starts so that a = leak (0.5 unless given) for every unit. bias=False leaves both biases None.

    Deviations: a is learned for each unit, and all weights are, where an echo state network keeps them as drawn:
    `requires_grad_(False)` on them; its W_hh is sparse and scaled to a spectral radius. The paper has a gain beside the
    leak, (1 - a γ) and γ, and feeds outputs back; here one number does for both, and the readout is a layer above.
    """

    gates = 1
    logit_leak: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        leak: float = 0.5,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = checked_nonlinearity(self, nonlinearity)
        if not 0 < leak < 1:
            raise CellError(
                f"LeakyIntegrator got leak={leak}. Give a number between 0 and 1; without a leak use Elman."
            )
        self.leak = leak
        self.reset_parameters()

    def shapes(self) -> Shapes:
        return {**super().shapes(), "logit_leak": (self.hidden_size,)}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.logit_leak, math.log(self.leak / (1 - self.leak)))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        a = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        return torch.lerp(h, NONLINEARITIES[self.nonlinearity](a), torch.sigmoid(self.logit_leak))

"""The independently recurrent network: every unit sees its own past only."""

import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells._parameters import Device, Dtype, Shapes, Weighted
from recurra.cells.elman import NONLINEARITIES, checked_nonlinearity


class IndRNN(Weighted):
    """h_t = φ(W x_t + b + u ∘ h_{t-1}),   φ = relu or tanh.

    Li, Li, Cook, Zhu and Gao 2018, arXiv:1803.04831. The output is the state h (B, H). Units meet in the layer above.

    Parameters: weight_ih W (H, D) and bias_ih b (H,), drawn from U(-1/√H, 1/√H); weight_hh u (H,), drawn from U(0, 1).
    bias=False leaves bias_ih None.

    Deviations: the paper draws u from U(0, 2^(1/T)) for sequences of T steps, and clips it there while training, which
    is left to the training loop.
    """

    weight_hh: Tensor
    bias_ih: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "relu",
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        self.prepare(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = checked_nonlinearity(self, nonlinearity)
        self.reset_parameters()

    def shapes(self) -> Shapes:
        H = self.hidden_size
        return {"weight_ih": (H, self.input_size), "weight_hh": (H,), "bias_ih": (H,)}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.uniform_(self.weight_hh, 0, 1)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        a = F.linear(x, self.weight_ih, self.bias_ih) + self.weight_hh * h
        return NONLINEARITIES[self.nonlinearity](a)

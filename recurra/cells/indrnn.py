"""The independently recurrent network: every unit sees its own past only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cell import Cell
from recurra.cells._parameters import Device, add, draw
from recurra.cells.elman import NONLINEARITIES, check_nonlinearity


class IndRNN(Cell):
    """h_t = φ(W x_t + b + u ∘ h_{t-1}),   φ = relu or tanh.

    Li, Li, Cook, Zhu and Gao 2018, arXiv:1803.04831. The output is the state h (B, H). Units meet in the layer above.

    Parameters: weight_ih W (H, D) and bias_ih b (H,), drawn from U(-1/√H, 1/√H); weight_hh u (H,), drawn from U(0, 1).
    bias=False leaves bias_ih None.

    Deviations: the paper draws u from U(0, 2^(1/T)) for sequences of T steps, and clips it there while training, which
    is left to the training loop.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "relu",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_nonlinearity(self, nonlinearity)
        self.nonlinearity = nonlinearity
        H = hidden_size
        add(self, device, dtype, weight_ih=(H, input_size), weight_hh=(H,), bias_ih=(H,) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        draw(self, self.hidden_size)
        nn.init.uniform_(self.weight_hh, 0, 1)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        a = F.linear(x, self.weight_ih, self.bias_ih) + self.weight_hh * h
        return NONLINEARITIES[self.nonlinearity](a)

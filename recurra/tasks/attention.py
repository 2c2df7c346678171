"""Self-attention: every symbol sees every other."""

import math

import torch
from torch import Tensor, nn

from recurra.tasks.encoder import ACTIVATIONS, Encoder, within

_HEADS = 4


class TransformerEncoder(Encoder):
    """Self-attention of four heads and a perceptron in each layer, with the sinusoidal positions of the paper.

    Vaswani et al. 2017, arXiv:1706.03762; normalised before each part (Xiong et al. 2020, arXiv:2002.04745).
    """

    def __init__(self, input_size: int, hidden: int, layers: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, hidden)
        heads = _HEADS if hidden % _HEADS == 0 else 1
        layer = nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, dropout, ACTIVATIONS[activation], norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)
        self.width = hidden

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = self.project(x) + positions(x.shape[0], self.width)[:, None]
        return self.layers(x, src_key_padding_mask=~within(lengths, x)[..., 0].t()), lengths


def positions(steps: int, width: int) -> Tensor:
    """sin(t / 10000^(2k/D)) and cos of the same, (T, D)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    angles = torch.arange(steps)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]

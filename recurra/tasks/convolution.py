"""Convolutions over the symbols side by side."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.regularise.values import dropout
from recurra.tasks.encoder import ACTIVATIONS, Encoder, normaliser, within

_WINDOWS = (3, 4, 5)  # symbols that a convolution of the first layer sees


class ConvolutionEncoder(Encoder):
    """y = g(N(convolutions over 3, 4 and 5 symbols side by side)), then residual blocks: y ← y + g(N(conv_3(y))).

    g is the activation, N the normalisation, where there is one. Kim 2014, EMNLP, for the first layer; He et al. 2016,
    arXiv:1512.03385, for the others. Past the ends is zero.
    """

    def __init__(
        self, input_size: int, hidden: int, layers: int, dropout: float, activation: str, normalisation: str
    ) -> None:
        super().__init__()
        self.windows = nn.ModuleList(nn.Conv1d(input_size, hidden, n) for n in _WINDOWS)
        self.width, self.dropout, self.activation = hidden * len(_WINDOWS), dropout, activation
        self.residual = nn.ModuleList(nn.Conv1d(self.width, self.width, 3) for _ in range(layers - 1))
        self.normal = nn.ModuleList(filter(None, (normaliser(normalisation, self.width) for _ in range(layers))))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        inside = within(lengths, x)
        y = self._through(0, torch.cat([_convolved(layer, x * inside) for layer in self.windows], -1), inside)
        for n, layer in enumerate(self.residual, 1):
            below = dropout(y, self.dropout, self.training) * inside
            y = y + self._through(n, _convolved(layer, below), inside)
        return y, lengths

    def _through(self, layer: int, y: Tensor, inside: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.normal[layer](y, inside) if self.normal else y)


def _convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """conv(x) over time, as long as x: (T, B, D) -> (T, B, H)."""
    assert isinstance(layer, nn.Conv1d)
    width = layer.kernel_size[0]
    padded = F.pad(x.permute(1, 2, 0), ((width - 1) // 2, width // 2))
    convolved: Tensor = layer(padded)
    return convolved.permute(2, 0, 1)

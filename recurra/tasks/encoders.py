"""Encoders: what turns vectors of symbols into vectors that know of their neighbours. All have one interface."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells.by_name import cell_named
from recurra.layers import Bidirectional, Recurrent
from recurra.unroll.precision import checked

ENCODERS = ("recurrent", "bag", "cnn", "transformer")
EncoderName = Literal["recurrent", "bag", "cnn", "transformer"]
_WINDOWS = (3, 4, 5)  # symbols that a convolution of the first layer sees
_HEADS = 4


class Encoder(nn.Module, ABC):
    """y, lengths = encoder(x, lengths): x (T, B, D), lengths (B,) from 1 to T -> y (T', B, width), lengths (B,).

    What stands past a length in x never changes y within it; what stands past a length in y means nothing.
    """

    width: int

    @abstractmethod
    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]: ...


class RecurrentEncoder(Encoder):
    """Layers of any cell, one on top of the other, each in one direction or in both; dropout between them.

    Forget gates start open, with a bias of 1 (Jozefowicz et al. 2015, ICML).
    """

    def __init__(
        self, cell: str, input_size: int, hidden: int, layers: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.bidirectional, self.dropout = bidirectional, dropout
        self.layers = nn.ModuleList()
        self.width = input_size
        for _ in range(layers):
            made = cell_named(cell, self.width, hidden, forget_bias=1.0)
            self.width = made.output_size * (2 if bidirectional else 1)
            layer = Recurrent(made)
            self.layers.append(Bidirectional(layer) if bidirectional else layer)

    def compute_in(self, precision: str) -> None:
        """What the layers compute in from now on."""
        for layer in self.modules():
            if isinstance(layer, Recurrent):
                layer.precision = None if checked(precision) == "fp32" else precision  # which its weights are

    @property
    def precision(self) -> str:
        """What the layers compute in."""
        return next(layer.precision for layer in self.modules() if isinstance(layer, Recurrent)) or "fp32"

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        dtype = x.dtype
        for number, layer in enumerate(self.layers):
            if number:
                x = F.dropout(x, self.dropout, self.training)
            x, _ = layer(x, lengths=lengths)
        return x.to(dtype), lengths  # of layers in fp64 too


class BagEncoder(Encoder):
    """y = g(W … g(W mean_t x_t + b) … + b), g = ReLU: a perceptron on the bag of symbols, blind to their order.

    One step long. Iyyer et al. 2015, ACL, "deep averaging networks".
    """

    def __init__(self, input_size: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(hidden if n else input_size, hidden) for n in range(layers))
        self.width, self.dropout = hidden, dropout

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = (x * within(lengths, x)).sum(0) / lengths[:, None]
        for layer in self.layers:
            y = F.dropout(torch.relu(layer(y)), self.dropout, self.training)
        return y[None], torch.ones_like(lengths)


class ConvolutionEncoder(Encoder):
    """y = ReLU of convolutions over 3, 4 and 5 symbols side by side, then residual ones: y ← y + ReLU(conv_3(y)).

    Kim 2014, EMNLP, for the first layer; He et al. 2016, arXiv:1512.03385, for the others. Past the ends is zero.
    """

    def __init__(self, input_size: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.windows = nn.ModuleList(nn.Conv1d(input_size, hidden, n) for n in _WINDOWS)
        self.width, self.dropout = hidden * len(_WINDOWS), dropout
        self.residual = nn.ModuleList(nn.Conv1d(self.width, self.width, 3) for _ in range(layers - 1))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        inside = within(lengths, x)
        y = torch.cat([_convolved(layer, x * inside) for layer in self.windows], -1)
        for layer in self.residual:
            y = y + _convolved(layer, F.dropout(y, self.dropout, self.training) * inside)
        return y, lengths


def _convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """ReLU(conv(x)) over time, as long as x: (T, B, D) -> (T, B, H)."""
    assert isinstance(layer, nn.Conv1d)
    width = layer.kernel_size[0]
    padded = F.pad(x.permute(1, 2, 0), ((width - 1) // 2, width // 2))
    return torch.relu(layer(padded)).permute(2, 0, 1)


class TransformerEncoder(Encoder):
    """Self-attention of four heads and a perceptron in each layer, with the sinusoidal positions of the paper.

    Vaswani et al. 2017, arXiv:1706.03762; normalised before each part (Xiong et al. 2020, arXiv:2002.04745).
    """

    def __init__(self, input_size: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, hidden)
        heads = _HEADS if hidden % _HEADS == 0 else 1
        layer = nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, dropout, norm_first=True)
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


def within(lengths: Tensor, x: Tensor) -> Tensor:
    """True at the steps of x (T, B, D) within their lengths (B,): (T, B, 1)."""
    return (torch.arange(x.shape[0])[:, None] < lengths)[..., None]

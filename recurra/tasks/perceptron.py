"""Perceptrons: of the bag of all symbols, or of each symbol by itself."""

import torch
from torch import Tensor, nn

from recurra.regularise.values import dropout
from recurra.tasks.encoder import ACTIVATIONS, Encoder, normaliser, within


class Perceptron(nn.Module):
    """y ← g(N(W y + b)), layer after layer: g the activation, N the normalisation, where there is one."""

    def __init__(
        self, input_size: int, hidden: int, layers: int, dropout: float, activation: str, normalisation: str
    ) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(hidden if n else input_size, hidden) for n in range(layers))
        self.normal = nn.ModuleList(filter(None, (normaliser(normalisation, hidden) for _ in range(layers))))
        self.dropout, self.activation = dropout, activation

    def forward(self, y: Tensor, inside: Tensor) -> Tensor:
        for n, layer in enumerate(self.linear):
            y = self.normal[n](layer(y), inside) if self.normal else layer(y)
            y = dropout(ACTIVATIONS[self.activation](y), self.dropout, self.training)
        return y


class BagEncoder(Encoder):
    """y = perceptron(mean_t x_t): of the bag of symbols, blind to their order; one step long.

    Iyyer et al. 2015, ACL, "deep averaging networks".
    """

    aligned = False

    def __init__(self, perceptron: Perceptron, hidden: int) -> None:
        super().__init__()
        self.perceptron, self.width = perceptron, hidden

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = (x * within(lengths, x)).sum(0) / lengths[:, None]
        one = torch.ones_like(lengths)
        return self.perceptron(y[None], within(one, y[None])), one


class PerceptronEncoder(Encoder):
    """y_t = perceptron(x_t): each symbol by itself, its neighbours unseen."""

    def __init__(self, perceptron: Perceptron, hidden: int) -> None:
        super().__init__()
        self.perceptron, self.width = perceptron, hidden

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.perceptron(x, within(lengths, x)), lengths

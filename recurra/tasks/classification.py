"""Classification of sequences of symbols: the network, its loss, and its probabilities.

p(k | s_1 … s_T) = softmax(W pool(encoder(E s)) + b)_k
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.data.buckets import Buckets, padded
from recurra.errors import InputError
from recurra.tasks.encoders import (
    BagEncoder,
    ConvolutionEncoder,
    Encoder,
    EncoderName,
    RecurrentEncoder,
    TransformerEncoder,
)
from recurra.tasks.pooling import Pooling
from recurra.unroll import visits
from recurra.unroll.precision import checked

_BATCH = 64  # of a measurement


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fixes the shapes of a network's weights, beside its symbols and labels."""

    encoder: EncoderName
    cell: str | None  # of a recurrent encoder
    bidirectional: bool
    layers: Annotated[int, Meta(ge=1, le=1000)]
    hidden: Annotated[int, Meta(ge=1)]
    embedding: Annotated[int, Meta(ge=0)]  # 0: one-hot
    pooling: Literal["last", "mean", "max", "attention"]


class ClassificationNetwork(nn.Module):
    """Symbols (T, B) and lengths (B,) to scores of the labels (B, K)."""

    def __init__(self, sizes: Sizes, symbols: int, labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.symbols, self.dropout = symbols, dropout
        self.embedding = nn.Embedding(symbols, sizes.embedding) if sizes.embedding else None
        self.encoder = encoder_of(sizes, sizes.embedding or symbols, dropout)
        self.pooling = Pooling(sizes.pooling, self.encoder.width, 2 if sizes.bidirectional else 1)
        self.output = nn.Linear(self.encoder.width, labels)

    def compute_in(self, precision: str) -> None:
        """What the recurrent layers compute in from now on. Raises InputError for an encoder that has none."""
        if isinstance(self.encoder, RecurrentEncoder):
            self.encoder.compute_in(precision)
        elif checked(precision) != "fp32":
            raise InputError(
                f"precision={precision!r} is one of recurrent layers, and this model has none; leave it out."
            )

    @torch.no_grad()
    def rounding_error(self) -> float | None:
        """In int8, how far the outputs of a recurrent layer are at most from those in fp32, of the largest."""
        with visits() as seen:
            self(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, dtype=torch.long))
        return max((v.error for v in seen if v.error is not None), default=None)

    def forward(self, symbols: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(symbols) if self.embedding else F.one_hot(symbols, self.symbols).to(self.output.weight.dtype)
        y, lengths = self.encoder(F.dropout(x, self.dropout, self.training), lengths)
        scores: Tensor = self.output(F.dropout(self.pooling(y, lengths), self.dropout, self.training))
        return scores


def encoder_of(sizes: Sizes, width: int, dropout: float) -> Encoder:
    """The encoder of these sizes for vectors of a width."""
    match sizes.encoder:
        case "recurrent":
            assert sizes.cell is not None
            return RecurrentEncoder(sizes.cell, width, sizes.hidden, sizes.layers, sizes.bidirectional, dropout)
        case "bag":
            return BagEncoder(width, sizes.hidden, sizes.layers, dropout)
        case "cnn":
            return ConvolutionEncoder(width, sizes.hidden, sizes.layers, dropout)
        case "transformer":
            return TransformerEncoder(width, sizes.hidden, sizes.layers, dropout)


@torch.no_grad()
def scores_of(network: ClassificationNetwork, sequences: list[NDArray[np.int64]]) -> Tensor:
    """The scores (N, K) of sequences, read in batches of like length; in the order of the sequences."""
    was_training = network.training
    network.eval()
    buckets = Buckets(sequences, _BATCH, seed=0)
    scores = torch.empty(len(sequences), network.output.out_features)
    for index in range(buckets.batches):
        rows = buckets.rows(0, index)
        scores[torch.from_numpy(rows)] = network(*padded([sequences[row] for row in rows]))
    network.train(was_training)
    return scores


def fitted_temperature(scores: Tensor, targets: Tensor) -> float:
    """The T > 0 for which softmax(scores / T) has the least cross-entropy: golden section over ln T in [-3, 3].

    Guo et al. 2017, arXiv:1706.04599. It changes no decision, only how sure the model says it is.
    """
    scores = scores.double()

    def loss(logarithm: float) -> float:
        return float(F.cross_entropy(scores / np.exp(logarithm), targets))

    low, high, ratio = -3.0, 3.0, (5**0.5 - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))

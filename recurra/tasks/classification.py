"""Classification of sequences of symbols: the network, its loss, and its probabilities.

p(k | s_1 … s_T) = softmax(W pool(encoder(E s)) + b)_k
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.data.buckets import Buckets
from recurra.data.subwords import Reader, Spelling, inputs
from recurra.regularise.values import dropout
from recurra.tasks.embedding import SymbolEmbedding
from recurra.tasks.encoders import EncoderSizes, encoder_of
from recurra.tasks.initialisers import initialise
from recurra.tasks.pooling import Pooling
from recurra.unroll import visits

_BATCH = 64  # of a measurement


class Sizes(EncoderSizes, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What fixes the shapes of a network's weights, beside its symbols and labels."""

    embedding: Annotated[int, Meta(ge=0)]  # 0: one-hot
    pooling: Literal["last", "mean", "max", "attention"]


@dataclass(frozen=True)
class Beginning:
    """What a network starts training with; of no matter to one that is loaded."""

    dropout: float = 0.0
    word_dropout: float = 0.0  # share of symbols that are read as the unknown one
    initialiser: str = "default"
    forget_bias: float = 1.0


class ClassificationNetwork(nn.Module):
    """Symbols (T, B), lengths (B,) and the spelling of the symbols to scores of the labels (B, K)."""

    def __init__(
        self, sizes: Sizes, symbols: int, labels: int, beginning: Beginning = Beginning(), subwords: int | None = None
    ) -> None:
        super().__init__()
        self.dropout = beginning.dropout
        self.embedding = SymbolEmbedding(symbols, sizes.embedding, subwords, beginning.word_dropout)
        self.encoder = encoder_of(sizes, sizes.embedding or symbols, beginning.dropout, beginning.forget_bias)
        self.pooling = Pooling(sizes.pooling, self.encoder.width, 2 if sizes.bidirectional else 1)
        self.output = nn.Linear(self.encoder.width, labels)
        for part in (self.encoder, self.pooling, self.output):
            initialise(part, beginning.initialiser)

    def compute_in(self, precision: str) -> None:
        """What the recurrent layers of the encoder compute in from now on. Raises InputError where it has none."""
        self.encoder.compute_in(precision)

    @torch.no_grad()
    def rounding_error(self) -> float | None:
        """In int8, how far the outputs of a recurrent layer are at most from those in fp32, of the largest."""
        with visits() as seen:
            self(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, dtype=torch.long))
        return max((v.error for v in seen if v.error is not None), default=None)

    def forward(self, symbols: Tensor, lengths: Tensor, spelling: Spelling | None = None) -> Tensor:
        x = self.embedding(symbols, spelling)
        y, lengths = self.encoder(dropout(x, self.dropout, self.training), lengths)
        scores: Tensor = self.output(dropout(self.pooling(y, lengths), self.dropout, self.training))
        return scores


@torch.no_grad()
def scores_of(network: ClassificationNetwork, reader: Reader, sequences: list[NDArray[np.int64]]) -> Tensor:
    """The scores (N, K) of what the reader made of texts, in batches of like length; in the order of the texts."""
    was_training = network.training
    network.eval()
    buckets = Buckets(sequences, _BATCH, seed=0)
    scores = torch.empty(len(sequences), network.output.out_features)
    for index in range(buckets.batches):
        rows = buckets.rows(0, index)
        scores[torch.from_numpy(rows)] = network(*inputs(reader, [sequences[row] for row in rows]))
    network.train(was_training)
    return scores


def loss_of(scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in nats, mean over the batch.

    targets (B,): the numbers of labels; of a label each, -ln softmax(scores)_k, with weights (K,) the weighted mean.
    targets (B, K): 1 for each label of a row, which may have several; the mean over the labels, too, of
    -w y ln σ(s) - (1 - y) ln(1 - σ(s)).
    """
    if targets.ndim == 1:
        return F.cross_entropy(scores, targets, weights)
    return F.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype), pos_weight=weights)


def balancing(targets: Tensor, labels: int) -> Tensor:
    """Weights (K,) by which every label counts as much as any other; of several, its rows as much as the rest."""
    if targets.ndim == 1:
        return len(targets) / (labels * torch.bincount(targets, minlength=labels))
    having = targets.sum(0)
    return (len(targets) - having).clamp(min=1) / having.clamp(min=1)


def fitted_temperature(scores: Tensor, targets: Tensor) -> float:
    """The T > 0 for which scores / T have the least cross-entropy: golden section over ln T in [-3, 3].

    Guo et al. 2017, arXiv:1706.04599. It changes no order of labels, only how sure the model says it is.
    """
    scores = scores.double()

    def loss(logarithm: float) -> float:
        return float(loss_of(scores / np.exp(logarithm), targets))

    low, high, ratio = -3.0, 3.0, (5**0.5 - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))


def fitted_threshold(probabilities: Tensor, targets: Tensor) -> float:
    """The probability from which on a label is given, for which micro F1 = 2 hits / (given + true) is highest.

    Halfway between two probabilities that occur; of equally good ones the nearest to 1/2. (N, K), (N, K).
    """
    order = probabilities.double().flatten().argsort(descending=True)
    sorted_, true = probabilities.double().flatten()[order], targets.double().flatten()[order]
    given = torch.arange(1, len(true) + 1, dtype=torch.double)
    f1 = 2 * true.cumsum(0) / (given + true.sum())
    cuts = torch.cat([(sorted_[:-1] + sorted_[1:]) / 2, sorted_[-1:] / 2])
    cuttable = torch.cat([sorted_[:-1] > sorted_[1:], torch.ones(1, dtype=torch.bool)])
    best = cuttable & (f1 >= f1[cuttable].max() - 1e-12)
    return float(min(cuts[best].tolist(), key=lambda cut: abs(cut - 0.5)))

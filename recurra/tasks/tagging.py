"""Tagging of sequences of words: the network, its loss, and its tags.

x_t = [E w_t; c_t],   e_t = W encoder(x)_t + b,   p(y | e) by a conditional random field (`crf.py`),

where c_t is made of the letters of the word by a small bidirectional LSTM (Lample et al. 2016, arXiv:1603.01360), or,
where words are characters, the vector of the pair that begins here (Zhang & Yang 2018, arXiv:1805.02023). A sentence
that has a label is told apart by the pooled encoder, with a loss of its own (Liu & Lane 2016, arXiv:1609.01454).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.data.buckets import Buckets, padded
from recurra.data.schemes import OUTSIDE, may_follow
from recurra.data.spelling import Batch, Spelling
from recurra.regularise.values import dropout
from recurra.tasks.crf import Independent, LinearChain, TagModel
from recurra.tasks.encoders import EncoderSizes, encoder_of
from recurra.tasks.pooling import Pooling
from recurra.tasks.recurrent import RecurrentEncoder
from recurra.unroll import visits

_BATCH = 64  # of a measurement


class Sizes(EncoderSizes, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What fixes the shapes of a network's weights, beside its words, tags and labels."""

    embedding: Annotated[int, Meta(ge=1)]
    parts: Annotated[int, Meta(ge=1)]  # width of what a word is made of
    output: Literal["crf", "softmax"]
    pooling: Literal["last", "mean", "max", "attention"]


class TaggingNetwork(nn.Module):
    """A batch to the scores of tags (T, B, K), and of sentence labels (B, M) where there are some.

    tags: their names, which with the scheme say which may follow which; scheme None: every one every other.
    """

    def __init__(
        self, sizes: Sizes, spelling: Spelling, tags: Sequence[str], scheme: str | None, labels: int = 0,
        dropout: float = 0.0, forget_bias: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(len(spelling.units), sizes.embedding)
        self.embedding_parts = nn.Embedding(len(spelling.parts), sizes.parts)
        self.speller: RecurrentEncoder | None = None
        made = sizes.parts
        if not spelling.of_characters:
            self.speller = RecurrentEncoder("lstm", sizes.parts, sizes.parts, 1, True, 0.0)
            made = self.speller.width
        self.last = Pooling("last", made, 2)
        width = sizes.embedding + made
        self.encoder = encoder_of(sizes, width, dropout, forget_bias)
        self.output = nn.Linear(self.encoder.width, len(tags))
        model = LinearChain if sizes.output == "crf" else Independent
        self.chain: TagModel = model(len(tags), None if scheme is None else allowed(tags, scheme))
        self.pooling = Pooling(sizes.pooling, self.encoder.width, 2 if sizes.bidirectional else 1) if labels else None
        self.label = nn.Linear(self.encoder.width, labels) if labels else None

    def compute_in(self, precision: str) -> None:
        """What the recurrent layers of the encoder compute in from now on. Raises InputError where it has none."""
        self.encoder.compute_in(precision)

    @torch.no_grad()
    def rounding_error(self, batch: Batch) -> float | None:
        """In int8, how far the outputs of a recurrent layer are at most from those in fp32, of the largest."""
        with visits() as seen:
            self(batch)
        return max((v.error for v in seen if v.error is not None), default=None)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        x = torch.cat([self.embedding(batch.units), self._parts(batch)], -1)
        y, lengths = self.encoder(dropout(x, self.dropout, self.training), batch.lengths)
        scores = self.output(dropout(y, self.dropout, self.training))
        if self.pooling is None or self.label is None:
            return scores, None
        return scores, self.label(dropout(self.pooling(y, lengths), self.dropout, self.training))

    def _parts(self, batch: Batch) -> Tensor:
        made: Tensor = self.embedding_parts(batch.parts)
        if self.speller is None:
            return made
        assert batch.part_lengths is not None and batch.which is not None
        y, lengths = self.speller(made, batch.part_lengths)
        last: Tensor = self.last(y, lengths)
        return last[batch.which]


def allowed(tags: Sequence[str], scheme: str) -> NDArray[np.bool_]:
    """Which tag may follow which (K + 1, K + 1); the last row and column stand for the ends of a sentence."""
    ends = [*tags, OUTSIDE]
    return np.array([[may_follow(before, tag, scheme) for tag in ends] for before in ends])


@dataclass(frozen=True)
class Read:
    """What a network makes of a sentence. Figures that were not asked for are None."""

    tags: NDArray[np.int64]  # (n,)
    label: Tensor | None = None  # scores (M,)
    marginals: Tensor | None = None  # p of each tag at each word, (n, K)
    loss: float | None = None  # -ln p of the true tags


@torch.no_grad()
def read(
    network: TaggingNetwork, spelling: Spelling, sentences: Sequence[Sequence[str]], marginals: bool = False,
    targets: Sequence[NDArray[np.int64]] | None = None,
) -> list[Read]:  # fmt: skip
    """The tags of sentences, read in batches of like length; in the order of the sentences."""
    was_training = network.training
    network.eval()
    found: dict[int, Read] = {}
    buckets = Buckets([np.empty(len(words), np.int64) for words in sentences], _BATCH, seed=0)
    for index in range(buckets.batches):
        rows = buckets.rows(0, index).tolist()
        batch = spelling.batch([sentences[row] for row in rows])
        scores, labels = network(batch)
        tags = network.chain.decode(scores, batch.lengths)
        shares = network.chain.marginals(scores, batch.lengths) if marginals else None
        losses = None
        if targets is not None:
            losses = network.chain.loss(scores, padded([targets[row] for row in rows])[0], batch.lengths).tolist()
        for column, (row, length) in enumerate(zip(rows, batch.lengths.tolist())):
            found[row] = Read(
                tags[:length, column],
                None if labels is None else labels[column],
                None if shares is None else shares[:length, column],
                None if losses is None else losses[column],
            )
    network.train(was_training)
    return [found[row] for row in range(len(sentences))]

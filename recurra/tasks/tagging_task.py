"""What the training loop asks of tagging: batches of like length, loss, F1 or accuracy, and the model to save."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.buckets import Buckets, padded
from recurra.data.keys import key
from recurra.data.schemes import spans, written
from recurra.data.spelling import Batch, Spelling
from recurra.data.tagged_split import TaggedSplits
from recurra.tasks.tagger import DataCard, Result, Settings, Tagger, baselines_of
from recurra.tasks.tagger_report import figure
from recurra.tasks.tagging import Sizes, TaggingNetwork, read
from recurra.tasks.task import State, Task

_FORGOTTEN = 0.5  # of the words that training has once are read as the unknown one


class TaggingTask(Task):
    """Tagged sentences to learn. Nothing is carried from batch to batch."""

    model: Tagger
    network: TaggingNetwork

    def __init__(
        self, splits: TaggedSplits, spelling: Spelling, buckets: Buckets, sizes: Sizes, tags: Sequence[str],
        scheme: str | None, dropout: float, forget_bias: float, seed: int, settings: Settings, card: DataCard,
    ) -> None:  # fmt: skip
        self._splits, self._buckets, self._spelling = splits, buckets, spelling
        train = splits.train
        numbers = {tag: number for number, tag in enumerate(tags)}
        working = train.tags if scheme is None else [written(spans(t), len(t), scheme) for t in train.tags]
        self._tags = [np.array([numbers[tag] for tag in each], np.int64) for each in working]
        labels = sorted(set(train.labels or []))
        of = {label: number for number, label in enumerate(labels)}
        self._labels = torch.tensor([of[label] for label in train.labels or []])
        self._rare = spelling.rare(train.words)
        torch.manual_seed(key(seed, "weights"))
        self.network = TaggingNetwork(sizes, spelling, tags, scheme, len(labels), dropout, forget_bias)
        self.network.compute_in(str(settings.get("precision", "fp32")))
        self.model = Tagger(
            self.network, sizes, spelling, list(tags), scheme, splits.scheme, labels, settings=settings, data=card
        )
        self.vocabulary = None if spelling.of_characters else spelling.units
        self.baselines = {}
        what = "characters" if spelling.of_characters else "words"
        padding = f"{100 * buckets.padding(0):.1f} % of a step is padding."
        kinds = f"{len(tags)} tags" + (f" of the scheme {scheme}" if scheme else "")
        sentence = f", {len(labels)} labels of sentences" if labels else ""
        self.notes = (*splits.notes, f"{kinds}{sentence}, {len(spelling.units.symbols):,} {what}; {padding}")

    @property
    def batches(self) -> int:
        return self._buckets.batches

    def work(self, epoch: int, index: int) -> int:
        """Words of a batch, padding left out."""
        return int(self._buckets.lengths[self._buckets.rows(epoch, index)].sum())

    def weights(self, epoch: int, index: int) -> NDArray[np.float64]:
        """The words of each sentence."""
        return self._buckets.lengths[self._buckets.rows(epoch, index)].astype(np.float64)

    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State | None]:
        """-ln p of all tags, and labels, of the batch together, in nats a word."""
        rows = self._read(epoch, index)
        batch = self._batch(rows).forgetting(self._rare, _FORGOTTEN)
        scores, labels = self.network(batch)
        tags, lengths = padded([self._tags[row] for row in rows])
        loss = self.network.chain.loss(scores, tags, lengths).sum()
        if labels is not None:
            loss = loss + F.cross_entropy(labels, self._labels[torch.from_numpy(rows)], reduction="sum")
        return loss / lengths.sum(), None

    def forward(self, epoch: int, index: int, state: State | None) -> None:
        self.network(self._batch(self._read(epoch, index)).forgetting(self._rare, _FORGOTTEN))

    def _read(self, epoch: int, index: int) -> NDArray[np.int64]:
        """The sentences of a batch that are of the share."""
        rows = self._buckets.rows(epoch, index)
        return rows[self.share.read(len(rows))]

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        return self._spelling.batch([self._splits.train.words[row] for row in rows])

    def validate(self) -> float:
        """F1 of the spans of the validation sentences; of tags that say none their accuracy."""
        kept = self._splits.validation
        found = self.model.named(read(self.network, self._spelling, kept.words))
        return figure(self._splits.scheme, found, kept.tags)

    def measure_baselines(self, share: float = 1.0) -> dict[str, float]:
        self.baselines = baselines_of(self._splits.train, self._splits.validation, self.model, share)
        return self.baselines

    def note(self, step: int, value: float | None) -> None:
        self.model.result = Result(step, value, self.baselines)

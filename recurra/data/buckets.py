"""Sequences in batches of like length, so that little of a batch is padding."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.keys import key

_JITTER = 0.04  # of a length: which sequences meet in a batch differs from epoch to epoch
_PADDING = 0.2  # of a batch; one that has more is closed early, unless it is a small one yet


class Buckets:
    """Batches of sequences. Which rows a batch of an epoch has is a function of (seed, epoch) and the lengths alone.

    The rows are put in order of their length, each length blurred a little, and cut; the batches come in random order.
    The cuts are those of the true lengths, so that each epoch has as many batches as any other.
    """

    def __init__(self, sequences: list[NDArray[np.int64]], batch: int, seed: int) -> None:
        self.sequences, self.seed = sequences, seed
        self.lengths = np.array([len(s) for s in sequences], np.int64)
        self._cuts = _cuts(np.sort(self.lengths), batch)
        self._epoch, self._order = -1, list[NDArray[np.int64]]()

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return len(self._cuts)

    def rows(self, epoch: int, index: int) -> NDArray[np.int64]:
        """The rows of a batch."""
        if epoch != self._epoch:
            draw = np.random.default_rng(key(self.seed, "epoch", epoch))
            blurred = self.lengths * (1 + draw.uniform(-_JITTER, _JITTER, len(self.lengths)))
            order = np.lexsort((draw.random(len(blurred)), blurred))
            parts = [order[begin:end] for begin, end in self._cuts]
            self._order = [parts[n] for n in draw.permutation(len(parts))]
            self._epoch = epoch
        return self._order[index]

    def padding(self, epoch: int) -> float:
        """The share of an epoch's steps that is padding."""
        of = [self.lengths[self.rows(epoch, n)] for n in range(self.batches)]
        return 1 - float(self.lengths.sum()) / sum(int(each.max()) * len(each) for each in of)


def _cuts(lengths: NDArray[np.int64], batch: int) -> list[tuple[int, int]]:
    """Where each batch of the sorted lengths begins and ends."""
    cuts, begin, total = [], 0, 0
    for n, length in enumerate(lengths):
        count = n - begin
        padded = 1 - (total + length) / max(1, (count + 1) * length)
        if count == batch or (padded > _PADDING and 4 * count >= batch):
            cuts.append((begin, n))
            begin, total = n, 0
        total += int(length)
    return [*cuts, (begin, len(lengths))]


def padded(sequences: list[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Sequences side by side: numbers (T, B), past their ends 0, and lengths (B,)."""
    lengths = torch.tensor([len(s) for s in sequences])
    block = np.zeros((int(lengths.max()), len(sequences)), np.int64)
    for column, sequence in enumerate(sequences):
        block[: len(sequence), column] = sequence
    return torch.from_numpy(block), lengths

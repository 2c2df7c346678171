"""Reading on from a place in a text: what a search needs of a language model, be it a network or counts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.buckets import padded
from recurra.tasks.causal import State
from recurra.tasks.language import LanguageNetwork

Ints = NDArray[np.int64]
_SCORES = 8_000_000  # numbers that the scores of one call may have: rows times steps times symbols
_ROWS = 64  # sequences side by side


class Position(ABC):
    """N places in texts, each after the symbols that were read there. Nothing is changed: to read makes a new one."""

    @abstractmethod
    def following(self) -> Tensor:
        """ln p of every symbol that may come next, (N, V)."""

    @abstractmethod
    def of(self, numbers: Tensor) -> Tensor:
        """ln p of one next symbol for each place, (N,), in fp64."""

    @abstractmethod
    def read(self, rows: Tensor, numbers: Tensor) -> "Position":
        """The places `rows` (M,) after one symbol more each, `numbers` (M,)."""

    @abstractmethod
    def joined(self, others: Sequence["Position"]) -> "Position":
        """These places and those of `others`, one after another."""

    @abstractmethod
    def take(self, rows: Tensor) -> "Position":
        """The places `rows` (M,)."""


class Reader(ABC):
    """What reads texts, symbol by symbol, and says how likely each next one is."""

    symbols: int  # V

    @abstractmethod
    def after(self, numbers: Ints) -> Position:
        """The one place after a text (N,)."""

    @abstractmethod
    def along(self, before: Ints, sequences: Sequence[Ints]) -> list[Tensor]:
        """ln p of every symbol of each sequence, given those before it and `before` (at least one) before them all."""

    @property
    def most_rows(self) -> int:
        """How many places may be read at once."""
        return max(1, _SCORES // self.symbols)


class NetworkReader(Reader):
    """A network reads: a place is its state, and its scores of the next symbol."""

    def __init__(self, network: LanguageNetwork) -> None:
        self._network = network.eval()
        self.symbols = network.symbols

    @torch.no_grad()
    def after(self, numbers: Ints) -> Position:
        scores, state = self._network(torch.from_numpy(numbers)[:, None])
        return _NetworkPosition(self._network, scores[-1], state)

    @torch.no_grad()
    def along(self, before: Ints, sequences: Sequence[Ints]) -> list[Tensor]:
        found = [torch.empty(0)] * len(sequences)
        order = sorted(range(len(sequences)), key=lambda n: len(sequences[n]))
        for begin in range(0, len(order), _ROWS):  # of like length, so that little is padding
            rows = order[begin : begin + _ROWS]
            block, _ = padded([np.concatenate([before, sequences[n]]) for n in rows])
            nats = self._nats(block)
            for column, n in enumerate(rows):
                first = len(before) - 1
                found[n] = nats[first : first + len(sequences[n]), column]
        return found

    def _nats(self, block: Tensor) -> Tensor:
        """ln p of each symbol of the block (T, B) but the first of each row, (T - 1, B)."""
        steps = max(1, _SCORES // (block.shape[1] * self.symbols))
        state: State | None = None
        parts = [torch.empty(0, block.shape[1], dtype=torch.float64)]
        for read, target in zip(torch.split(block[:-1], steps), torch.split(block[1:], steps), strict=True):
            if len(read) == 0:  # of nothing but what is read before, nothing is scored
                break
            scores, state = self._network(read, state)
            loss = F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none")
            parts.append(-loss.double().view(target.shape))
        return torch.cat(parts)


class _NetworkPosition(Position):
    """scores (N, V) before the softmax, and the state of the layers (…, N, H)."""

    def __init__(self, network: LanguageNetwork, scores: Tensor, state: State) -> None:
        self._network, self._scores, self._state = network, scores, state

    def following(self) -> Tensor:
        return self._scores.double().log_softmax(1)

    def of(self, numbers: Tensor) -> Tensor:
        return -F.cross_entropy(self._scores, numbers, reduction="none").double()

    @torch.no_grad()
    def read(self, rows: Tensor, numbers: Tensor) -> Position:
        scores, state = self._network(numbers[None], tuple(s[:, rows] for s in self._state))
        return _NetworkPosition(self._network, scores[0], state)

    def joined(self, others: Sequence[Position]) -> Position:
        every: list[_NetworkPosition] = [self, *others]  # type: ignore[list-item]
        states = zip(*(each._state for each in every), strict=True)
        scores = torch.cat([each._scores for each in every])
        return _NetworkPosition(self._network, scores, tuple(torch.cat(s, 1) for s in states))

    def take(self, rows: Tensor) -> Position:
        return _NetworkPosition(self._network, self._scores[rows], tuple(s[:, rows] for s in self._state))

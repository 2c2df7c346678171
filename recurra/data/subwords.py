"""The n-grams of characters that words are made of, by which a word that training does not know is not all unknown."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.buckets import padded
from recurra.data.symbols import UNKNOWN, Lexicon, frequent

_ORDERS = (3, 4)
_LEAST = 2  # different words that must have an n-gram
_MOST = 50_000  # n-grams


class Subwords:
    """n-grams of 3 and 4 characters of a word between "<" and ">", and their numbers from 0.

    Bojanowski et al. 2017, arXiv:1607.04606.
    """

    def __init__(self, grams: Iterable[str]) -> None:
        self.grams = list(grams)
        self._numbers = {gram: number for number, gram in enumerate(self.grams)}

    @classmethod
    def of(cls, words: Iterable[str]) -> "Subwords":
        """Those that at least two different words have."""
        return cls(frequent(Counter(gram for word in set(words) for gram in set(split(word))), _LEAST, _MOST))

    def __len__(self) -> int:
        return len(self.grams)

    def encode(self, word: str) -> NDArray[np.int64]:
        """The numbers of a word's n-grams; those that are not known are left out."""
        return np.array([self._numbers[gram] for gram in split(word) if gram in self._numbers], np.int64)


def split(word: str) -> list[str]:
    """The n-grams of a word in order, short ones first."""
    marked = f"<{word}>"
    return [marked[n : n + order] for order in _ORDERS for n in range(len(marked) - order + 1)]


class Spelling(NamedTuple):
    """The n-grams of the different words of a batch: of word `words[t, b]` those from `offsets[word]` on."""

    words: Tensor  # (T, B)
    grams: Tensor  # (N,)
    offsets: Tensor  # (W,)


class Dictionary:
    """Every different word of some texts, known or not: its number in the vocabulary, and its n-grams."""

    def __init__(self, vocabulary: Lexicon, subwords: Subwords) -> None:
        self.vocabulary, self.subwords = vocabulary, subwords
        self._places = {"": 0}  # what stands past the end of a text
        self._numbers = [UNKNOWN]
        self._grams = [np.zeros(0, np.int64)]

    def encode(self, text: str) -> NDArray[np.int64]:
        """The places (N,) of the words of a text; new ones come in."""
        words = self.vocabulary.split(text)
        for word in words:
            if word not in self._places:
                self._places[word] = len(self._places)
                self._numbers.append(self.vocabulary.number(word))
                self._grams.append(self.subwords.encode(word))
        return np.array([self._places[word] for word in words], np.int64)

    def read(self, places: Tensor) -> tuple[Tensor, Spelling]:
        """Places (T, B) as numbers in the vocabulary, and the n-grams of their words."""
        different, words = np.unique(places.numpy(), return_inverse=True)
        grams = [self._grams[place] for place in different]
        offsets = np.cumsum([0, *map(len, grams)])[:-1]
        numbers = np.array([self._numbers[place] for place in different], np.int64)[words].reshape(places.shape)
        spelling = Spelling(*map(torch.from_numpy, (words.reshape(places.shape), np.concatenate(grams), offsets)))
        return torch.from_numpy(numbers), spelling


Reader = Lexicon | Dictionary


def inputs(reader: Reader, sequences: list[NDArray[np.int64]]) -> tuple[Tensor, Tensor, Spelling | None]:
    """What a reader made of texts as a batch: numbers (T, B), past their ends 0, lengths (B,), and the spelling."""
    places, lengths = padded(sequences)
    if isinstance(reader, Lexicon):
        return places, lengths, None
    numbers, spelling = reader.read(places)
    return numbers, lengths, spelling


def lexicon_of(reader: Reader) -> Lexicon:
    """The vocabulary of a reader."""
    return reader if isinstance(reader, Lexicon) else reader.vocabulary

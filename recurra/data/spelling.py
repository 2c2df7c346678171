"""Words of a sentence as a tagger reads them: the number of each, and what each is made of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recurra.data.buckets import padded
from recurra.data.symbols import UNKNOWN, Lexicon, frequent
from recurra.data.words import as_they_stand, tokens

SPLITS = ("characters", "blanks", "marks")
_LEAST = 2  # occurrences of a letter or a pair of characters
_MARKS = frozenset(".,!?;:")


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, past their ends 0.

    parts: of words the letters (L, U) of the U different ones, with their part_lengths (U,), and `which` (T, B) of them
    each word is; of characters the pairs (T, B) that each begins.
    """

    units: Tensor  # (T, B)
    lengths: Tensor  # (B,)
    parts: Tensor
    part_lengths: Tensor | None = None
    which: Tensor | None = None

    def forgetting(self, rare: Tensor, share: float) -> "Batch":
        """The same with some of the rare units (V,) read as the unknown one, drawn from PyTorch's generator."""
        forgotten = rare[self.units] & (torch.rand(self.units.shape) < share)
        return replace(self, units=self.units.masked_fill(forgotten, UNKNOWN))


class Spelling:
    """units: words, case-folded, or characters. parts: the letters of words as they stand, or pairs of characters.

    split: how a text becomes words: each character one (`characters`), what stands between blanks (`blanks`), or words
    and marks (`marks`).
    """

    def __init__(self, split: str, units: Iterable[str], parts: Iterable[str]) -> None:
        self.split = split
        self.units, self.parts = Lexicon("words", units), Lexicon("characters", parts)

    @classmethod
    def of(cls, sentences: Sequence[Sequence[str]], least: int) -> "Spelling":
        """From the sentences to train on; units that they have less than `least` times are unknown."""
        split = found_split(sentences)
        empty = cls(split, [], [])
        units = Counter(empty._unit(word) for words in sentences for word in words)
        parts = Counter(part for words in sentences for part in empty._parts_of(words))
        return cls(split, frequent(units, least), frequent(parts, _LEAST))

    @property
    def of_characters(self) -> bool:
        return self.split == "characters"

    def words(self, text: str) -> list[str]:
        """The words of a text, as those of the training data were."""
        if self.of_characters:
            return [character for character in text if not character.isspace()]
        return tokens(text) if self.split == "marks" else as_they_stand(text.replace("\n", " "))

    def rare(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Which units (V,) these sentences have once only."""
        counts = Counter(self._unit(word) for words in sentences for word in words)
        return torch.tensor([False, *(counts[unit] == 1 for unit in self.units.symbols)])

    def batch(self, sentences: Sequence[Sequence[str]]) -> Batch:
        """Sentences of at least one word each."""
        units, lengths = padded([self._numbers(map(self._unit, words), self.units) for words in sentences])
        if self.of_characters:
            pairs, _ = padded([self._numbers(_pairs(words), self.parts) for words in sentences])
            return Batch(units, lengths, pairs)
        forms: dict[str, int] = {}
        which, _ = padded(
            [np.array([forms.setdefault(word, len(forms)) for word in words], np.int64) for words in sentences]
        )
        return Batch(units, lengths, *padded([self._numbers(form, self.parts) for form in forms]), which)

    def _numbers(self, symbols: Iterable[str], lexicon: Lexicon) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        return np.array(lexicon.numbers(symbols), np.int64)

    def _unit(self, word: str) -> str:
        return word if self.of_characters else word.casefold()

    def _parts_of(self, words: Sequence[str]) -> Iterable[str]:
        return _pairs(words) if self.of_characters else (letter for word in words for letter in word)


def found_split(sentences: Sequence[Sequence[str]]) -> str:
    """How the words of sentences were split: characters if all are, marks if they stand apart more often than not."""
    words = [word for sentence in sentences for word in sentence]
    if all(len(word) == 1 for word in words):
        return "characters"
    apart = sum(word in _MARKS for word in words)
    attached = sum(len(word) > 1 and word[-1] in _MARKS for word in words)
    return "marks" if apart > attached else "blanks"


def _pairs(words: Sequence[str]) -> list[str]:
    """Each character with the one after it; the last by itself."""
    return [a + b for a, b in zip(words, [*words[1:], ""])]

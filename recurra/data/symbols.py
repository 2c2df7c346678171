"""Symbols of a text, characters or words, and their numbers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recurra.data.words import has_blanks, words

UNKNOWN = 0  # the reserved symbol: all that the lexicon does not hold
KINDS = ("characters", "words")


def found_kind(texts: Sequence[str]) -> str:
    """Words where white space divides them, else characters."""
    return "words" if has_blanks(texts) else "characters"


class Lexicon:
    """Symbols and their numbers: 0 is the reserved unknown one, then by falling frequency in the training texts."""

    def __init__(self, kind: str, symbols: Sequence[str]) -> None:
        self.kind, self.symbols = kind, list(symbols)
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols, 1)}

    @classmethod
    def of(cls, kind: str, texts: Sequence[str], least: int) -> "Lexicon":
        """All symbols that occur at least `least` times; the rarer ones are what the unknown symbol is learned from."""
        counts = Counter(symbol for text in texts for symbol in _symbols(kind, text))
        ordered = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
        return cls(kind, [symbol for symbol, count in ordered if count >= least])

    def __len__(self) -> int:
        return 1 + len(self.symbols)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Numbers (N,) of the symbols of a text, in order."""
        numbers = self._numbers
        return np.array([numbers.get(symbol, UNKNOWN) for symbol in _symbols(self.kind, text)], np.int64)


def _symbols(kind: str, text: str) -> list[str]:
    return words(text) if kind == "words" else list(text)

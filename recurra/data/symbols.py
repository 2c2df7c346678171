"""Symbols of a text, characters or words or pieces of words, and their numbers."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from recurra.data.words import as_they_stand, has_blanks, stand_apart, words

UNKNOWN = 0  # the reserved symbol: all that the vocabulary does not hold
UNKNOWN_TEXT = "\ufffd"  # how it is written
END = "\x03"  # the symbol of a document's end (U+0003, END OF TEXT): a character that no text has

Kind = Literal["characters", "words", "bpe"]
KINDS: tuple[Kind, ...] = ("characters", "words")  # of a Lexicon


def found_kind(texts: Sequence[str]) -> Kind:
    """Words where white space divides them, else characters."""
    return "words" if has_blanks(texts) else "characters"


class Vocabulary(ABC):
    """Symbols and their numbers: 0 is the reserved unknown one, number n is `symbols[n - 1]`."""

    kind: Kind
    symbols: Sequence[str]
    by_frequency = True  # whether numbers are given by falling frequency

    def __len__(self) -> int:
        return 1 + len(self.symbols)

    @abstractmethod
    def split(self, text: str) -> Sequence[str]:
        """The symbols of a text in order, known or not."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int64]:
        """Their numbers (N,); UNKNOWN for those that the vocabulary does not hold."""

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers; the unknown symbol is written U+FFFD."""
        return "".join(self.pieces(numbers))

    def pieces(self, numbers: Iterable[int], before: int | None = None) -> Iterator[str]:
        """The text of each number, with what divides it from the one before; `before`: that of the first."""
        for number in numbers:
            yield self.after(before, number)
            before = number

    def after(self, before: int | None, number: int) -> str:
        """The text of a symbol that stands after another, or at the beginning."""
        return self.text(number)

    def text(self, number: int) -> str:
        """The text of a symbol by itself."""
        return self.symbols[number - 1] if number != UNKNOWN else UNKNOWN_TEXT

    def unknown(self, text: str) -> dict[str, int]:
        """Symbols of `text` that the vocabulary does not hold, with how often each occurs, most frequent first."""
        known = set(self.symbols)
        return dict(Counter(s for s in self.split(text) if s not in known).most_common())


class Characters(Vocabulary):
    """Every character of a text, in code point order."""

    kind = "characters"
    by_frequency = False

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.symbols = self.characters
        points = code_points(self.characters)
        self._numbers = np.zeros(int(points.max(initial=0)) + 2, np.int64)  # of every code point; the last: those above
        self._numbers[points] = np.arange(1, len(points) + 1)

    def split(self, text: str) -> str:
        return text

    def encode(self, text: str) -> NDArray[np.int64]:
        return self._numbers[np.minimum(code_points(text), len(self._numbers) - 1)]


def code_points(text: str) -> NDArray[np.uint32]:
    """Of each character, (N,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Listed(Vocabulary):
    """Symbols in a list, looked up one by one. Abstract."""

    symbols: list[str]

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = list(symbols)
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols, 1)}

    def unknown(self, text: str) -> dict[str, int]:
        return dict(Counter(s for s in self.split(text) if s not in self._numbers).most_common())

    def number(self, symbol: str) -> int:
        """The number of one symbol; UNKNOWN if the vocabulary does not hold it."""
        return self._numbers.get(symbol, UNKNOWN)

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array(self.numbers(self.split(text)), np.int64)

    def numbers(self, symbols: Iterable[str]) -> list[int]:
        """The numbers of symbols that are split already."""
        numbers = self._numbers
        return [numbers.get(symbol, UNKNOWN) for symbol in symbols]


class Words(Listed):
    """Words exactly as the text has them, so that it can be written again; the end of a line is a symbol.

    White space divides them, and rjieba finds those of Chinese. Between two words stands one blank, but for Chinese.
    """

    kind = "words"

    def split(self, text: str) -> list[str]:
        return as_they_stand(text)

    def after(self, before: int | None, number: int) -> str:
        text = self.text(number)
        return " " + text if before is not None and stand_apart(self.text(before), text) else text


class Lexicon(Listed):
    """Symbols that texts are told apart by: characters, or words case-folded and without white space."""

    def __init__(self, kind: str, symbols: Iterable[str]) -> None:
        super().__init__(symbols)
        self.kind = cast(Kind, kind)

    @classmethod
    def of(cls, kind: str, texts: Iterable[str], least: int) -> "Lexicon":
        """All symbols that occur at least `least` times; the rarer ones are what the unknown symbol is learned from."""
        return cls(kind, frequent(cls.counts(kind, texts), least))

    @classmethod
    def counts(cls, kind: str, texts: Iterable[str]) -> Counter[str]:
        """How often each symbol occurs."""
        empty = cls(kind, [])
        found: Counter[str] = Counter()
        for text in texts:
            found.update(empty.split(text))
        return found

    def split(self, text: str) -> list[str]:
        return words(text) if self.kind == "words" else list(text)


def frequent(counts: Counter[str], least: int, most: int | None = None) -> list[str]:
    """The symbols that occur at least `least` times, at most `most` of them, by falling frequency."""
    ordered = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    return [symbol for symbol, count in ordered[:most] if count >= least]

"""How likely whole texts are.

    ln p(x_1 … x_n) = Σ_t ln p(x_t | begin, x_1 … x_{t-1}) + ln p(end | begin, x_1 … x_n)

begin and end are what divides the sentences of the training text: the symbol that ends its documents, else the end of
its lines. A training text of one line gives no end.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from recurra.data.symbols import END, Vocabulary
from recurra.errors import InputError, kind_of
from recurra.tasks.reading import Ints, Reader


@dataclass(frozen=True)
class Score:
    """How likely a text is: ln p of all of it, over so many symbols, its end among them."""

    text: str
    log_probability: float
    symbols: int

    @property
    def per_symbol(self) -> float:
        """Mean of ln p over the symbols."""
        return self.log_probability / self.symbols


def divider(symbols: Sequence[str]) -> str | None:
    """What divides the sentences of a text that has these symbols, or characters; None where nothing does."""
    return next((mark for mark in (END, "\n") if mark in symbols), None)


def edges(vocabulary: Vocabulary) -> tuple[Ints, Ints]:
    """What is read before a text, (1,), and what follows it, (1,), or (0,) where nothing divides texts."""
    known = vocabulary.symbols
    if mark := divider(known):
        return vocabulary.encode(mark), vocabulary.encode(mark)
    before = np.array([1 + known.index(" ") if " " in known else min(1, len(known))], np.int64)
    return before, before[:0]


def score(reader: Reader, vocabulary: Vocabulary, texts: Sequence[str]) -> list[Score]:
    """The score of each text; each is encoded whole."""
    begin, end = edges(vocabulary)
    sequences = [np.concatenate([vocabulary.encode(text), end]) for text in texts]
    nats = reader.along(begin, sequences)
    return [Score(text, float(each.sum()), len(each)) for text, each in zip(texts, nats, strict=True)]


def checked_texts(texts: str | Iterable[str], name: str) -> list[str]:
    """The texts as a list. InputError for what is no text, or an empty one."""
    if not isinstance(texts, Iterable):
        raise InputError(f"{name} is {kind_of(texts)}; give a string, or a list of strings.")
    listed = [texts] if isinstance(texts, str) else list(texts)
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"{name}[{place}] is {kind_of(text)}; give a string.")
        if not text.strip():
            raise InputError(f"{name}[{place}] is empty; leave it out.")
    if not listed:
        raise InputError(f"{name} is empty; give at least one text.")
    return listed


def warn_of_unknown(vocabulary: Vocabulary, texts: Iterable[str], whose: str, stacklevel: int) -> None:
    """A warning that names the symbols that the model does not know, if there are any."""
    counts = Counter[str]()
    for text in texts:
        counts.update(vocabulary.unknown(text))
    if counts:
        shown = " ".join(repr(symbol) for symbol, _ in counts.most_common(8)) + (" …" if len(counts) > 8 else "")
        warnings.warn(f"{whose} {shown}, which the model does not know: read as unknown.", stacklevel=stacklevel + 1)

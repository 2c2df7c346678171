"""What a run reads texts with: the symbols that training has, their n-grams, and word vectors to begin with."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from recurra.data.buckets import Buckets
from recurra.data.subwords import Dictionary, Reader, Subwords
from recurra.data.symbols import Lexicon, frequent
from recurra.data.vectors import Vectors, read_vectors
from recurra.errors import InputError
from recurra.training.settings import Settings

_MORE = 20_000  # words of a file of vectors that are known beside those of training


@dataclass(frozen=True)
class Reading:
    """The reader of a run, its training texts in batches, and the vectors that its words begin with."""

    reader: Reader
    buckets: Buckets
    vectors: Vectors | None
    notes: tuple[str, ...] = ()


def reading(texts: list[str], full: Settings) -> Reading:
    """Made from the training texts. Raises DataError for vectors that cannot be read."""
    assert full.symbols and full.min_count and full.batch  # the setup has set them
    counts = Lexicon.counts(full.symbols, texts)
    symbols, vectors = frequent(counts, full.min_count), None
    notes: tuple[str, ...] = ()
    if full.vectors is not None:
        empty = Lexicon(full.symbols, [])
        vectors = read_vectors(full.vectors, counts, _MORE, _fold(empty))
        _check_width(vectors, full)
        notes = (_coverage(vectors, set(counts), full.symbols),)
        symbols = [*symbols, *(word for word in vectors.rows if counts[word] < full.min_count)]
    lexicon = Lexicon(full.symbols, symbols)
    reader = Dictionary(lexicon, Subwords.of(counts)) if full.subwords else lexicon
    buckets = Buckets([reader.encode(text) for text in texts], full.batch, full.seed)
    return Reading(reader, buckets, vectors, notes)


def _fold(lexicon: Lexicon) -> Callable[[str], str | None]:
    """A word of a file as the lexicon has it; None for one that it takes apart."""

    def fold(word: str) -> str | None:
        symbols = lexicon.split(word)
        return symbols[0] if len(symbols) == 1 else None

    return fold


def _check_width(vectors: Vectors, full: Settings) -> None:
    if full.embedding is not None and full.embedding != vectors.width:
        raise InputError(
            f"embedding={full.embedding} but the vectors of {vectors.name} are {vectors.width} wide; leave embedding "
            "out, or give vectors of that width."
        )


def _coverage(vectors: Vectors, words: set[str], kind: str) -> str:
    found = sum(word in words for word in vectors.rows)
    return (
        f"{vectors.name}: {vectors.words:,} vectors, {vectors.width} wide; {found:,} of the {len(words):,} different "
        f"{kind} of training ({100 * found / max(1, len(words)):.1f} %) have one, the others begin with random "
        f"vectors; {len(vectors.rows) - found:,} more {kind} of the file are known too."
    )


def absolute(path: str | None) -> str | None:
    """A path as it is found from anywhere."""
    return None if path is None else os.path.abspath(path)

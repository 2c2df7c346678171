"""The vocabulary of a language model: learned from a text, written to a model folder, and read again."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from recurra import files
from recurra.data.bpe import BytePairs, Merges
from recurra.data.symbols import Characters, Kind, Vocabulary, Words, code_points, frequent
from recurra.errors import FileError

MERGES = "merges.json"  # of BPE, in the model folder
BPE_SYMBOLS = 8000
_DIFFERENT = 1_000_000  # words that are counted at a time


def learned(kind: Kind, texts: Callable[[], Iterable[str]], least: int = 1, most: int | None = None) -> Vocabulary:
    """The symbols of a text that comes in pieces, which may be read more than once.

    least, most: rarer symbols and those past the `most` frequent are unknown; of BPE `most` says how many are made.
    """
    if kind == "bpe":
        return BytePairs.learned(texts, most or BPE_SYMBOLS)
    if kind == "words":
        return Words(frequent(_counted(texts()), least, most))
    found = np.zeros(sys.maxunicode + 1, np.int64)
    for text in texts():
        points = np.bincount(code_points(text))
        found[: len(points)] += points
    return Characters(frequent(Counter({chr(n): int(found[n]) for n in found.nonzero()[0]}), least, most))


def _counted(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs; where there are too many different ones for memory, of those that are not rare."""
    empty, counts = Words([]), Counter[str]()
    for text in texts:
        counts.update(empty.split(text))
        if len(counts) > _DIFFERENT:
            counts = Counter(dict(counts.most_common(_DIFFERENT // 2)))
    return counts


def record(vocabulary: Vocabulary) -> tuple[str | list[str], dict[str, bytes]]:
    """What `model.json` says of a vocabulary, and the files beside it."""
    if isinstance(vocabulary, Characters):
        return vocabulary.characters, {}
    symbols = list(vocabulary.symbols)
    return symbols, {MERGES: msgspec.json.encode(vocabulary.merges)} if isinstance(vocabulary, BytePairs) else {}


def restored(folder: files.Folder, kind: Kind, symbols: str | list[str]) -> Vocabulary:
    """The vocabulary again. Raises FileError for one that was not written so."""
    if (kind == "characters") is not isinstance(symbols, str):
        raise FileError(f"{folder.manifest}: field 'vocabulary' is not as 'symbol_kind' {kind!r} has it.")
    if kind == "characters":
        made = Characters(symbols)
        if made.characters != symbols:
            raise FileError(f"{folder.manifest}: field 'vocabulary' is not in code point order without repetition.")
        return made
    if len(set(symbols)) < len(symbols) or "" in symbols:
        raise FileError(f"{folder.manifest}: field 'vocabulary' holds a symbol twice, or an empty one.")
    if kind == "words":
        return Words(symbols)
    try:
        return BytePairs(symbols, files.typed(folder, Merges, MERGES))
    except ValueError as error:
        raise FileError(
            f"{folder.path / MERGES} does not fit field 'vocabulary' of {files.MANIFEST}: {error}."
        ) from None

"""Word vectors from text files as word2vec and GloVe write them: a word and its numbers a line."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recurra.data.text import refuse_endless
from recurra.errors import DataError


@dataclass(frozen=True)
class Vectors:
    """Those vectors of a file that are of use: of the words that were asked for, and of its first other ones."""

    name: str
    width: int
    words: int  # of the whole file
    sha256: str  # of its bytes
    rows: dict[str, NDArray[np.float32]]  # the words that were asked for, then the others in the order of the file


def read_vectors(
    path: str | os.PathLike[str], wanted: Container[str], more: int, fold: Callable[[str], str | None]
) -> Vectors:
    """Reads a file, .gz too, line by line. Mikolov et al. 2013, arXiv:1301.3781; Pennington et al. 2014, EMNLP.

    The first line of word2vec, which says how many words there are and how wide they are, may stand there or not.
    wanted: words to read; more: how many others, the first of the file, which lists frequent words first. fold: a word
    as the vocabulary has it, or None for what it never has; of words that it makes one the first in the file counts,
    unless a later one is written so. Raises DataError that names the line.
    """
    name = os.fspath(path)
    asked: dict[str, NDArray[np.float32]] = {}
    others: dict[str, NDArray[np.float32]] = {}
    exact: set[str] = set()
    width, said, count = 0, "", 0
    digest = hashlib.sha256()
    for number, raw in enumerate(_lines(path), 1):
        digest.update(raw)
        fields = _decoded(name, number, raw)
        if number == 1 and len(fields) == 2 and all(map(str.isdecimal, fields)):
            width, said = int(fields[1]), f"line 1 says {int(fields[1])}"
            continue
        if not fields:
            continue
        width, said = (width, said) if width else (len(fields) - 1, f"line {number} has {len(fields) - 1}")
        word = _word(name, number, fields, width, said)
        count += 1
        symbol = fold(word)
        if symbol is None or (symbol in exact) or (word != symbol and (symbol in asked or symbol in others)):
            continue
        place = asked if symbol in wanted else others
        if place is others and len(others) == more and symbol not in others:
            continue
        place[symbol] = _numbers(name, number, fields[-width:])
        if word == symbol:
            exact.add(symbol)
    if not count:
        raise DataError(f"{name} has no vectors; give a text file with a word and its numbers a line.")
    return Vectors(name, width, count, digest.hexdigest(), {**asked, **others})


def _lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    name = os.fspath(path)
    try:
        refuse_endless(Path(path))
        with gzip.open(path) if name.lower().endswith(".gz") else open(path, "rb") as file:
            yield from file
    except FileNotFoundError:
        raise DataError(f"{name} does not exist; give the path of a file of word vectors.") from None
    except IsADirectoryError:
        raise DataError(f"{name} is a folder; give the path of a file of word vectors in it.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is no whole gzip file: {error}; pack it again.") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from None


def _decoded(name: str, number: int, raw: bytes) -> list[str]:
    try:
        return raw.decode("utf-8").replace("\t", " ").strip(" \r\n").split(" ") if raw.strip() else []
    except UnicodeDecodeError as error:
        raise DataError(
            f"Line {number} of {name} is not UTF-8: byte {error.start + 1} of it is 0x{raw[error.start]:02x}; give "
            "vectors as text, not in word2vec's binary form."
        ) from None


def _word(name: str, number: int, fields: list[str], width: int, said: str) -> str:
    """The word of a line, which may hold blanks. DataError where its numbers are more or fewer than they must be."""
    found = len(fields) - 1
    if found > width:
        before = fields[1 : len(fields) - width]
        found = width + len(before) if all(map(_is_number, before)) else width  # else they belong to the word
    if width == 0:
        raise DataError(f"Line {number} of {name} has a word and no numbers; give a word and its numbers a line.")
    if found != width:
        raise DataError(
            f"Line {number} of {name} has {found} numbers after its word but {said}; every vector is as wide as the "
            "first: take the line out, or write the file again."
        )
    return " ".join(fields[: len(fields) - width])


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(name: str, number: int, fields: list[str]) -> NDArray[np.float32]:
    try:
        row = np.array(fields, np.float32)
    except ValueError as error:
        raise DataError(f"Line {number} of {name} is no vector: {error}; take the line out.") from None
    if not np.isfinite(row).all():
        raise DataError(f"Line {number} of {name} has a number that is not finite; take the line out.")
    return row

"""Sentences as bracketed trees, one a line, whose every phrase has a label: `(3 (2 It) (4 (2 's) (4 lovely)))`.

The form of the Penn Treebank with the labels of the Stanford Sentiment Treebank. Socher et al. 2013, EMNLP.
"""

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from recurra.data.gz import unpacked
from recurra.data.table import Table, decoded, kind_of_table, read_table
from recurra.data.text import read_bytes
from recurra.errors import DataError

_BEGINS = re.compile(rb"\s*\(\s*\d+\s*[^\s)]")  # a label that is a number: of syntax trees it is a letter
_TOKEN = re.compile(r"[()]|[^\s()]+")
_PEEKED = 1000  # bytes


@dataclass(frozen=True)
class Tree:
    """A sentence, its label, and every phrase below it with its own."""

    text: str
    label: str
    phrases: list[tuple[str, str]]  # text and label, words too
    line: int


def is_trees(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as labelled trees do; False for one that cannot be read."""
    if not os.fspath(path) or not Path(path).is_file():
        return False
    packed = os.fspath(path).lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            return _BEGINS.match(file.read(_PEEKED)) is not None
    except (OSError, EOFError, zlib.error):
        return False


def read_trees(path: str | os.PathLike[str]) -> list[Tree]:
    """All trees of a file. DataError names the line that is none, and the place in it."""
    content = decoded(path, unpacked(path, read_bytes(path)))
    return [_tree(path, number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]


def is_labelled_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table by its name, or begins as labelled trees do."""
    return kind_of_table(path) is not None or is_trees(path)


def read_labelled(path: str | os.PathLike[str]) -> Table:
    """The rows of a table; of trees their sentences."""
    if kind_of_table(path) is not None or not is_trees(path):
        return read_table(path)
    trees = read_trees(path)
    return Table(os.fspath(path), [[t.text, t.label] for t in trees], [t.line for t in trees], ["text", "label"])


def _tree(path: str | os.PathLike[str], number: int, line: str) -> Tree:
    words: list[str] = []
    found: list[tuple[str, str]] = []
    pending: list[tuple[str, int]] = []  # label, and where the words begin, of each bracket that is open
    tokens = list(_TOKEN.finditer(line))
    place = 0
    while place < len(tokens):
        token, at = tokens[place][0], tokens[place].start() + 1
        where = f"Line {number} of {os.fspath(path)} is no tree: character {at}"
        if found and not pending:
            raise DataError(f"{where} stands after its last bracket; give one tree a line.")
        if token == "(":
            label = tokens[place + 1][0] if place + 1 < len(tokens) else "("
            if label in "()":
                raise DataError(f"{where} opens a phrase without a label; write it as (3 word).")
            pending.append((label, len(words)))
            place += 1
        elif token == ")":
            if not pending:
                raise DataError(f"{where} closes a bracket that was not opened.")
            label, begin = pending.pop()
            if begin == len(words):
                raise DataError(f"{where} closes a phrase without a word; write it as ({label} word).")
            found.append((" ".join(words[begin:]), label))
        elif not pending:
            raise DataError(f"{where} is a word outside of brackets; write it as (3 word).")
        else:
            words.append(token.replace("\\/", "/").replace("\\*", "*"))  # as the Penn Treebank escapes them
        place += 1
    if pending:
        raise DataError(f"Line {number} of {os.fspath(path)} is no tree: it ends with {len(pending)} brackets open.")
    text, label = found.pop()
    return Tree(text, label, found, number)

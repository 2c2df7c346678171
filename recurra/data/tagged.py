"""Sentences whose words have tags: what a file or rows in memory hold, and where each word is, for messages."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from recurra.data.table import read_content
from recurra.errors import DataError, InputError, kind_of

_WORDS, _TAGS, _LABEL = ("words", "tokens"), ("tags",), "label"


@dataclass(frozen=True)
class Tagged:
    """Sentences, their tags, and where there is one the label of each sentence."""

    name: str
    words: list[list[str]]
    tags: list[list[str]]
    labels: list[str] | None
    lines: list[list[int]]  # of each word: its line in the file, from 1; in memory the place of its row
    layout: Literal["columns", "lines", "memory"] = "columns"  # a word a line, a sentence a line, rows in memory

    def __len__(self) -> int:
        return len(self.words)

    def place(self, row: int, word: int) -> str:
        """Where a word is: "line 12 of a.conll", "line 3 of seq.out, word 2"."""
        line = self.lines[row][word]
        if self.layout == "memory":
            return f"{self.name}[{line}], word {word + 1}"
        return f"line {line} of {self.name}" + (f", word {word + 1}" if self.layout == "lines" else "")

    def take(self, rows: Sequence[int], part: str = "") -> "Tagged":
        """Some of the sentences, under a name that says which."""
        labels = None if self.labels is None else [self.labels[row] for row in rows]
        words, tags = ([each[row] for row in rows] for each in (self.words, self.tags))
        name = f"{self.name}, {part}" if part else self.name
        return Tagged(name, words, tags, labels, [self.lines[row] for row in rows], self.layout)

    @property
    def count(self) -> int:
        """Words in all."""
        return sum(map(len, self.words))

    def digest(self) -> bytes:
        """sha256 of words, tags and labels."""
        rows = msgspec.json.encode([self.words, self.tags, self.labels])
        return hashlib.sha256(rows).digest()


def tagged_of_memory(data: Any) -> tuple[Tagged, list[str]]:
    """Rows (words, tags) or (words, tags, label), or dictionaries of these. InputError says which row is none."""
    rows = [_row(place, row) for place, row in enumerate(data)]
    return _of_rows("data", rows, list(range(len(rows))), "memory", InputError)


def read_objects(path: str | os.PathLike[str], words: str | None, tags: str | None) -> tuple[Tagged, list[str]]:
    """A .jsonl file: an object a line with words, tags and, where each has one, a label."""
    rows, lines = [], []
    for number, line in enumerate(read_content(path).split("\n"), 1):
        if not line.strip():
            continue
        record = _object(path, number, line)
        names = [_field(path, number, record, wanted, known) for wanted, known in ((words, _WORDS), (tags, _TAGS))]
        rows.append((record[names[0]], record[names[1]], record.get(_LABEL)))
        lines.append(number)
    return _of_rows(str(path), rows, lines, "lines", DataError)


def is_object_line(line: str) -> bool:
    """Whether a line of a .jsonl file holds words and tags."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(record, dict) and all(
        isinstance(next((record[name] for name in names if name in record), None), list) for names in (_WORDS, _TAGS)
    )


def object_lines(rows: Tagged) -> bytes:
    """The same rows as a .jsonl file."""
    records: list[dict[str, Any]] = [{"words": w, "tags": t} for w, t in zip(rows.words, rows.tags)]
    for record, label in zip(records, rows.labels or []):
        record[_LABEL] = label
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def _object(path: str | os.PathLike[str], number: int, line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"Line {number} of {path} is no JSON object: {error}; give one object a line.") from None


def _field(
    path: str | os.PathLike[str], number: int, record: Mapping[str, Any], wanted: str | None, known: Sequence[str]
) -> str:
    names = [*known] if wanted is None else [wanted]
    if found := next((name for name in names if name in record), None):
        return found
    raise DataError(f"Line {number} of {path} has no {' or '.join(map(repr, names))}; it has {', '.join(record)}.")


def _row(place: int, row: Any) -> tuple[Any, Any, Any]:
    if isinstance(row, Mapping):
        words, tags = (next((n for n in known if n in row), known[0]) for known in (_WORDS, _TAGS))
        return row.get(words), row.get(tags), row.get(_LABEL)
    if isinstance(row, (list, tuple)) and len(row) in (2, 3):
        return row[0], row[1], row[2] if len(row) == 3 else None
    raise InputError(f"data[{place}] is {kind_of(row)}; each row is (words, tags) or (words, tags, label).")


def _of_rows(
    name: str, rows: Sequence[tuple[Any, Any, Any]], lines: list[int], layout: Literal["lines", "memory"],
    error: type[DataError] | type[InputError],
) -> tuple[Tagged, list[str]]:  # fmt: skip
    """Rows of objects that may be anything; a label is one of all rows or of none."""
    kept: list[int] = []
    for place, row in enumerate(rows):
        where = f"{name}[{lines[place]}]" if layout == "memory" else f"Line {lines[place]} of {name}"
        for what, values in zip(("words", "tags"), row):
            if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) and value for value in values):
                raise error(
                    f"{where}: its {what} are {_said(values)}, but a list of strings that are not empty is needed."
                )
        if len(row[0]) != len(row[1]):
            raise error(f"{where} has {len(row[0])} words but {len(row[1])} tags; give each word its tag.")
        if (row[2] is None) != (rows[0][2] is None):
            raise error(
                f"{where} has {'no label' if row[2] is None else 'a label'}, unlike the first row; give all or none."
            )
        if row[0]:
            kept.append(place)
    if not kept:
        raise error(f"{name} has no sentence; give at least some words with their tags.")
    labels = None if rows[0][2] is None else [str(rows[n][2]) for n in kept]
    words, tags = ([list(rows[n][part]) for n in kept] for part in (0, 1))
    places = [[lines[n]] * len(rows[n][0]) for n in kept]
    return Tagged(name, words, tags, labels, places, layout), left_out(name, len(rows) - len(kept))


def left_out(name: str, empty: int) -> list[str]:
    """What to say of sentences without a word."""
    if not empty:
        return []
    return [f"1 sentence of {name} has no word and is left out." if empty == 1 else
            f"{empty} sentences of {name} have no word and are left out."]  # fmt: skip


def _said(values: Any) -> str:
    if isinstance(values, (list, tuple)):
        return f"a list that holds {next((repr(v) for v in values if not isinstance(v, str) or not v), 'nothing')}"
    return kind_of(values)

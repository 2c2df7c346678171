"""Files of tagged words: columns as in CoNLL and CoNLL-U, and `seq.in` with `seq.out` line by line."""

import gzip
import os
import re
from pathlib import Path

from recurra.data.table import read_content
from recurra.data.tagged import Tagged, is_object_line, left_out, read_objects
from recurra.errors import DataError

SUFFIXES = (".conll", ".conllu", ".bio", ".bioes", ".bmes", ".iob", ".iob2", ".ner")
WORDS, TAGS, LABELS = "seq.in", "seq.out", "label"  # the files of a folder, line by line
_DOCUMENT = "-DOCSTART-"
_CONLLU = {"form": 2, "upos": 4, "xpos": 5}  # numbers of columns
_SPAN_TAG = re.compile(r"O|[BIEMS]-\S+|[BIEMS]")
_PEEK = 1 << 16  # bytes by which a file is taken for tagged words


def is_tagged_file(path: Path) -> bool:
    """Whether a file is taken for tagged words: by its name, or because all its first lines end in a tag like B-PER."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(SUFFIXES):
        return True
    if name.endswith((".csv", ".parquet")):
        return False
    lines = _beginning(path)
    if name.endswith(".jsonl"):
        return bool(lines) and is_object_line(lines[0])
    rows = [re.split(r"[ \t]+", line.strip(" \t")) for line in lines]
    tags = [row[-1] for row in rows if row != [""]]
    return (
        {len(row) for row in rows if row != [""]} <= {2, 3, 4}
        and [""] in rows
        and any("-" in tag or tag != "O" for tag in tags)
        and all(_SPAN_TAG.fullmatch(tag) for tag in tags)
    )


def is_line_folder(path: Path) -> bool:
    """Whether a folder holds words and tags line by line."""
    return (path / WORDS).is_file() and (path / TAGS).is_file()


def read_tagged(path: str | os.PathLike[str], words: str | None, tags: str | None) -> tuple[Tagged, list[str]]:
    """Reads a file or a folder of `seq.in` and `seq.out`; what is left out is said.

    words, tags: the columns, by number from 1, in CoNLL-U also form, upos, xpos, of .jsonl the names of fields; None
    takes the first and the last column, of CoNLL-U form and upos. DataError names file and line of what cannot be read.
    """
    place = Path(path)
    name = place.name.lower().removesuffix(".gz")
    if place.is_dir():
        if words is not None or tags is not None:
            chosen = f"text={words!r}" if words is not None else f"label={tags!r}"
            raise DataError(
                f"{chosen} says nothing to {path}, whose words are in {WORDS} and tags in {TAGS}; leave it out."
            )
        return _read_lines(place)
    if name.endswith(".jsonl"):
        return read_objects(path, words, tags)
    return _read_columns(path, words, tags, name.endswith(".conllu"))


# ------------------------------------------------------------------------------------------------------ a word a line


def _read_columns(
    path: str | os.PathLike[str], words: str | None, tags: str | None, conllu: bool
) -> tuple[Tagged, list[str]]:
    columns = _Columns(str(path), words, tags, conllu)
    for number, line in enumerate(read_content(path).split("\n"), 1):
        columns.read(number, line.strip(" \t\r"))
    return columns.end()


class _Columns:
    """The sentences of a file, gathered line by line."""

    def __init__(self, name: str, words: str | None, tags: str | None, conllu: bool) -> None:
        self.name, self._wanted, self._conllu = name, (words, tags), conllu
        self._words: list[list[str]] = []
        self._tags: list[list[str]] = []
        self._lines: list[list[int]] = []
        self._open = False
        self._width = self._first = 0  # columns, and the line that says how many there are
        self._word = self._tag = 0
        self._tabs = conllu
        self._documents = self._without_tag = 0

    def read(self, number: int, line: str) -> None:
        if not line or (self._conllu and line.startswith("#")):
            self._open = self._open and bool(line)
            return
        if not self._width:
            self._tabs = self._tabs or "\t" in line
        row = line.split("\t") if self._tabs else re.split(r"[ \t]+", line)
        if row[0] == _DOCUMENT:
            self._documents, self._open = self._documents + 1, False
            return
        if not self._width:
            self._begin(number, row)
        self._check(number, row)
        if self._conllu and not row[0].isdecimal():
            self._without_tag += 1
            return
        self._add(number, row[self._word], row[self._tag])

    def _begin(self, number: int, row: list[str]) -> None:
        self._width, self._first = len(row), number
        if self._width < 2:
            raise DataError(
                f"Line {number} of {self.name} has one column ({row[0]!r}), but a word and its tag are needed in each "
                "line, divided by a tab or a blank; an empty line divides sentences."
            )
        words, tags = self._wanted
        self._word = self._column(words, "text", 2 if self._conllu else 1)
        self._tag = self._column(tags, "label", _CONLLU["upos"] if self._conllu else len(row))

    def _column(self, wanted: str | None, flag: str, usual: int) -> int:
        if wanted is None:
            return usual - 1
        number = _CONLLU.get(wanted.lower()) if self._conllu else None
        if number is None and wanted.isdecimal():
            number = int(wanted)
        if number is None or not 1 <= number <= self._width:
            names = "form, upos, xpos or " if self._conllu else ""
            raise DataError(
                f"{self.name} has no column {wanted!r} ({flag}); give {names}a number from 1 to {self._width}."
            )
        return number - 1

    def _check(self, number: int, row: list[str]) -> None:
        if len(row) != self._width:
            many = f"{len(row)} column{'' if len(row) == 1 else 's'}"
            raise DataError(
                f"Line {number} of {self.name} has {many} but line {self._first} has {self._width}; an empty line "
                "divides sentences, and every other has a word and its tag."
            )
        for column, what in ((self._word, "word"), (self._tag, "tag")):
            if not row[column] or (self._conllu and what == "tag" and row[column] == "_" and row[0].isdecimal()):
                raise DataError(
                    f"Line {number} of {self.name} has no {what} in column {column + 1}; give one, or choose another "
                    "column with label or text."
                )

    def _add(self, number: int, word: str, tag: str) -> None:
        if not self._open:
            for each in (self._words, self._tags):
                each.append([])
            self._lines.append([])
            self._open = True
        self._words[-1].append(word)
        self._tags[-1].append(tag)
        self._lines[-1].append(number)

    def end(self) -> tuple[Tagged, list[str]]:
        if not self._words:
            raise DataError(f"{self.name} has no sentence; give at least some words with their tags.")
        notes = []
        if self._documents:
            notes.append(
                f"{self.name}: lines {_DOCUMENT}, which divide documents: {self._documents}; they are no words."
            )
        if self._without_tag:
            notes.append(
                f"{self.name}: lines of several words at once or of none, which have no tag of their own: "
                f"{self._without_tag}; they are left out."
            )
        return Tagged(self.name, self._words, self._tags, None, self._lines), notes


# -------------------------------------------------------------------------------------------------- a sentence a line


def _read_lines(folder: Path) -> tuple[Tagged, list[str]]:
    names = [WORDS, TAGS, *([LABELS] if (folder / LABELS).is_file() else [])]
    columns = [_lines(folder / name) for name in names]
    for name, lines in zip(names[1:], columns[1:]):
        if len(lines) != len(columns[0]):
            raise DataError(
                f"{folder / name} has {len(lines)} lines but {folder / WORDS} has {len(columns[0])}; line n of each "
                "belongs to sentence n."
            )
    words, tags = ([re.split(r"[ \t]+", line) if line else [] for line in lines] for lines in columns[:2])
    for number, (said, marked) in enumerate(zip(words, tags), 1):
        if len(said) != len(marked):
            raise DataError(
                f"Line {number} of {folder / WORDS} has {len(said)} words but line {number} of {folder / TAGS} has "
                f"{len(marked)} tags; give each word its tag."
            )
    kept = [n for n, said in enumerate(words) if said]
    if not kept:
        raise DataError(f"{folder / WORDS} has no sentence; give at least some words with their tags.")
    labels = columns[2] if len(columns) > 2 else None
    for n in kept:
        if labels is not None and not labels[n]:
            raise DataError(f"Line {n + 1} of {folder / LABELS} is empty; give sentence {n + 1} its label.")
    rows = Tagged(str(folder / TAGS), words, tags, labels, [[n] * len(w) for n, w in enumerate(words, 1)], "lines")
    return rows.take(kept), left_out(str(folder / WORDS), len(words) - len(kept))


def _lines(path: Path) -> list[str]:
    lines = [line.strip(" \t\r") for line in read_content(path).split("\n")]
    return lines if lines[-1] else lines[:-1]


def _beginning(path: Path) -> list[str]:
    """The first whole lines of a file; none where it cannot be read, which its reader says."""
    try:
        if not path.is_file():
            return []
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            raw = file.read(_PEEK)
    except (OSError, EOFError):
        return []
    text = raw.decode("utf-8", "replace")
    lines = text.split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if len(raw) == _PEEK else lines)]

"""Texts one by one, with their labels and lines: what can be said of any data made of text."""

import re
from dataclasses import dataclass

from recurra.data.columns import Labelled
from recurra.data.symbols import END
from recurra.data.tagged import Tagged
from recurra.data.text import Source

_PART = re.compile(r", \d+ (?:rows|sentences)(?: for validation| for the test)?$")  # how a part of a table is named


@dataclass(frozen=True)
class Texts:
    """A part of some data: rows of a table, documents, sentences, or the lines of a text."""

    name: str
    texts: list[str]
    lines: list[int] | None  # where each is in its file, from 1; None where there is no such place
    labels: list[tuple[str, ...]] | None = None  # of every row one, or several
    noun: str = "row"
    whole: bool = True  # False where these are its first ones only

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, place: int) -> str:
        """A text's place in words: "line 3 of a.csv", "data[2]"."""
        if self.lines is None:
            return f"{self.noun} {place + 1} of {self.name}"
        return f"line {self.lines[place]} of {self.name}"


def rows_of(rows: Labelled, from_file: bool) -> Texts:
    """The rows of a table, by the name of its file alone; rows in memory have no lines."""
    lines = rows.lines if from_file else None
    return Texts(_PART.sub("", rows.name), rows.texts, lines, rows.sets)


def sentences_of(rows: Tagged, between: str) -> Texts:
    """Tagged sentences, by the line of their first word; their labels, where there are none their tags."""
    labels: list[tuple[str, ...]] = [tuple(each) for each in rows.tags]
    if rows.labels:
        labels = [(label,) for label in rows.labels]
    lines = None if rows.layout == "memory" else [each[0] for each in rows.lines]
    name = _PART.sub("", rows.name)
    return Texts(name, [between.join(words) for words in rows.words], lines, labels, noun="sentence")


def lines_of(text: Source, most: int, name: str, first: int | None = 1) -> Texts:
    """The documents of a text, or its lines where it has none; of a text of more than `most` characters the first.

    first: the line of the file that it begins in; None where nobody knows.
    """
    content = text.first(most)
    whole = len(content) == len(text)
    if END in content:
        documents = [each for each in content.split(END) if each.strip()]
        return Texts(name, documents, None, noun="document", whole=whole)
    numbered = [(n, line) for n, line in enumerate(content.split("\n")) if line.strip()]
    lines = None if first is None else [first + n for n, _ in numbered]
    return Texts(name, [line for _, line in numbered], lines, noun="line", whole=whole)

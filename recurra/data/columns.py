"""Which column of a table holds the text and which the label: chosen by a person, or found from the rows."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from recurra.data.label_sets import (
    COLUMNS,
    ONE,
    is_flag_column,
    is_set,
    joined_labels,
    labels_of,
    read_cell,
    way_of,
)
from recurra.data.table import Table
from recurra.errors import DataError

_TEXTS = ("text", "sentence", "review", "content", "comment", "body", "文本", "评论", "内容", "句子")
_LABELS = ("label", "class", "category", "sentiment", "target", "y", "标签", "类别", "情感")


@dataclass(frozen=True)
class Labelled:
    """Texts, each with its label."""

    name: str
    texts: list[str]
    labels: list[str]
    lines: list[int]  # where each is in its file, for messages
    text: str  # the name of the column; its number from 1 where the file has no names
    label: str
    way: str = ONE  # of writing several labels a row; see `label_sets`

    @property
    def several(self) -> bool:
        """Whether a row may have several labels, or none."""
        return self.way != ONE

    @property
    def sets(self) -> list[tuple[str, ...]]:
        """The labels of every row."""
        return [labels_of(cell) if self.several else (cell,) for cell in self.labels]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int], part: str = "") -> "Labelled":
        """Some of the rows, under a name that says which."""
        name = f"{self.name}, {part}" if part else self.name
        chosen = ([each[row] for row in rows] for each in (self.texts, self.labels))
        texts, labels = chosen
        return Labelled(name, texts, labels, [self.lines[row] for row in rows], self.text, self.label, self.way)


def joined(first: Labelled, *more: Labelled) -> Labelled:
    """The rows of all, one after the other, under the name of the first."""
    parts = (first, *more)
    texts, labels = ([cell for part in parts for cell in getattr(part, name)] for name in ("texts", "labels"))
    lines = [line for part in parts for line in part.lines]
    return Labelled(first.name, texts, labels, lines, first.text, first.label, first.way)


def labelled(
    table: Table, text: str | None = None, label: str | None = None, known: Container[str] = (), way: str | None = None
) -> Labelled:
    """The texts and labels of a table.

    text, label: names of columns, or their numbers from 1; None finds the column. The label is the column with the
    fewest different values, the text the one with the longest of the others; a name like `label` or `review` goes
    before that. Several columns of 0 and 1, none of which is called like a label, are labels that a row has or has
    not; `label` names such as "a,b,c". known: labels of a model, by which a first row is seen to be data.
    way: how several labels a row are written; None finds it, "" (ONE) takes each cell for one label.
    The first row names the columns unless its label is one that other rows have too.
    """
    width = len(table.rows[0])
    if width < 2:
        raise DataError(f"{table.name} has one column; a text and a label are needed in each row.")
    names, begin = table.columns, 0
    if names is None:
        names, begin = _named(table, text, label, known)
    rows = table.rows[begin:]
    if not rows:
        raise DataError(f"{table.name} has a row of names and no other; give a text and a label in each row.")
    flags = _flag_columns(table.name, names, rows, label, way)
    written = _chosen(table.name, names, text, "text")
    said = flags[0] if flags else _chosen(table.name, names, label, "label")
    if said is None:
        said = _label_column(table.name, names, rows, written)
    if written is None:
        written = _text_column(names, rows, {said, *flags})
    if written in {said, *flags}:
        raise DataError(f"{table.name}: text and label are both column {names[written]}; choose two columns.")
    texts, lines = [row[written] for row in rows], table.lines[begin:]
    if flags:
        cells = [joined_labels(names[n] for n in flags if is_set(row[n])) for row in rows]
        return Labelled(table.name, texts, cells, lines, names[written], ",".join(names[n] for n in flags), COLUMNS)
    cells = [row[said] for row in rows]
    found = way_of(cells) if way is None else way
    return Labelled(
        table.name, texts, [read_cell(cell, found) for cell in cells], lines, names[written], names[said], found
    )


def _flag_columns(name: str, names: list[str], rows: list[list[str]], label: str | None, way: str | None) -> list[int]:
    """The columns that are labels of 0 and 1: those that `label` names, or all such where no name is a label's."""
    if way not in (None, COLUMNS):
        return []
    if label is not None:
        if label in names or "," not in label:
            return []
        chosen = [_chosen(name, names, each.strip(), "label") for each in label.split(",")]
        flags = [n for n in chosen if n is not None]
        for n in flags:
            if bad := next((row[n] for row in rows if not is_flag_column([row[n], "0", "1"])), None):
                raise DataError(f"{name}: column {names[n]} has {bad!r}, and a column that is a label has 0 or 1.")
        return flags
    if _hinted(names, _LABELS, None) is not None:
        return []
    flags = [n for n in range(len(names)) if is_flag_column(row[n] for row in rows)]
    return flags if len(flags) > 1 and len(flags) < len(names) else []


def _named(table: Table, text: str | None, label: str | None, known: Container[str]) -> tuple[list[str], int]:
    """The names of the columns and where the data begins."""
    first = [cell.strip() for cell in table.rows[0]]
    numbers = [str(n + 1) for n in range(len(first))]
    parts = label.split(",") if label is not None and label not in first else [label]
    chosen = [name.strip() for name in (text, *parts) if name is not None]
    if any(name in first and name not in numbers for name in chosen):
        return first, 1
    if len(table.rows) == 1:
        return numbers, 0
    names = first if len(set(first)) == len(first) else numbers
    column = _chosen(table.name, [*names], label, "label") if label in names or label in numbers else None
    if column is None:
        column = _label_column(table.name, names, table.rows[1:], None)
    others = {row[column].strip() for row in table.rows[1:]}
    if first[column] in others or first[column] in known:
        return numbers, 0
    return first, 1


def _chosen(name: str, names: list[str], wanted: str | None, flag: str) -> int | None:
    if wanted is None:
        return None
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise DataError(f"{name} has no column {wanted!r} ({flag}); it has {', '.join(names)}.")


def _label_column(name: str, names: list[str], rows: list[list[str]], taken: int | None) -> int:
    hinted = _hinted(names, _LABELS, taken)
    if hinted is not None:
        return hinted
    kinds = {n: len({row[n].strip() for row in rows}) for n in range(len(names)) if n != taken}
    possible = {n: k for n, k in kinds.items() if 2 <= k <= max(2, len(rows) // 2)}
    if not possible:
        counts = ", ".join(f"{names[n]} has {k}" for n, k in kinds.items())
        raise DataError(
            f"No column of {name} looks like labels, which have at least 2 different values and fewer than half as "
            f"many as there are rows ({len(rows)}): {counts}; choose one with label."
        )
    return min(possible, key=lambda n: possible[n])


def _text_column(names: list[str], rows: list[list[str]], taken: set[int]) -> int:
    hinted = _hinted(names, _TEXTS, *taken)
    if hinted is not None:
        return hinted
    others = [n for n in range(len(names)) if n not in taken]
    return max(others, key=lambda n: sum(len(row[n]) for row in rows))


def _hinted(names: list[str], hints: tuple[str, ...], *taken: int | None) -> int | None:
    for hint in hints:
        for n, name in enumerate(names):
            if n not in taken and name.casefold() == hint:
                return n
    return None

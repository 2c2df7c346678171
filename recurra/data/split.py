"""Labelled texts for training, validation and test: as files are named, or by a seeded split; what is wrong is said.

A split made here is stratified: each label has its share of each part. Rows of equal text stay together, or a model
would be judged on what it has learned by heart.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recurra.data.columns import Labelled, joined, labelled
from recurra.data.extra import phrases_of, read_extra
from recurra.data.keys import key
from recurra.data.label_sets import ONE, said
from recurra.data.memory import is_frame, is_text_list
from recurra.data.parts import parts_of
from recurra.data.table import Table, table_of_memory
from recurra.data.trees import is_labelled_file, is_trees, read_labelled
from recurra.errors import DataError, InputError


@dataclass(frozen=True)
class Splits:
    """The parts of a data set, and what was found in it, a sentence each."""

    name: str
    train: Labelled
    validation: Labelled
    test: Labelled | None  # None where a folder has no file for it
    notes: tuple[str, ...]
    extra: Labelled | None = None  # more rows to train on: of another file, or the phrases of trees

    @property
    def lessons(self) -> Labelled:
        """All rows to train on."""
        return joined(self.train, self.extra) if self.extra else self.train

    @property
    def sha256(self) -> str:
        """sha256 of all texts and labels, part by part."""
        parts = (self.train, self.validation, self.test, self.extra)
        fields = (field for part in parts if part for row in zip(part.texts, part.labels) for field in row)
        return hashlib.sha256("\0".join(fields).encode("utf-8", "surrogatepass")).hexdigest()


def is_labelled(data: Any) -> bool:
    """Whether data is taken for labelled texts: a table, a folder with a table for training, or rows in memory."""
    if isinstance(data, (str, os.PathLike)):
        return is_labelled_file(data) or (Path(data).is_dir() and "train" in parts_of(data))
    rows = is_frame(data) or isinstance(data, Mapping | Sequence) or hasattr(data, "__array__")
    return rows and not is_text_list(data)


def read_splits(
    data: Any, text: str | None, label: str | None, validation: float, test: float, seed: int,
    extra: str | None = None, several: bool | None = None,
) -> Splits:  # fmt: skip
    """Reads data and splits it. validation, test: the shares taken where there is no file for them. DataError.

    several: whether a row may have several labels; None finds it. extra: the path of more rows to train on. The
    phrases of trees are such rows without it.
    """
    splits = _read_splits(data, text, label, validation, test, seed, several)
    held = [splits.validation, *([splits.test] if splits.test else [])]
    notes, more = splits.notes, list[Labelled]()
    if (trees := _trees_of(data)) is not None:
        phrases, found = phrases_of(trees, splits.train, held)
        more, notes = [*more, phrases], (*notes, *found)
    if extra is not None:
        rows, found = read_extra(extra, joined(splits.train, *more), held)
        more, notes = [*more, rows], (*notes, *found)
    return replace(splits, extra=joined(*more) if more else None, notes=notes)


def _trees_of(data: Any) -> Path | None:
    """The file of trees to train on, where the data is one or has one."""
    if not isinstance(data, (str, os.PathLike)):
        return None
    path = parts_of(data).get("train", Path(data)) if Path(data).is_dir() else Path(data)
    return path if is_trees(path) else None


def _read_splits(
    data: Any, text: str | None, label: str | None, validation: float, test: float, seed: int, several: bool | None
) -> Splits:
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        return _of_folder(Path(data), text, label, validation, seed, several)
    rows, notes = _usable(_labelled(_table(data), text, label, several))
    train, (kept, tested) = stratified(rows, (validation, test), seed)
    split = (
        f"{rows.name} was split by seed {seed}: {len(train)} rows to train, {len(kept)} for validation, {len(tested)} "
        "for the test; each label has its share, and equal texts stay together."
    )
    for_validation = rows.take(kept, f"{len(kept)} rows for validation")
    for_test = rows.take(tested, f"{len(tested)} rows for the test") if tested else None
    for_training = rows.take(train, f"{len(train)} of {len(rows)} rows")
    return _checked(rows.name, for_training, for_validation, for_test, (*notes, split))


def _table(data: Any) -> Table:
    if isinstance(data, Table):
        return data
    return read_labelled(data) if isinstance(data, (str, os.PathLike)) else table_of_memory(data)


def _labelled(table: Table, text: str | None, label: str | None, several: bool | None) -> Labelled:
    """The rows of a table, of which each has one label, or several. Raises DataError for several where none is."""
    rows = labelled(table, text, label, way=ONE if several is False else None)
    if several and not rows.several:
        raise DataError(
            f"{rows.name} has one label in each row of column {rows.label}, and several=True says that there are more; "
            "divide them by | in the cell, or give JSON lists or columns of 0 and 1."
        )
    return rows


def _of_folder(
    folder: Path, text: str | None, label: str | None, share: float, seed: int, several: bool | None
) -> Splits:
    files = parts_of(folder)
    if "train" not in files:
        raise DataError(
            f"{folder} has no table for training; name the tables train, dev and test, as in {folder / 'train.csv'}."
        )
    tables = {part: read_labelled(path) for part, path in files.items()}
    first = _labelled(tables["train"], text, label, several)
    notes: list[str] = []
    parts: dict[str, Labelled] = {}
    for part, table in tables.items():
        rows = first if part == "train" else _same_columns(table, first)
        parts[part], found = _usable(rows, say_columns=part == "train")
        notes += found
    train, kept = parts["train"], parts.get("validation")
    if kept is None:
        stays, (held,) = stratified(train, (share,), seed)
        notes.append(
            f"{folder} has no table for validation: {len(held)} of {len(train)} rows were kept, by seed {seed}."
        )
        train, kept = train.take(stays, f"{len(stays)} rows"), train.take(held, f"{len(held)} rows for validation")
    return _checked(str(folder), train, kept, parts.get("test"), tuple(notes))


def _same_columns(table: Table, first: Labelled) -> Labelled:
    return labelled(table, first.text, first.label, known=set(first.labels), way=first.way)


def read_rows(
    data: Any, text: str | None, label: str | None, known: Sequence[str], way: str = ONE
) -> tuple[Labelled, list[str]]:
    """All usable rows of a table, to measure a model that knows these labels; what was left out is said."""
    table = _table(data)
    try:
        return _usable(labelled(table, text, label, known=set(known), way=way), say_columns=False)
    except DataError:  # its columns have other names: what was found instead is said
        return _usable(labelled(table, known=set(known), way=None if way != ONE else ONE))


def _usable(rows: Labelled, say_columns: bool = True) -> tuple[Labelled, list[str]]:
    """The rows that have a text and a label; the others are counted and said."""
    notes = []
    if say_columns and rows.several:
        counts = [len(labels) for labels in rows.sets]
        notes = [
            f"{rows.name}: the text is column {rows.text}; a row may have several labels, "
            f"{said(rows.way, rows.label.split(','))}: {sum(counts) / max(1, len(counts)):.2f} a row, and none in "
            f"{counts.count(0):,}."
        ]
    elif say_columns:
        notes = [f"{rows.name}: the text is column {rows.text}, the label column {rows.label}."]
    for what, cells in (("text", rows.texts), ("label", rows.labels)):
        if empty := [n for n, cell in enumerate(cells) if not cell.strip()]:
            some = f"1 row of {rows.name} has" if len(empty) == 1 else f"{len(empty)} rows of {rows.name} have"
            notes.append(f"{some} an empty {what} and {'is' if len(empty) == 1 else 'are'} left out, the first in line "
                         f"{rows.lines[empty[0]]}.")  # fmt: skip
    full = [n for n in range(len(rows)) if rows.texts[n].strip() and rows.labels[n]]
    if not full:
        raise DataError(f"{rows.name} has no row with a text and a label.")
    return (rows if len(full) == len(rows) else rows.take(full)), notes


def stratified(rows: Labelled, shares: Sequence[float], seed: int) -> tuple[list[int], list[list[int]]]:
    """Rows to train on, and those of each share. A label keeps at least one text to train on.

    Which rows are taken is a function of the seed and the rows alone.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for n, text in enumerate(rows.texts):
        groups[text].append(n)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    sets = rows.sets
    counts = Counter(label for labels in sets for label in labels)
    for group in groups.values():  # of several labels the rarest decides
        by_label[min(sets[group[0]], key=lambda label: (counts[label], label), default="")].append(group)
    draw = np.random.default_rng(key(seed, "split"))
    kept: list[list[int]] = [[] for _ in shares]
    for label in sorted(by_label):
        order = [by_label[label][n] for n in draw.permutation(len(by_label[label]))]
        begin = 0
        for part, share in zip(kept, shares):
            count = min(round(share * len(order)), max(0, len(order) - 1 - begin))
            part += [n for group in order[begin : begin + count] for n in group]
            begin += count
    taken = {n for part in kept for n in part}
    train = [n for n in range(len(rows)) if n not in taken]
    return train, [sorted(part) for part in kept]


def _checked(name: str, train: Labelled, kept: Labelled, test: Labelled | None, notes: tuple[str, ...]) -> Splits:
    """Raises DataError for parts that cannot be used; says what a reader of the figures must know."""
    counts = Counter(label for labels in train.sets for label in labels)
    if len(counts) < 2:
        all_have = f"the label {next(iter(counts))!r}" if counts else "no label"
        raise DataError(f"{train.name}: all have {all_have}; at least 2 are needed to tell them apart.")
    if not kept.texts:
        raise DataError(f"{name} leaves no row for validation; give more rows of each label, or a file for it.")
    more = []
    if once := [label for label, count in counts.items() if count == 1]:
        shown = ", ".join(map(repr, once[:5])) + (" …" if len(once) > 5 else "")
        what = "1 label occurs" if len(once) == 1 else f"{len(once)} labels occur"
        more.append(
            f"{what} once in training ({shown}): nothing can be learned from one row; give more, or take it away."
        )
    for part in filter(None, (kept, test)):
        unknown = [(n, label) for n, labels in enumerate(part.sets) for label in labels if label not in counts]
        if unknown:
            raise DataError(
                f"Line {part.lines[unknown[0][0]]} of {part.name} has the label {unknown[0][1]!r}, which "
                f"training has not ({', '.join(sorted(counts)[:8])}{' …' if len(counts) > 8 else ''}); rows with such "
                f"labels: {len(unknown)}. Add them to training or take them away."
            )
    return Splits(name, train, kept, test, (*notes, *more, *_repeated(train, kept, test)))


def _repeated(train: Labelled, kept: Labelled, test: Labelled | None) -> list[str]:
    """What to say of texts that are in several parts, and of those that have several labels."""
    notes = [
        twice for part in filter(None, (kept, test)) if (twice := in_training_too(train.texts, part.texts, part.name))
    ]
    if train.several:
        return notes
    labels: dict[str, set[str]] = defaultdict(set)
    for text, label in zip(train.texts, train.labels):
        labels[text].add(label)
    if torn := sum(len(each) > 1 for each in labels.values()):
        notes.append(f"{torn} text{'s have' if torn > 1 else ' has'} more than one label in training.")
    return notes


def in_training_too(train: Sequence[str], texts: Sequence[str], name: str) -> str:
    """What to say of texts that are among those to train on; "" where none is."""
    seen = set(train)
    if not (twice := sum(text in seen for text in texts)):
        return ""
    rows = "1 text" if twice == 1 else f"{twice} texts"
    are = "is" if twice == 1 else "are"
    return f"{rows} of {name} {are} in training too, so that its figures flatter; nothing was left out."


def check_shares(validation: float, test: float) -> None:
    """Raises InputError for shares that leave nothing to train on."""
    if validation + test >= 1:
        raise InputError(
            f"validation={validation:g} and test={test:g} leave nothing to train on; give less than 1 in all."
        )

"""More rows to train on: those of a further table, or the labelled phrases of trees. None of them is ever held out.

What stands in the validation or test rows does not come in, nor any phrase of a sentence that does: a model would be
judged on what it has learned by heart.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from recurra.data.columns import Labelled, labelled
from recurra.data.label_sets import ONE
from recurra.data.parts import parts_of
from recurra.data.table import read_table
from recurra.data.trees import is_labelled_file, is_trees, read_trees
from recurra.errors import DataError

_TWO = (("0", "1"), ("negative", "positive"), ("neg", "pos"))  # labels of two-way sentiment
_DEGREES = {"0", "1", "2", "3", "4"}  # those of a sentiment treebank


def phrases_of(path: str | os.PathLike[str], train: Labelled, held: Sequence[Labelled]) -> tuple[Labelled, list[str]]:
    """The phrases of the trees whose sentences are the data itself, as rows, and what was found."""
    phrases, notes = _phrases(path, train, held)
    found, more = _new(phrases, train, held)
    return found, notes + more


def read_extra(path: str | os.PathLike[str], train: Labelled, held: Sequence[Labelled]) -> tuple[Labelled, list[str]]:
    """The rows of a table or of trees, or of that file of a folder that is for training.

    Their labels are those of training. Where it has two and the trees five degrees, two make the lower label, two the
    upper, and the middle one is left out.
    """
    place: str | os.PathLike[str] = path
    if Path(path).is_dir():
        parts = parts_of(path)
        if "train" not in parts:
            raise DataError(f"{os.fspath(path)} has no table for training; name it train, as in train.csv.")
        place = parts["train"]
    if not is_labelled_file(place):
        raise DataError(f"{os.fspath(place)} is neither a table nor a file of labelled trees, which extra takes.")
    if is_trees(place):
        rows, notes = _phrases(place, train, held)
        rows, said = _as_two(rows, train.labels)
        notes += said
    else:
        rows, notes = _rows(place, train)
    _check_labels(rows, {label for labels in train.sets for label in labels})
    found, more = _new(rows, train, held)
    return found, notes + more


def _rows(path: str | os.PathLike[str], train: Labelled) -> tuple[Labelled, list[str]]:
    """The rows of a table that have a text and a label."""
    table = read_table(path)
    try:
        rows = labelled(table, train.text, train.label, known=set(train.labels), way=train.way)
    except DataError:  # its columns have other names
        rows = labelled(table, known=set(train.labels), way=train.way or ONE)
    full = [n for n in range(len(rows)) if rows.texts[n].strip() and rows.labels[n]]
    empty = f"{_are(len(rows) - len(full), 'row', rows.name)} without a text or a label and left out."
    notes = [empty] if len(full) < len(rows) else []
    return rows.take(full), notes


def _phrases(path: str | os.PathLike[str], train: Labelled, held: Sequence[Labelled]) -> tuple[Labelled, list[str]]:
    """The phrases and sentences of those trees whose sentence is not held out."""
    name, kept = os.fspath(path), _keys(held)
    trees = read_trees(path)
    outside = [tree for tree in trees if _key(tree.text) not in kept]
    rows = [(text, label, tree.line) for tree in outside for text, label in (*tree.phrases, (tree.text, tree.label))]
    left = len(trees) - len(outside)
    said = f"{_are(left, 'sentence', name)} held out for validation or test; no phrase of such a sentence is read."
    found = Labelled(
        name, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], train.text, train.label, train.way
    )
    return found, [said] if left else []


def _as_two(rows: Labelled, labels: Sequence[str]) -> tuple[Labelled, list[str]]:
    """Five degrees as the two labels of training, where that is what is asked for."""
    lower, *upper = sorted(set(labels), key=str.casefold)
    degrees = set(rows.labels)
    if not (len(degrees) > 2 and degrees <= _DEGREES) or (lower.casefold(), *map(str.casefold, upper)) not in _TWO:
        return rows, []
    sided = rows.take([n for n, label in enumerate(rows.labels) if label != "2"])
    said = (
        f"Of the five degrees of {rows.name} 0 and 1 are taken for {lower}, 3 and 4 for {upper[0]}; the "
        f"{len(rows) - len(sided):,} phrases of degree 2 are left out."
    )
    return replace(sided, labels=[lower if label < "2" else upper[0] for label in sided.labels]), [said]


def _check_labels(rows: Labelled, labels: Iterable[str]) -> None:
    known = sorted(labels)
    for row, line in zip(rows.sets, rows.lines):
        for label in row:
            if label in known:
                continue
            raise DataError(
                f"Line {line} of {rows.name} has the label {label!r}, which training has not "
                f"({', '.join(known[:8])}{' …' if len(known) > 8 else ''}); take such rows out of extra."
            )


def _new(rows: Labelled, train: Labelled, held: Sequence[Labelled]) -> tuple[Labelled, list[str]]:
    """Those rows that are neither held out, nor in training already, nor there twice."""
    kept = _keys(held)
    seen = {(_plain(text), label) for text, label in zip(train.texts, train.labels)}
    new: list[int] = []
    leaks = 0
    for n, (text, label) in enumerate(zip(rows.texts, rows.labels)):
        if _key(text) in kept:
            leaks += 1
        elif (row := (_plain(text), label)) not in seen:
            seen.add(row)
            new.append(n)
    twice = len(rows) - leaks - len(new)
    notes = [f"{_are(len(new), 'row', rows.name)} added to training; {twice:,} more it has already."]
    if leaks:
        notes.append(f"{_are(leaks, 'row', rows.name)} left out: the same text is held out for validation or test.")
    return rows.take(new), notes


def _keys(parts: Iterable[Labelled]) -> set[str]:
    return {_key(text) for part in parts for text in part.texts}


def _key(text: str) -> str:
    """Letters and digits alone: data sets write marks and blanks of the same sentence in several ways."""
    return "".join(filter(str.isalnum, text.casefold())) or text


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _are(number: int, noun: str, name: str) -> str:
    return f"{number:,} {noun} of {name} is" if number == 1 else f"{number:,} {noun}s of {name} are"

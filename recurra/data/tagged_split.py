"""Tagged sentences for training, validation and test: as files are named, or by a seeded split."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.data.columns import Labelled
from recurra.data.conll import is_line_folder, is_tagged_file, read_tagged
from recurra.data.parts import part_of
from recurra.data.schemes import breaks, found_scheme, is_iob1, spans, written
from recurra.data.split import in_training_too, stratified
from recurra.data.tagged import Tagged, tagged_of_memory
from recurra.errors import DataError, InputError, kind_of

_BROKEN = 0.01  # of the sentences may break the scheme; more are no oversight


@dataclass(frozen=True)
class TaggedSplits:
    """The parts of a data set, and what was found in it, a sentence each. Tags are as the files have them."""

    name: str
    train: Tagged
    validation: Tagged
    test: Tagged | None  # None where a folder has no file for it
    scheme: str | None  # in which tags say spans; None where they say none
    notes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """sha256 of all words, tags and labels, part by part."""
        parts = (self.train, self.validation, self.test)
        return hashlib.sha256(b"".join(part.digest() for part in parts if part)).hexdigest()


def is_tagged(data: Any) -> bool:
    """Whether data is taken for tagged sentences: by name or content of a file or folder, or by the first row."""
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        return path.exists() and (is_line_folder(path) or is_tagged_file(path) or "train" in tagged_parts(path))
    if not isinstance(data, (list, tuple)) or not data:
        return False
    if isinstance(data[0], Mapping):
        return isinstance(data[0].get("tags"), (list, tuple))
    words_and_tags = data[0][:2] if isinstance(data[0], (list, tuple)) else ()
    return len(words_and_tags) == 2 and all(isinstance(part, (list, tuple)) for part in words_and_tags)


def tagged_parts(folder: Path) -> dict[str, Path]:
    """The files and folders of tagged sentences in a folder by what their names say they are for.

    DataError when two are for the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        part = part_of(path.name)
        if part is None or not (is_line_folder(path) if path.is_dir() else is_tagged_file(path)):
            continue
        if part in found:
            raise DataError(f"{folder} has {found[part].name} and {path.name}, both for {part}; take one away.")
        found[part] = path
    return found


def read_tagged_splits(
    data: Any, words: str | None, tags: str | None, validation: float, test: float, seed: int
) -> TaggedSplits:
    """Reads data and splits it. validation, test: the shares taken where there is no file for them. DataError."""
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir() and not is_line_folder(Path(data)):
        return _of_folder(Path(data), words, tags, validation, seed)
    rows, notes = _read(data, words, tags)
    train, (kept, tested) = _drawn(rows, (validation, test), seed)
    said = (
        f"{rows.name} was split by seed {seed}: {len(train)} sentences to train, {len(kept)} for validation, "
        f"{len(tested)} for the test; equal sentences stay together."
    )
    parts = {"train": rows.take(train, f"{len(train)} sentences")}
    parts["validation"] = rows.take(kept, f"{len(kept)} sentences for validation")
    if tested:
        parts["test"] = rows.take(tested, f"{len(tested)} sentences for the test")
    return _checked(rows.name, parts, (*notes, said))


def _of_folder(folder: Path, words: str | None, tags: str | None, share: float, seed: int) -> TaggedSplits:
    files = tagged_parts(folder)
    if "train" not in files:
        raise DataError(
            f"{folder} has no file of tagged words for training; name the files train, dev and test, as in "
            f"{folder / 'train.conll'}."
        )
    notes: list[str] = []
    parts: dict[str, Tagged] = {}
    for part, path in files.items():
        parts[part], found = read_tagged(path, words, tags)
        notes += found
    if "validation" not in parts:
        train = parts["train"]
        stays, (held,) = _drawn(train, (share,), seed)
        notes.append(
            f"{folder} has no file for validation: {len(held)} of {len(train)} sentences were kept, by seed {seed}."
        )
        parts["train"] = train.take(stays, f"{len(stays)} sentences")
        parts["validation"] = train.take(held, f"{len(held)} sentences for validation")
    return _checked(str(folder), parts, tuple(notes))


def _read(data: Any, words: str | None, tags: str | None) -> tuple[Tagged, list[str]]:
    if isinstance(data, Tagged):
        return data, []
    if isinstance(data, (str, os.PathLike)):
        return read_tagged(data, words, tags)
    if isinstance(data, (list, tuple)):
        return tagged_of_memory(data)
    raise InputError(f"data is {kind_of(data)}; give a path, or a list of (words, tags).")


def read_tagged_rows(data: Any, words: str | None, tags: str | None, scheme: str | None) -> tuple[Tagged, list[str]]:
    """All sentences of a file, of a folder those of its test, to measure a model whose data had this scheme."""
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir() and not is_line_folder(Path(data)):
        parts = tagged_parts(Path(data))
        if (found := parts.get("test", parts.get("validation"))) is None:
            raise DataError(f"{data} has no file for a test; name it test, as in {Path(data) / 'test.conll'}.")
        data = found
    rows, notes = _read(data, words, tags)
    theirs = found_scheme(tag for each in rows.tags for tag in each)
    if (scheme is None) != (theirs is None) and any(tag != "O" for each in rows.tags for tag in each):
        raise DataError(
            f"{rows.name} has tags that say {'no spans' if theirs is None else 'spans, as ' + theirs}, and the model "
            f"gives {'none' if scheme is None else 'spans'}; choose another column with label."
        )
    return (rows, notes) if scheme is None else _mended(rows, theirs or scheme, notes)


def _drawn(rows: Tagged, shares: tuple[float, ...], seed: int) -> tuple[list[int], list[list[int]]]:
    labels = rows.labels or [""] * len(rows)
    lines = [line[0] for line in rows.lines]
    return stratified(Labelled(rows.name, _texts(rows), labels, lines, "", ""), shares, seed)


def _texts(rows: Tagged) -> list[str]:
    return [" ".join(words) for words in rows.words]


def _checked(name: str, parts: dict[str, Tagged], notes: Iterable[str]) -> TaggedSplits:
    """Raises DataError for parts that cannot be used; says what a reader of the figures must know."""
    more = list(notes)
    scheme = found_scheme(tag for tags in parts["train"].tags for tag in tags)
    for part, rows in parts.items():
        if not len(rows):
            raise DataError(f"{name} leaves no sentence for {part}; give more sentences, or a file for it.")
        if scheme is not None:
            parts[part], found = _mended(rows, scheme, [])
            more += found
    train, kept, test = parts["train"], parts["validation"], parts.get("test")
    if len({tag for tags in train.tags for tag in tags}) < 2:
        one = f"{train.name}: all have the tag {train.tags[0][0]!r}"
        raise DataError(f"{one}; at least 2 are needed to tell them apart.")
    counts = Counter(train.labels or [])
    if train.labels is not None and len(counts) < 2:
        one = f"{train.name}: all have the label {train.labels[0]!r}"
        raise DataError(f"{one}; at least 2 are needed, or no label at all.")
    for rows in filter(None, (kept, test)):
        if (rows.labels is None) != (train.labels is None):
            raise DataError(f"Of {train.name} and {rows.name} only one has labels of sentences; give both or none.")
        known = {kind for tags in train.tags for kind in _kinds(tags, scheme)}
        check_known(rows, known, set(counts), scheme, "training has not")
        if twice := in_training_too(_texts(train), _texts(rows), rows.name):
            more.append(twice)
    return TaggedSplits(name, train, kept, test, scheme, tuple(more))


def _kinds(tags: list[str], scheme: str | None) -> list[str]:
    return tags if scheme is None else [span.kind for span in spans(tags)]


def check_known(rows: Tagged, kinds: set[str], labels: set[str], scheme: str | None, who: str) -> None:
    """Raises DataError for a tag, a kind of span or a label that is not known."""
    what = "tag" if scheme is None else "kind of span"
    wrong = [(n, place, kind) for n, tags in enumerate(rows.tags) for place, kind in _places(tags, scheme)
             if kind not in kinds]  # fmt: skip
    if wrong:
        n, place, kind = wrong[0]
        raise DataError(
            f"The {what} {kind!r} ({rows.place(n, place)}) is one that {who}; such words: {len(wrong)}. "
            f"Known are {_listed(kinds)}."
        )
    unknown = [n for n, label in enumerate(rows.labels or []) if label not in labels]
    if unknown and rows.labels is not None:
        raise DataError(
            f"The label {rows.labels[unknown[0]]!r} ({rows.place(unknown[0], 0)}) is one that {who}; such sentences: "
            f"{len(unknown)}. Known are {_listed(labels)}."
        )


def _places(tags: list[str], scheme: str | None) -> list[tuple[int, str]]:
    return list(enumerate(tags)) if scheme is None else [(span.begin, span.kind) for span in spans(tags)]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (" …" if len(names) > 8 else "")


def _mended(rows: Tagged, scheme: str, notes: list[str]) -> tuple[Tagged, list[str]]:
    """Rows whose tags break a scheme nowhere: the few that do are read as conlleval reads them, and said.

    DataError when they are too many for an oversight.
    """
    if scheme == "BIO" and is_iob1(rows.tags):
        tags = [written(spans(each), len(each), "BIO") for each in rows.tags]
        return _with_tags(rows, tags), [*notes, f"{rows.name} has tags of IOB1, which are read and written as BIO."]
    wrong = [(n, broken) for n, tags in enumerate(rows.tags) for broken in breaks(tags, scheme)]
    if not wrong:
        return rows, notes
    strange = [each for each in wrong if each[1].strange]
    first, broken = (strange or wrong)[0]
    many = "1 such break" if len(wrong) == 1 else f"{len(wrong)} such breaks"
    said = f"In {rows.place(first, broken.place)}, {broken.said} (scheme {scheme}, {many} in {rows.name})"
    sentences = {n for n, _ in wrong}
    if strange or len(sentences) > max(2, _BROKEN * len(rows)):
        raise DataError(f"{said}; mend the tags, or choose another column with label.")
    tags = [written(spans(each), len(each), scheme) if n in sentences else each for n, each in enumerate(rows.tags)]
    return _with_tags(rows, tags), [*notes, f"{said}; such spans are read as conlleval reads them."]


def _with_tags(rows: Tagged, tags: list[list[str]]) -> Tagged:
    return Tagged(rows.name, rows.words, tags, rows.labels, rows.lines, rows.layout)

"""Candidates of a recogniser, in groups of which one candidate is right: from a file, or from memory."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from recurra.errors import DataError, InputError, kind_of


@dataclass(frozen=True)
class Group:
    """Candidates for the same thing, and the recogniser's own score of each where it gave them (more is better)."""

    id: str
    texts: list[str]
    scores: list[float] | None


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str | int
    text: str
    score: float | None = None


def groups_of_text(name: str, content: str) -> list[Group]:
    """Groups from lines: `candidate`, or `candidate<TAB>score`; a blank line between groups, which are numbered from 1.

    A file named .jsonl has an object a line: `text`, the `id` of its group, and maybe `score`.
    """
    is_json = name.lower().removesuffix(".gz").endswith(".jsonl")
    groups = _objects(name, content) if is_json else _blocks(name, content)
    if not groups:
        raise DataError(f"{name} has no candidates; give one a line, and a blank line between groups.")
    return groups


def _blocks(name: str, content: str) -> list[Group]:
    groups: list[Group] = []
    block: list[tuple[int, str, float | None]] = []
    for number, line in enumerate([*content.splitlines(), ""], 1):
        if line.strip():
            block.append((number, *_candidate(name, number, line)))
        elif block:
            groups.append(_group(name, str(len(groups) + 1), block))
            block = []
    return groups


def _candidate(name: str, number: int, line: str) -> tuple[str, float | None]:
    candidate, tab, score = line.rpartition("\t")
    if not tab:
        return line, None
    if not candidate.strip():
        raise DataError(f"Line {number} of {name} has a score but no candidate; write the candidate before the tab.")
    try:
        return candidate, float(score)
    except ValueError:
        raise DataError(
            f"Line {number} of {name} has {score!r} after the tab, where the recogniser's score stands; give a number."
        ) from None


def _objects(name: str, content: str) -> list[Group]:
    found: dict[str, list[tuple[int, str, float | None]]] = {}
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(
                f"Line {number} of {name} is no candidate: {error}; give an object with id, text and maybe score."
            ) from None
        if not row.text.strip():
            raise DataError(f"Line {number} of {name} has an empty text; leave it out.")
        found.setdefault(str(row.id), []).append((number, row.text, row.score))
    return [_group(name, name, rows) for name, rows in found.items()]


def _group(name: str, group: str, rows: list[tuple[int, str, float | None]]) -> Group:
    scores = [score for _, _, score in rows if score is not None]
    if len(scores) not in (0, len(rows)):
        line = next(number for number, _, score in rows if score is None)
        raise DataError(
            f"Line {line} of {name} has no score, but other candidates of group {group} have one; give all or none."
        )
    for number, _, score in rows:
        if score is not None and not math.isfinite(score):
            raise DataError(f"Line {number} of {name} has the score {score}; give a finite number.")
    return Group(group, [text for _, text, _ in rows], scores or None)


def groups_of_memory(groups: Iterable[Any]) -> list[Group]:
    """Groups from lists: of each group its candidates, or pairs of candidate and score. Numbered from 1."""
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise InputError(f"groups is {kind_of(groups)}; give a list of groups, each a list of candidates.")
    found = []
    for place, group in enumerate(groups):
        if isinstance(group, Group):
            found.append(group)
            continue
        if isinstance(group, str) or not isinstance(group, Sequence):
            raise InputError(f"groups[{place}] is {kind_of(group)}; give a list of candidates.")
        if not group:
            raise InputError(f"groups[{place}] is empty; give at least one candidate.")
        found.append(_listed(place, group))
    if not found:
        raise InputError("groups is empty; give at least one group of candidates.")
    return found


def _listed(place: int, group: Sequence[Any]) -> Group:
    texts, scores = [], []
    for n, item in enumerate(group):
        text, score = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"groups[{place}][{n}] is {item!r}; give a candidate, or a pair of candidate and score.")
        if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
            raise InputError(f"groups[{place}][{n}] has the score {score!r}; give a finite number.")
        texts.append(text)
        scores += [float(score)] if score is not None else []
    if len(scores) not in (0, len(texts)):
        raise InputError(f"groups[{place}] has {len(texts)} candidates but {len(scores)} scores; give all or none.")
    return Group(str(place + 1), texts, scores or None)

"""Texts that occur twice: within a part, in several parts (a leak), almost, or with several labels."""

import re
import unicodedata
from collections import defaultdict

from recurra.check.problems import Problem, some
from recurra.data.texts import Texts

_LEAST = 30  # characters of a line of prose that repeats by no accident
_MEANS = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """What stays when case, width, white space and punctuation are taken away (Unicode NFKC)."""
    return _MEANS.sub("", unicodedata.normalize("NFKC", text).casefold())


def repeats(parts: dict[str, Texts]) -> list[Problem]:
    """What occurs more than once in each part, and what of one part is in another."""
    problems = []
    exact = {name: _places(part, str.strip) for name, part in parts.items()}
    near = {name: _places(part, normalised) for name, part in parts.items()}
    for name, part in parts.items():
        problems += _within(name, part, exact[name])
        problems += _torn(name, part, exact[name])
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            problems += _across(first, second, parts, exact, near)
    return problems


def _places(part: Texts, key) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    least = 1 if part.noun != "line" else _LEAST
    found: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(part.texts):
        if len(text) >= least and (kept := key(text)):
            found[kept].append(place)
    return found


def _within(name: str, part: Texts, exact: dict[str, list[int]]) -> list[Problem]:
    again = sum(len(places) - 1 for places in exact.values())
    if not again:
        return []
    places = next(places for places in exact.values() if len(places) > 1)
    what = (
        f"{some(again, part.noun)} of {name} ({part.name}) {'is' if again == 1 else 'are'} there before: "
        f"{part.where(places[1])} is {part.where(places[0])} again; they count twice, so take them out unless that is "
        "meant."
    )
    return [Problem("warning" if 20 * again > len(part) and part.noun != "line" else "note", what, again)]


def _torn(name: str, part: Texts, exact: dict[str, list[int]]) -> list[Problem]:
    if part.labels is None:
        return []
    labels = part.labels
    torn = [places for places in exact.values() if len({labels[place] for place in places}) > 1]
    if not torn:
        return []
    one, other = torn[0][0], next(place for place in torn[0] if labels[place] != labels[torn[0][0]])
    what = (
        f"{some(len(torn), 'text')} of {name} {'has' if len(torn) == 1 else 'have'} several labels: "
        f"{part.where(one)} says {_said(labels[one])}, {part.where(other)} {_said(labels[other])}; decide for one."
    )
    return [Problem("warning", what, len(torn))]


def _said(labels: tuple[str, ...]) -> str:
    return " and ".join(map(repr, labels)) or "none"


def _across(
    first: str,
    second: str,
    parts: dict[str, Texts],
    exact: dict[str, dict[str, list[int]]],
    near: dict[str, dict[str, list[int]]],
) -> list[Problem]:
    one, other = parts[first], parts[second]
    same = {place for text, places in exact[second].items() if text in exact[first] for place in places}
    alike = {place for text, places in near[second].items() if text in near[first] for place in places} - same
    problems = []
    for places, table, key, how in (
        (same, exact, str.strip, "too"),
        (alike, near, normalised, "too but for case, blanks and punctuation"),
    ):
        if not places:
            continue
        place = min(places)
        before = table[first][key(other.texts[place])][0]
        what = (
            f"{some(len(places), other.noun)} of {second} {'is' if len(places) == 1 else 'are'} in {first} {how}, so "
            f"that its figures flatter: {other.where(place)} is {one.where(before)}; take them out of one part."
        )
        few = other.noun == "line" and 100 * len(places) < len(other)
        problems.append(Problem("note" if few else "warning", what, len(places)))
    return problems

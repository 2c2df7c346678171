"""Ranking the candidates of a recogniser by what a language model thinks of them.

    combined = score + weight · ln p(candidate)

score is the recogniser's own, a log-probability or the like; without any, ln p alone decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recurra.data.candidates import Group
from recurra.errors import InputError
from recurra.tasks.scoring import Score


@dataclass(frozen=True)
class Ranked:
    """A candidate and how likely its text is."""

    text: str
    combined: float  # what it is ranked by
    log_probability: float  # ln p of the text
    symbols: int  # of the text, its end among them
    score: float | None  # the recogniser's own
    place: int  # among the candidates as they were given, from 0


@dataclass(frozen=True)
class Ranking:
    """The candidates of a group, the best first; those that are level stay in the order they were given in."""

    id: str
    candidates: list[Ranked]

    @property
    def best(self) -> str:
        """The best candidate."""
        return self.candidates[0].text


def check_weight(weight: object, groups: Sequence[Group]) -> float:
    """The weight of ln p, 1 when none is given. InputError for one that cannot be used, or has nothing to weigh."""
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise InputError(f"weight={weight!r} cannot be used; give 0 or a number above it.")
    if bare := next((group for group in groups if group.scores is None), None):
        raise InputError(
            f"weight={weight!r} weighs the model against the recogniser's own scores, and group {bare.id} has none; "
            "give a score with each candidate, or leave the weight out."
        )
    return float(weight)


def ranking(group: Group, scores: Sequence[Score], weight: float) -> Ranking:
    """The candidates of a group by falling combined score."""
    own: Sequence[float | None] = group.scores or [None] * len(scores)
    found = [
        Ranked(s.text, (mine or 0.0) + weight * s.log_probability, s.log_probability, s.symbols, mine, place)
        for place, (s, mine) in enumerate(zip(scores, own, strict=True))
    ]
    return Ranking(group.id, sorted(found, key=lambda each: -each.combined))

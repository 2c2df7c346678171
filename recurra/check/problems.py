"""What is wrong with data, by severity: each with its place and the remedy."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Problem:
    """error: the data cannot be used; warning: figures or the model suffer; note: good to know."""

    severity: Severity
    what: str  # a sentence or two, with file, line and the remedy
    count: int = 1  # of rows, lines or labels


def by_severity(problems: list[Problem]) -> list[Problem]:
    """The worst first; of equally bad ones in the order in which they were found."""
    return sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))


def some(count: int, noun: str) -> str:
    """A number and its noun: "1 row", "1,200 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

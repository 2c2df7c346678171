"""What check() gives: facts, problems by severity, and what a run will take; as text and as a record."""

from dataclasses import dataclass
from typing import Any

from recurra.check.cost import Cost
from recurra.check.facts import Facts, Lengths
from recurra.check.problems import Problem, some

_BAR = 30  # characters of the longest bar
_LABELS = 12  # that are shown


@dataclass(frozen=True)
class Check:
    """`print(check)` tells everything; the fields are for programs."""

    data: str
    task: str  # "" where nobody can tell
    why: str  # why that task; "" where it was named
    parts: dict[str, Facts]  # training, validation, test
    symbols: str  # how many of which kind: "65 characters"
    problems: tuple[Problem, ...]  # the worst first
    notes: tuple[str, ...]  # what was found while the data was read, as train() says it
    cost: Cost | None  # None for data that cannot be used
    settings: dict[str, Any]  # complete, as train() would have them

    @property
    def errors(self) -> list[str]:
        """Why the data cannot be used; [] when it can."""
        return [problem.what for problem in self.problems if problem.severity == "error"]

    @property
    def usable(self) -> bool:
        """Whether train() takes the data."""
        return not self.errors

    def __str__(self) -> str:
        lines = [self._opening()]
        if self.cost is not None:
            lines += [self.cost.sentence]
        for name, part in self.parts.items():
            lines += ["", *_part(name, part)]
        if self.problems:
            lines += ["", *(f"{problem.severity}: {problem.what}" for problem in self.problems)]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)

    def _opening(self) -> str:
        if not self.usable:
            return f"{self.data} cannot be used" + (f" for the task {self.task}." if self.task else ".")
        why = f", because {self.why}" if self.why else ""
        read = f" It is read as {self.symbols}." if self.symbols else ""
        return f"{self.data} is taken for the task {self.task}{why}.{read}"


def _part(name: str, part: Facts) -> list[str]:
    lines = [
        f"{name}: {some(part.texts, part.noun)}, {part.characters:,} characters ({part.name}).",
        f"  language: {part.language}",
    ]
    if part.lengths:
        lines += _histogram(part.lengths)
    if part.labels:
        whole = sum(part.labels.values()) if part.noun == "sentence" else part.texts  # tags are those of words
        shown = [f"{label} {count:,} ({count / whole:.0%})" for label, count in list(part.labels.items())[:_LABELS]]
        more = f", … {len(part.labels)} in all" if len(part.labels) > _LABELS else ""
        lines.append(f"  labels: {', '.join(shown)}{more}")
    if part.unknown:
        shown = [f"{symbol!r} {count:,}" for symbol, count in part.unknown.items()]
        lines.append(f"  unknown symbols: {100 * part.unknown_share:.2f} %; {', '.join(shown)}")
    return lines


def _histogram(lengths: Lengths) -> list[str]:
    most = max(count for _, count in lengths.histogram)
    width = len(f"{lengths.histogram[-1][0]:,}")
    head = (
        f"  lengths in {lengths.unit}: median {lengths.median:g}, mean {lengths.mean:.1f}, longest {lengths.longest:,} "
        f"({lengths.longest_where})"
    )
    bars = [
        f"    up to {edge:>{width},} {'█' * round(_BAR * count / most) or ('▏' if count else '')} {count:,}"
        for edge, count in lengths.histogram
    ]
    return [head, *bars]

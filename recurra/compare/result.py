"""What compare() gives: a row a model, the best first; as a table, as a record, as a page."""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recurra.check.cost import duration
from recurra.tasks.measure import Measure


@dataclass(frozen=True)
class Entry:
    """One model: means over its seeds."""

    name: str
    value: float | None  # of the measure, on the validation data; None where it failed
    spread: float | None = None  # standard deviation over the seeds, where there are several
    seconds: float | None = None  # to train; None of a simple model
    parameters: int | None = None
    memory: int | None = None  # the most bytes of its process
    latency: float | None = None  # seconds a text, or a symbol written
    runs: tuple[str, ...] = ()  # run folders, a seed each
    description: str = ""
    failed: str = ""  # why there is no value
    curve: tuple[tuple[int, float], ...] = ()  # (step, value) of the first seed


@dataclass(frozen=True)
class Comparison:
    """`print(comparison)` shows the table; `entries` has the rows, the best first."""

    data: str
    task: str
    measure: Measure
    entries: tuple[Entry, ...]
    seeds: int
    out: Path
    settings: dict[str, Any] = field(default_factory=dict)  # that all models were given

    @property
    def best(self) -> Entry:
        """The first row."""
        return self.entries[0]

    @property
    def table(self) -> list[list[str]]:
        """Head and rows as they are shown."""
        head = ["model", self.measure.name, "time", "parameters", "memory", self.latency_name]
        return [head, *([entry.name, self.figure(entry), *_figures(entry)] for entry in self.entries)]

    @property
    def latency_name(self) -> str:
        """What latency is of."""
        return "a symbol" if self.task == "language" else "a text"

    def figure(self, entry: Entry) -> str:
        """Its value, with the spread over seeds."""
        if entry.value is None:
            return "failed"
        if entry.spread is None:
            return self.measure.figure(entry.value)
        scale, digits = (100, 2) if self.measure.share else (1, 3)
        return f"{self.measure.figure(entry.value)} ± {scale * entry.spread:.{digits}f}"

    @property
    def advice(self) -> str:
        """What the figures are, and how the test is read."""
        folder = next((entry.runs[0] for entry in self.entries if entry.runs and entry.value is not None), None)
        test = f" `recurra eval {folder} {self.data}` then measures the one you chose, once." if folder else ""
        seeds = f" Means and standard deviations over {self.seeds} seeds." if self.seeds > 1 else ""
        return f"Figures are of the validation data, by which one chooses; the test was not read.{test}{seeds}"

    def __str__(self) -> str:
        rows = self.table
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(_padded(cell, width, n) for n, (cell, width) in enumerate(zip(row, widths))) for row in rows]
        failed = [f"{entry.name} failed: {entry.failed}" for entry in self.entries if entry.failed]
        return "\n".join([*(line.rstrip() for line in lines), *failed, self.advice])


def _padded(cell: str, width: int, column: int) -> str:
    return f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"


def _figures(entry: Entry) -> list[str]:
    return [
        "–" if entry.seconds is None else duration(entry.seconds),
        "–" if entry.parameters is None else f"{entry.parameters:,}",
        "–" if entry.memory is None else f"{entry.memory / 2**20:,.0f} MiB",
        "–" if entry.latency is None else f"{1000 * entry.latency:.2f} ms",
    ]


def entry_of(name: str, runs: list[dict[str, Any]]) -> Entry:
    """The row of a model's runs, a seed each."""
    if bad := [run["failed"] for run in runs if run.get("failed")]:
        return Entry(name, None, failed=bad[0], runs=tuple(run["run"] for run in runs))
    values = [run["value"] for run in runs]
    latencies = [run["latency"] for run in runs if run["latency"] is not None]
    return Entry(
        name,
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        statistics.fmean(run["seconds"] for run in runs),
        runs[0]["parameters"],
        max(run["memory"] for run in runs),
        statistics.median(latencies) if latencies else None,
        tuple(run["run"] for run in runs),
        runs[0]["description"],
        curve=tuple((int(step), float(value)) for step, value in runs[0]["curve"]),
    )


def simple_entries(runs: list[dict[str, float]]) -> list[Entry]:
    """The rows of the models to be beaten, from what the runs of each seed measured."""
    entries = []
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        entries.append(Entry(name, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None))
    return entries


def ordered(entries: list[Entry], measure: Measure) -> tuple[Entry, ...]:
    """The best first; those that failed last."""

    def rank(entry: Entry) -> tuple[bool, float]:
        value = entry.value or 0.0
        return entry.value is None, value if measure.lower_is_better else -value

    return tuple(sorted(entries, key=rank))

"""Plots. The only home of matplotlib: without it, a plot is left out and None says so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Point(Protocol):
    """A row of metrics, as far as the plot of the loss needs it."""

    @property
    def step(self) -> int: ...
    @property
    def bits_per_character(self) -> float: ...
    @property
    def validation(self) -> float | None: ...


def plot_loss(path: Path, rows: Sequence[Point], baselines: Mapping[str, float]) -> Path | None:
    """Training and validation in bits per character against steps, with a level for each baseline; PNG at `path`."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if not rows:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        [r.step for r in rows], [r.bits_per_character for r in rows], color="tab:blue", alpha=0.5, label="training"
    )
    validated = [(r.step, r.validation) for r in rows if r.validation is not None]
    axes.plot(*zip(*validated, strict=True), color="tab:blue", marker="o", markersize=3, label="validation")
    for (name, level), line in zip(baselines.items(), (":", "-.", "--", (0, (1, 3))), strict=False):
        axes.axhline(level, color="tab:gray", linestyle=line, linewidth=1, label=f"{name} {level:.2f}")
    lowest = min(r.bits_per_character for r in rows)
    highest = max(r.bits_per_character for r in rows[len(rows) // 50 :])  # the first steps would flatten all others
    shown = [lowest, highest, *(bits for _, bits in validated), *baselines.values()]
    axes.set_ylim(min(shown) - 0.1, max(shown) + 0.1)
    axes.set_xlabel("step")
    axes.set_ylabel("bits per character")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path

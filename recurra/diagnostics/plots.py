"""Plots. The only home of matplotlib: without it, a plot is left out and None says so."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from recurra.errors import InputError


class Point(Protocol):
    """A row of metrics, as far as the plot of the loss needs it."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def training(self) -> float | None: ...
    @property
    def validation(self) -> float | None: ...


def plot_gradients(path: Path, norms: Mapping[str, Sequence[float]]) -> Path | None:
    """Norms of gradients against steps on a logarithmic axis, where zeros are gaps.

    path: the file, PNG unless its suffix says another format.
    norms: by "path.state". A colour for each path, of viridis, which all eyes tell apart; a line style for each state.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    paths, states = (list(dict.fromkeys(key.rpartition(".")[k] for key in norms)) for k in (0, 2))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    kind = path.suffix[1:] or "png"
    if kind.lower() not in figure.canvas.get_supported_filetypes():
        raise InputError(f"path ends in .{kind}, and matplotlib writes no such format. End it in .png, .svg or .pdf.")
    axes = figure.add_subplot()
    for key, line in norms.items():
        layer, _, state = key.rpartition(".")
        axes.plot(
            range(len(line)),
            [n if n > 0 else math.nan for n in line],
            color=colormaps["viridis"](0.85 * paths.index(layer) / max(len(paths) - 1, 1)),  # its end is pale yellow
            linestyle=("-", "--", ":", "-.")[states.index(state) % 4],
            marker="." if len(line) < 50 else "",
            label=f"{layer}  dL/d{state}" if layer else f"dL/d{state}",
        )
    axes.set_yscale("log")
    axes.set_xlabel("step t")
    axes.set_ylabel("norm of the gradient of a state")
    axes.legend(frameon=False, fontsize="small", ncols=1 + len(norms) // 8)
    figure.savefig(path, dpi=120, format=kind)  # or it would write to another path than it is given
    return path


def plot_loss(
    path: Path, rows: Sequence[Point], baselines: Mapping[str, float], label: str = "bits per character"
) -> Path | None:
    """Training and validation against steps in the measure `label`, with a level for each baseline; PNG at `path`.

    Where training has no figure of that measure, its loss is drawn with an axis of its own at the right.
    """
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
    trained = [r.training for r in rows if r.training is not None]
    if trained:
        axes.plot([r.step for r in rows], trained, color="tab:blue", alpha=0.5, label="training")
    else:
        beside = axes.twinx()
        beside.plot([r.step for r in rows], [r.loss for r in rows], color="tab:orange", alpha=0.5)
        beside.set_ylabel("training loss (nats), orange")
    validated = [(r.step, r.validation) for r in rows if r.validation is not None]
    axes.plot(*zip(*validated, strict=True), color="tab:blue", marker="o", markersize=3, label="validation")
    for (name, level), line in zip(baselines.items(), (":", "-.", "--", (0, (1, 3))), strict=False):
        axes.axhline(level, color="tab:gray", linestyle=line, linewidth=1, label=f"{name} {level:.2f}")
    late = trained[len(trained) // 50 :]  # the first steps would flatten all others
    shown = [*late, *([min(trained)] if trained else []), *(v for _, v in validated), *baselines.values()]
    margin = 0.1 if trained else 0.02
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path

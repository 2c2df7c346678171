"""Line charts as inline SVG. The curves are stretched to their frame; what is read beside them is HTML, whose size is
that of all other text at any width and zoom."""

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from recurra.report.blocks import Lines, Series
from recurra.report.words import Both, Language, say

_SIDE = 1000  # of the square of coordinates that is stretched to the frame
_LEVELS = ("8 4", "2 3", "10 3 2 3", "4 6")  # dashes, screen pixels
_FROM_TO = Both("{name}: from {first} to {last}", "{name}：从 {first} 到 {last}")


def chart(lines: Lines, language: Language) -> str:
    """The frame with curves, levels and ticks, and the legend. What is not finite is left out."""
    lines = _finite(lines)
    xs = [x for series in lines.series for x, _ in series.points]
    low, high = _limits(lines)
    left, right = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if left == right:
        left, right = left - 1, right + 1

    def across(x: float) -> float:
        return (x - left) / (right - left)

    def up(y: float) -> float:
        return (y - low) / (high - low)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{_SIDE * across(x):.1f},{_SIDE * (1 - up(y)):.1f}" for x, y in points)

    y_ticks, x_ticks = ticks(low, high), [x for x in ticks(left, right) if x == round(x)]
    drawn = [f'<path class="grid" d="M0 {_SIDE * (1 - up(y)):.1f}H{_SIDE}"/>' for y in y_ticks]
    for number, (_, level) in enumerate(lines.levels):
        dash = _LEVELS[number % len(_LEVELS)]
        drawn.append(f'<path class="level" stroke-dasharray="{dash}" d="M0 {_SIDE * (1 - up(level)):.1f}H{_SIDE}"/>')
    for number, series in enumerate(lines.series):
        drawn.append(f'<polyline class="curve c{number % 3}" points="{path(series.points)}"/>')
        if _dotted(series):
            dots = "".join(f"M{path([point]).replace(',', ' ')}h0" for point in series.points)
            drawn.append(f'<path class="dots c{number % 3}" d="{dots}"/>')
    label = escape(f"{say(lines.title, language)}. {summary(lines, language)}", quote=True)
    return (
        f'<div class="chart{" small" if lines.small else ""}"><div class="frame">'
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none">'
        f"{''.join(drawn)}</svg>"
        + "".join(f'<span class="y" aria-hidden="true" style="bottom:{100 * up(y):.2f}%">{y:g}</span>' for y in y_ticks)
        + "".join(
            f'<span class="x" aria-hidden="true" style="left:{100 * across(x):.2f}%">{x:,g}</span>' for x in x_ticks
        )
        + f'</div><p class="axis" aria-hidden="true">{escape(say(lines.x, language))}</p></div>'
        + _legend(lines, language)
    )  # fmt: skip


def summary(lines: Lines, language: Language) -> str:
    """The curves and levels in words, for who does not see them."""
    parts = []
    for series in lines.series:
        if series.points:
            first, last = (format(series.points[k][1], lines.form) for k in (0, -1))
            parts.append(say(_FROM_TO(name=series.name, first=first, last=last), language))
    parts += [f"{say(name, language)} {level:{lines.form}}" for name, level in lines.levels]
    return ("；" if language == "zh" else "; ").join(parts)


def overflow(lines: Lines) -> bool:
    """Whether a curve begins above the plot."""
    lines = _finite(lines)
    high = _limits(lines)[1]
    return any(y > high for series in lines.series for _, y in series.points)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers between the limits: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _finite(lines: Lines) -> Lines:
    series = [replace(s, points=[(x, y) for x, y in s.points if math.isfinite(y)]) for s in lines.series]
    return replace(lines, series=series, levels=[row for row in lines.levels if math.isfinite(row[1])])


def _limits(lines: Lines) -> tuple[float, float]:
    """Of the y axis: all levels and curves; of a curve that does not guide, what comes after its steep beginning."""
    shown = [level for _, level in lines.levels]
    for series in lines.series:
        points = series.points if series.guides else series.points[len(series.points) // 50 :]
        shown += [y for _, y in points]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _dotted(series: Series) -> bool:
    return len(series.points) <= 60


def _legend(lines: Lines, language: Language) -> str:
    if len(lines.series) + len(lines.levels) < 2:
        return ""
    items = []
    for number, series in enumerate(lines.series):
        dot = f'<path class="dots c{number % 3}" d="M16 6h0"/>' if _dotted(series) else ""
        items.append((f'<path class="curve c{number % 3}" d="M0 6H32"/>{dot}', say(series.name, language)))
    for number, (name, level) in enumerate(lines.levels):
        drawn = f'<path class="level" stroke-dasharray="{_LEVELS[number % len(_LEVELS)]}" d="M0 6H32"/>'
        items.append((drawn, f"{say(name, language)} {level:{lines.form}}"))
    return '<ul class="legend">' + "".join(
        f'<li><svg viewBox="0 0 32 12" aria-hidden="true">{drawn}</svg>{escape(name)}</li>' for drawn, name in items
    ) + "</ul>"  # fmt: skip

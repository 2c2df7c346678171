"""A curve in the terminal, drawn with the dots of Braille characters: 2 x 4 dots a character."""

from collections.abc import Sequence
from itertools import pairwise

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column, then from the top


def chart(xs: Sequence[float], ys: Sequence[float], width: int = 60, height: int = 10) -> str:
    """The curve through the points (x, y), x ascending, with the limits of y at its left and of x below.

    Points that are not finite are left out; of several points in one column of dots all are drawn.
    """
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if abs(y) < float("inf")]
    if not points:
        return "(nothing to draw)"
    left, right = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    dots = [[0] * width for _ in range(height)]
    for column, row in _path(points, left, right, low, high, 2 * width, 4 * height):
        dots[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
    labels = [f"{high:.3g}", *[""] * (height - 2), f"{low:.3g}"] if height > 1 else [f"{high:.3g}"]
    margin = max(map(len, labels))
    lines = [
        f"{label:>{margin}} ┤{''.join(chr(0x2800 + d) for d in row)}" for label, row in zip(labels, dots, strict=True)
    ]
    below = f"{left:g}".ljust(width - len(f"{right:g}")) + f"{right:g}"
    return "\n".join([*lines, f"{'':>{margin}} └{'─' * width}", f"{'':>{margin}}  {below}"])


def _path(
    points: list[tuple[float, float]], left: float, right: float, low: float, high: float, columns: int, rows: int
) -> list[tuple[int, int]]:
    """The dots of the curve, as (column, row from the top); a straight line between one point and the next."""

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            (x - left) / (right - left or 1) * (columns - 1),
            (high - y) / (high - low or 1) * (rows - 1),
        )

    first = place(*points[0])
    dots = [(round(first[0]), round(first[1]))]
    for (x0, y0), (x1, y1) in pairwise(points):
        (c0, r0), (c1, r1) = place(x0, y0), place(x1, y1)
        steps = max(1, round(abs(c1 - c0)), round(abs(r1 - r0)))
        dots += [(round(c0 + (c1 - c0) * k / steps), round(r0 + (r1 - r0) * k / steps)) for k in range(1, steps + 1)]
    return dots

"""What the splitting passes share: listing a part's operations, with the views that float to where they are read."""

from collections.abc import Callable, Iterable

from recurra.program.graph import ordered
from recurra.program.values import Value


def listing(roots: Iterable[Value], mine: Callable[[Value], bool]) -> tuple[Value, ...]:
    """The operations among `mine` that the roots need, in order; does not look behind what is not mine."""
    everything = ordered(roots)
    needed: set[Value] = {v for v in roots if mine(v)}
    for v in reversed(everything):
        if v in needed:
            needed.update(a for a in v.args if mine(a))
    return tuple(v for v in everything if v in needed and not v.is_leaf)

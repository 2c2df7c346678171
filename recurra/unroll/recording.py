"""What a call is asked to show beside its output, and what it showed."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from math import prod

from torch import Tensor


class Recording:
    """Names of variables of a step, with their shapes less the batch; after the call, what they held.

    seen   (T, B, width), or (N, width) of packed rows: the names side by side, zero past each length
    """

    seen: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.names = tuple(shapes)
        self.width = sum(prod(shape) for shape in shapes.values())

    def split(self, whole: Tensor) -> Tensor:
        """The output, of an output that has what is recorded to the right of it."""
        m = whole.shape[-1] - self.width
        self.seen = whole[..., m:]
        return whole[..., :m].contiguous()

    def rows(self) -> dict[str, Tensor]:
        """(T, B, ...) by name, or (N, ...)."""
        ends = accumulate(map(prod, self.shapes.values()), initial=0)
        return {
            name: self.seen[..., lo:hi].reshape(*self.seen.shape[:-1], *shape)
            for (name, shape), (lo, hi) in zip(self.shapes.items(), pairwise(ends), strict=True)
        }

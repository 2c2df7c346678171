"""Which row belongs to which sequence and step."""

from itertools import accumulate


class Layout:
    """N rows of T steps in PackedSequence's order: step after step, in each the rows of the sequences that reach it.

    Sequences are sorted by falling length, so those active at step t are the first batch_sizes[t]; row r of step t
    lies at offsets[t] + r. `reverse` walks the steps downwards; the rows stay where they are.

    T, B, N      steps, sequences (zero lengths included), rows in all
    batch_sizes  a tuple, or None when every sequence has T steps
    offsets      T + 1 numbers
    """

    __slots__ = ("B", "N", "T", "_mirrored", "_offsets", "batch_sizes", "handle", "reverse")

    def __init__(self, T: int, B: int, batch_sizes: tuple[int, ...] | None = None, reverse: bool = False) -> None:
        self.T, self.B, self.batch_sizes, self.reverse = T, B, batch_sizes, reverse
        self.N = T * B if batch_sizes is None else sum(batch_sizes)
        self._offsets: tuple[int, ...] | None = None
        self._mirrored: Layout | None = None
        self.handle: object = None  # a native executor may keep its own form of the layout here

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the rows of each step begin, and N."""
        if self._offsets is None:
            sizes = self.batch_sizes if self.batch_sizes is not None else (self.B,) * self.T
            self._offsets = tuple(accumulate(sizes, initial=0))
        return self._offsets

    def sizes(self) -> tuple[int, ...]:
        """Active rows of each step."""
        return self.batch_sizes if self.batch_sizes is not None else (self.B,) * self.T

    def mirrored(self) -> "Layout":
        """The same rows walked the other way."""
        if self._mirrored is None:
            self._mirrored = Layout(self.T, self.B, self.batch_sizes, not self.reverse)
            self._mirrored.handle = self.handle
        return self._mirrored

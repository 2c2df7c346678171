"""Which rows of a batch a process reads, when several share it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The part number `rank` of every batch, whose rows are divided, in their order, into `of` parts."""

    rank: int = 0
    of: int = 1

    def counted(self, rows: int) -> slice:
        """The rows of this part: each row is in one part, and some parts are empty where the rows are fewer."""
        return slice(rows * self.rank // self.of, rows * (self.rank + 1) // self.of)

    def read(self, rows: int) -> slice:
        """The same, but one row at least: who has none reads one that counts nothing."""
        own = self.counted(rows)
        return slice(own.start, max(own.stop, own.start + 1))

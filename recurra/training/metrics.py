"""`metrics.csv`: one row every few steps. The last two columns are times; all others are the same in every rerun."""

import csv
import os
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec

from recurra import files
from recurra.errors import FileError

METRICS = "metrics.csv"
TIMES = ("seconds", "characters_per_second")


@dataclass(frozen=True)
class Row:
    """What happened since the row before."""

    step: int
    epoch: int
    learning_rate: float
    loss: float  # mean over the steps since the row before, nats per character
    bits_per_character: float  # the same in bits
    gradient_norm: float  # mean, before clipping
    clipped: float  # share of the steps whose gradient was longer than `clip`
    validation: float | None  # bits per character on the validation text, in rows that have one
    seconds: float  # of training, since the run began
    characters_per_second: float


class Metrics:
    """The file, written row by row, and the rows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        self.rows: list[Row] = []

    @property
    def size(self) -> int:
        """Bytes written so far; a checkpoint remembers it."""
        return self.path.stat().st_size

    def begin(self) -> None:
        """An empty table."""
        self.rows.clear()
        files.write_file(self.path, (",".join(f.name for f in fields(Row)) + "\n").encode())

    def cut(self, size: int) -> None:
        """Goes back to the first `size` bytes, those that a checkpoint knows of, and reads their rows."""
        found = self.size if self.path.exists() else 0
        if found < size:
            raise FileError(
                f"{self.path} has {found} bytes but field 'metrics_bytes' of the checkpoint says {size}: rows were "
                "removed; put the file back or train again."
            )
        os.truncate(self.path, size)
        with open(self.path, newline="") as file:
            table = list(csv.DictReader(file))
        try:
            rows = [{name: value or None for name, value in line.items()} for line in table]
            self.rows[:] = msgspec.convert(rows, list[Row], strict=False)
        except (msgspec.ValidationError, AttributeError) as error:
            raise FileError(f"{self.path}: a field is not as it must be: {error}; train again.") from None

    def add(self, row: Row) -> None:
        """Writes a row at the end of the file."""
        values = (getattr(row, f.name) for f in fields(Row))
        with open(self.path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow("" if v is None else repr(v) for v in values)
        self.rows.append(row)

    def sync(self) -> None:
        """Waits until the disk has all rows."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())

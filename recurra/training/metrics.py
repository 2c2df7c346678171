"""`metrics.csv`: one row every few steps. The last two columns are times; all others are the same in every rerun.

Two columns are called after the task: its measure, and the unit of its work.
"""

import csv
import os
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec

from recurra import files
from recurra.errors import FileError
from recurra.tasks.model import Model

METRICS = "metrics.csv"


@dataclass(frozen=True)
class Row:
    """What happened since the row before."""

    step: int
    epoch: int
    learning_rate: float
    loss: float  # mean over the steps since the row before, nats
    training: float | None  # the same as the task's measure has it; None where the loss does not tell
    gradient_norm: float  # mean, before clipping
    clipped: float  # share of the steps whose gradient was longer than `clip`
    validation: float | None  # the task's measure on the validation data, in rows that have one
    seconds: float  # of training, since the run began
    units_per_second: float


def columns(model: Model) -> dict[str, str]:
    """The fields of a row that a task has, and what they are called in its files: `training` after its measure."""
    names = {field.name: field.name for field in fields(Row)}
    names["training"], names["units_per_second"] = model.measure.key, f"{model.unit}_per_second"
    if model.measure.of_loss is None:
        del names["training"]
    return names


def read_rows(path: Path, names: dict[str, str]) -> list[Row]:
    """The rows of a file whose columns are called so. FileError when it is not as it must be."""
    try:
        with open(path, newline="") as file:
            table = list(csv.DictReader(file))
        rows = [{"training": None} | {name: line[n] or None for name, n in names.items()} for line in table]
        return msgspec.convert(rows, list[Row], strict=False)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {files.reason(error)}; train again.") from None
    except (msgspec.ValidationError, AttributeError, KeyError) as error:
        raise FileError(f"{path}: a field is not as it must be: {error}; train again.") from None


class Metrics:
    """The file, written row by row, and the rows."""

    def __init__(self, folder: Path, names: dict[str, str]) -> None:
        self.path = folder / METRICS
        self.names = names  # field of a row: its column
        self.rows: list[Row] = []

    @property
    def size(self) -> int:
        """Bytes written so far; a checkpoint remembers it."""
        return self.path.stat().st_size

    def begin(self) -> None:
        """An empty table."""
        self.rows.clear()
        files.write_file(self.path, (",".join(self.names.values()) + "\n").encode())

    def cut(self, size: int) -> None:
        """Goes back to the first `size` bytes, those that a checkpoint knows of, and reads their rows."""
        found = self.size if self.path.exists() else 0
        if found < size:
            raise FileError(
                f"{self.path} has {found} bytes but field 'metrics_bytes' of the checkpoint says {size}: rows were "
                "removed; put the file back or train again."
            )
        os.truncate(self.path, size)
        self.rows[:] = read_rows(self.path, self.names)

    def add(self, row: Row) -> None:
        """Writes a row at the end of the file."""
        values = (getattr(row, name) for name in self.names)
        with open(self.path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow("" if v is None else repr(v) for v in values)
        self.rows.append(row)

    def sync(self) -> None:
        """Waits until the disk has all rows."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())

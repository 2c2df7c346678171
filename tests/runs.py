"""What the tests of training share: small settings, what a run wrote, an observer that writes down what it is shown."""

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recurra.training.metrics import Row
from recurra.training.observer import Observer, Step
from recurra.training.run import Run

ALPHABET = "abcdefgh" * 250
TINY: dict[str, Any] = {
    "hidden": 8, "embedding": 4, "batch": 4, "window": 8, "steps": 12, "warmup": 3, "eval_interval": 4,
    "log_interval": 2, "sample_length": 10, "dropout": 0.1, "threads": 1,
}  # fmt: skip


def log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [
            {n: v for n, v in row.items() if n != "seconds" and not n.endswith("_per_second")}
            for row in csv.DictReader(file)
        ]


def contents(folder: Path) -> list[bytes]:
    names = ("last/model.safetensors", "last/training.safetensors", "best/model.safetensors")
    return [(folder / name).read_bytes() for name in names]


class Recorder(Observer):
    """Writes down what it is shown; does something at one step."""

    def __init__(self, at: int = -1, do: Callable[[Run], None] | None = None) -> None:
        self.events: list[str] = []
        self.steps: list[Step] = []
        self._at, self._do = at, do

    def on_start(self, run: Run) -> None:
        assert set(run.baselines) == {"unigram", "3-gram", "5-gram"}
        self.events.append("start")

    def on_step(self, run: Run, step: Step) -> None:
        assert run.step == step.step
        self.steps.append(step)
        self.events.append(f"step {step.step}")
        if step.step == self._at and self._do is not None:
            self._do(run)

    def on_validate(self, run: Run, row: Row) -> None:
        assert run.best is not None and row.validation is not None
        self.events.append(f"validate {row.step}")

    def on_sample(self, run: Run, text: str) -> None:
        assert text == run.sample
        self.events.append("sample")

    def on_end(self, run: Run) -> None:
        self.events.append(f"end {run.stopped}")


class Stop(Observer):
    """Ctrl-C at one step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, run: Run, step: Any) -> None:
        if step.step == self.at:
            signal.raise_signal(signal.SIGINT)

"""Who watches a run. The command line draws a progress bar with it; a plain line a validation is the default."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recurra.training.metrics import Row
    from recurra.training.run import Run


@dataclass(frozen=True)
class Step:
    """One update of the weights."""

    step: int  # updates so far, this one included
    steps: int  # updates at the end
    epoch: int
    loss: float  # of this batch, nats
    training: float | None  # loss of the last batches, smoothed, as the task's measure has it; None where it has none
    gradient_norm: float
    learning_rate: float
    units_per_second: float  # of the last batches, in the model's unit, validation left out
    seconds: float  # since this command began to train
    seconds_left: float  # until the last step or the time limit, whichever comes first
    smoothed: float  # loss of the last batches, nats


class Observer:
    """Override what you want to see; every method does nothing by itself."""

    def on_start(self, run: "Run") -> None:
        """Before the first step; `run.baselines`, `run.notes`, `run.settings` and `run.step` are known."""

    def on_step(self, run: "Run", step: Step) -> None:
        """After each update."""

    def on_validate(self, run: "Run", row: "Row") -> None:
        """After each validation; `row.validation` is its result, `run.best` the best so far."""

    def on_sample(self, run: "Run", text: str) -> None:
        """A sample of what the model writes now."""

    def on_end(self, run: "Run") -> None:
        """After the last step, when everything is saved; `run.stopped` says why it ended."""


class PlainProgress(Observer):
    """One line a validation, on stderr. `spell` rewrites each line, as the command line does with commands."""

    def __init__(self, spell: Callable[[str], str] = str) -> None:
        self._last: Step | None = None
        self._spell = spell

    def on_start(self, run: "Run") -> None:
        for note in run.notes:
            self._say(note)

    def on_step(self, run: "Run", step: Step) -> None:
        self._last = step

    def on_validate(self, run: "Run", row: "Row") -> None:
        assert row.validation is not None  # that is what it is called for
        left = f", {self._last.seconds_left:.0f} s left" if self._last else ""
        shown = "" if row.training is None else f", {run.measure.say(row.training)}"
        reached = run.measure.figure(row.validation) if shown else run.measure.say(row.validation)
        self._say(
            f"step {row.step} of {run.settings.steps}: loss {row.loss:.3f}{shown}, validation {reached}, "
            f"{row.units_per_second:,.0f} {run.model.unit} a second{left}"
        )

    def on_end(self, run: "Run") -> None:
        if run.stopped != "interrupt":  # that is an exception, whose message is the summary
            self._say(run.summary)

    def _say(self, line: str) -> None:
        print(self._spell(line), file=sys.stderr, flush=True)  # noqa: T201

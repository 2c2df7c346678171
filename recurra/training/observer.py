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
    loss: float  # of this batch, nats per character
    bits_per_character: float  # of the last batches, smoothed
    gradient_norm: float
    learning_rate: float
    characters_per_second: float  # of the last batches, validation left out
    seconds: float  # since this command began to train
    seconds_left: float  # until the last step or the time limit, whichever comes first


class Observer:
    """Override what you want to see; every method does nothing by itself."""

    def on_start(self, run: "Run") -> None:
        """Before the first step; `run.baselines`, `run.settings` and `run.step` are known."""

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

    def on_step(self, run: "Run", step: Step) -> None:
        self._last = step

    def on_validate(self, run: "Run", row: "Row") -> None:
        left = f", {self._last.seconds_left:.0f} s left" if self._last else ""
        self._say(
            f"step {row.step} of {run.settings.steps}: loss {row.loss:.3f}, {row.bits_per_character:.3f} bits per "
            f"character, validation {row.validation:.3f}, {row.characters_per_second:,.0f} characters a second{left}"
        )

    def on_end(self, run: "Run") -> None:
        if run.stopped != "interrupt":  # that is an exception, whose message is the summary
            self._say(run.summary)

    def _say(self, line: str) -> None:
        print(self._spell(line), file=sys.stderr, flush=True)  # noqa: T201

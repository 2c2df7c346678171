"""A run: its folder, its settings, what it reached so far and its model."""

from dataclasses import dataclass, field
from pathlib import Path

from recurra.tasks.measure import Measure, verdict
from recurra.tasks.model import Model
from recurra.training.metrics import Row
from recurra.training.settings import Settings


@dataclass(frozen=True)
class Best:
    """The best validation of a run."""

    step: int
    value: float  # as the task's measure has it


@dataclass
class Run:
    """What train() and resume() return, and what observers are shown.

    `path` holds config.toml, metrics.csv, samples/, best/, last/, loss.png and report.html. `model` is the model in
    training and, once the run has ended, the best one.
    """

    path: Path
    settings: Settings
    model: Model
    batches: int  # steps of one epoch
    history: list[Row] = field(default_factory=list)
    baselines: dict[str, float] = field(default_factory=dict)  # figures of the models to be beaten
    best: Best | None = None
    step: int = 0
    stopped: str = ""  # why it ended: "steps", "time limit", "patience", "interrupt"
    plot: Path | None = None
    report: Path | None = None
    sample: str = ""  # the latest sample, from the tasks that write
    notes: tuple[str, ...] = ()  # what was found in the data, a sentence each

    @property
    def measure(self) -> Measure:
        """What validations give."""
        return self.model.measure

    @property
    def steps(self) -> int:
        """Steps at the end of the schedule."""
        return self.settings.steps or 0

    @property
    def verdict(self) -> str:
        """One line that says plainly who is ahead, the model or one of those to be beaten."""
        if self.best is None:
            return "There was no validation yet."
        return verdict(self.best.value, self.baselines, self.measure)

    @property
    def summary(self) -> str:
        """Why and where it ended, who is ahead, and where everything is."""
        if self.stopped == "interrupt" and self.step == 0:
            return f"Interrupted before the first step; nothing was saved. `recurra resume {self.path}` begins again."
        more = f"; `recurra resume {self.path}` goes on" if self.stopped in ("time limit", "interrupt") else ""
        return f"{self._ending()}{more}. {self.verdict} Run folder: {self.path}"

    def _ending(self) -> str:
        where = f"step {self.step} of {self.steps}"
        match self.stopped:
            case "steps":
                return f"All {self.steps} steps are done"
            case "time limit":
                return f"The time limit of {self.settings.time_limit:g} s ended it at {where}"
            case "patience":
                return f"{self.settings.patience} validations in a row were no better, so it ended at {where}"
            case "interrupt":
                return f"Interrupted at {where}"
        return where[0].upper() + where[1:]

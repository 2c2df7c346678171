"""The training loop: truncated backpropagation, AdamW, validation, checkpoints; it can be killed at any moment.

All that step k does is a function of the settings, the data and what step k - 1 left: the batch of (seed, epoch),
dropout drawn from a generator seeded with (seed, k), the learning rate of k. So a run that was killed and resumed has
the same weights and the same log, bit for bit, as one that never was; times excepted.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from recurra import files
from recurra.data.keys import key
from recurra.errors import FileError, TrainingError
from recurra.tasks.task import Task
from recurra.training.checkpoint import LAST, Position, read_checkpoint, write_checkpoint
from recurra.training.distributed import Team
from recurra.training.finite import all_finite
from recurra.training.interrupt import Interrupt
from recurra.training.metrics import Metrics, Row, columns
from recurra.training.observer import Observer, Step
from recurra.training.pace import Pace
from recurra.training.run import Best, Run
from recurra.training.schedule import learning_rate
from recurra.training.settings import Settings
from recurra.training.updates import NotFinite, Update, Updates

BEST = "best"
SAMPLES = "samples"


class Trainer:
    """One run in training."""

    def __init__(self, folder: Path, task: Task, settings: Settings, observer: Observer) -> None:
        self.folder, self.task, self.settings = folder, task, settings
        self.observer = observer
        self.metrics = Metrics(folder, columns(task.model))
        self.updates = Updates(task, settings)
        self.team = Team()
        self.position = Position()
        self.saved = 0  # step of the latest checkpoint
        self.seconds = 0.0  # of training, before this command
        self.pace = Pace()
        self.run = Run(folder, settings, task.model, task.batches, self.metrics.rows, task.baselines)
        self.run.notes = task.notes

    def begin(self) -> None:
        """Step 0, saved, so that there is something to resume from at any moment."""
        self.metrics.begin()
        if self.settings.sample_length is not None:
            (self.folder / SAMPLES).mkdir(exist_ok=True)
        self._save()

    def restore(self) -> None:
        """The latest checkpoint; what was written after it is cut off and will be written again."""
        for name in (BEST, LAST):
            files.recover(self.folder / name)
        updates = self.updates
        self.position, updates.state = read_checkpoint(self.folder, self.task.network, updates.optimiser, self.settings)
        self.saved, self.seconds = self.position.step, self.position.seconds
        self.metrics.cut(self.position.metrics_bytes)
        for sample in (self.folder / SAMPLES).glob("step-*.txt"):
            if int(sample.stem.removeprefix("step-")) > self.position.step:
                sample.unlink()
        self._report()

    def train(self) -> None:
        """Goes on until the last step, the time limit, the end of patience or Ctrl-C; then everything is saved."""
        try:
            self.observer.on_start(self.run)
            self.team.begin(self.updates, self.position.step)
            with Interrupt() as interrupt:
                self.run.stopped = self._steps(interrupt)
                if self.saved != self.position.step:
                    self._save()
                if self.run.stopped in ("time limit", "interrupt") or self.run.best is None:
                    self._validate_aside()
        except OSError as error:
            raise FileError(
                f"Writing to {self.folder} failed at step {self.position.step}: {files.reason(error)}. The checkpoint "
                f"of step {self.saved} is whole: make room, then `recurra resume {self.folder}`."
            ) from None
        except RuntimeError as error:
            if who := self.team.lost(error):
                raise TrainingError(
                    f"{who} at step {self.position.step + 1}. The checkpoint of step {self.saved} is whole: `recurra "
                    f"resume {self.folder}` goes on from there."
                ) from None
            raise

    def _steps(self, interrupt: Interrupt) -> str:
        limit = self.settings.time_limit or math.inf
        self.pace.start()
        while True:
            if self._out_of_patience():
                return "patience"
            if self.position.step >= self.run.steps:
                return "steps"
            if self.pace.elapsed >= limit:
                return "time limit"
            if interrupt.wanted:
                return "interrupt"
            self.step()
            if self._due(self.settings.eval_interval):
                self._validate()
            elif self._due(self.settings.log_interval):
                self.metrics.add(self._row(None))

    def _due(self, interval: int | None) -> bool:
        return self.position.step % (interval or 1) == 0 or self.position.step == self.run.steps

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.position.stale >= self.settings.patience

    # --------------------------------------------------------------------------------------------------------- one step

    def step(self) -> None:
        """One update of the weights; nothing is written."""
        position = self.position
        epoch, index = divmod(position.step, self.task.batches)
        self.team.go_on()
        try:
            update = self.updates.step(position.step)
        except NotFinite as error:
            self._fail(str(error))
        position.step += 1
        position.loss_sum += update.loss
        position.norm_sum += update.norm
        position.clipped += bool(self.settings.clip and update.norm > self.settings.clip)
        position.gathered += 1
        self.run.step = position.step
        self._show(update, epoch, self.task.work(epoch, index))

    def _fail(self, what: str) -> NoReturn:
        clip = f"a clip below {self.settings.clip:g}" if self.settings.clip else "clip=1"
        raise TrainingError(
            f"{what}. The checkpoint of step {self.saved} in {self.folder / LAST} is whole; train again with a "
            f"learning_rate below {self.settings.learning_rate or 0:g} or with {clip}."
        )

    def _show(self, update: Update, epoch: int, work: int) -> None:
        pace = self.pace
        pace.step(update.loss, work)
        left = (self.run.steps - self.position.step) * pace.seconds_per_step
        if self.settings.time_limit:
            left = min(left, max(0.0, self.settings.time_limit - pace.elapsed))
        step = Step(
            self.position.step,
            self.run.steps,
            epoch,
            update.loss,
            self.task.measure.of(pace.loss),
            update.norm,
            update.rate,
            pace.units_per_second,
            pace.elapsed,
            left,
            pace.loss,
        )
        self.observer.on_step(self.run, step)

    # ------------------------------------------------------------------------------------------- validation and saving

    def _validate(self) -> None:
        """Best, row, sample and last of a step that is due for validation; a kill may cut anywhere between."""
        self.pace.pause()
        value, row = self._measure()
        position = self.position
        if position.best is None or self.task.measure.better(value, position.best):
            position.best, position.best_step, position.stale = value, position.step, 0
            self._save_best(value)
        else:
            position.stale += 1
        self.metrics.add(row)
        self._report()
        self.observer.on_validate(self.run, row)
        self._sample()
        self._save()
        self.pace.go_on()

    def _validate_aside(self) -> None:
        """A validation outside the schedule, where time or Ctrl-C ended the run.

        `last/` is saved already and knows nothing of it, so that a resumed run has the log of one that went through.
        """
        rows = self.metrics.rows
        if self.position.step == 0 or (self.position.gathered == 0 and rows and rows[-1].validation is not None):
            return
        gathered = self.position.gathered
        value, row = self._measure()
        if not gathered:  # these steps have a row already: their figures hold for this one too
            row = replace(rows[-1], validation=value)
        if self.run.best is None or self.task.measure.better(value, self.run.best.value):
            self.run.best = Best(self.position.step, value)
            self._save_best(value)
        self.metrics.add(row)
        self.observer.on_validate(self.run, row)
        self._sample()

    def _measure(self) -> tuple[float, Row]:
        value = self.task.validate()
        if not math.isfinite(value) or not all_finite(tuple(self.task.network.parameters())):
            weight = next((n for n, p in self.task.network.named_parameters() if not all_finite(p)), None)
            where = f"weight '{weight}' is no longer finite" if weight else "every weight is finite"
            self._fail(f"Validation gave {value} {self.task.measure.name} at step {self.position.step}: {where}")
        return value, self._row(value)

    def _row(self, validation: float | None) -> Row:
        """The row of the steps since the last one, whose sums begin anew."""
        position = self.position
        n = max(1, position.gathered)
        loss = position.loss_sum / n
        row = Row(
            position.step,
            (position.step - 1) // self.task.batches,
            learning_rate(self.settings, position.step - 1),
            loss,
            self.task.measure.of(loss),
            position.norm_sum / n,
            position.clipped / n,
            validation,
            round(self.seconds + self.pace.elapsed, 3),
            round(self.pace.units_per_second, 1),
        )
        position.loss_sum, position.norm_sum, position.clipped, position.gathered = 0.0, 0.0, 0, 0
        return row

    def _sample(self) -> None:
        length, temperature = self.settings.sample_length, self.settings.temperature
        if not length or temperature is None:  # no samples wanted, or a task that does not write
            return
        step = self.position.step
        text = self.task.sample(length, temperature, key(self.settings.seed, "sample", step))
        files.write_file(self.folder / SAMPLES / f"step-{step:06d}.txt", (text + "\n").encode())
        self.run.sample = text
        self.observer.on_sample(self.run, text)

    def _save_best(self, value: float) -> None:
        self.task.note(self.position.step, value)
        self.task.model.save(self.folder / BEST)

    def _save(self) -> None:
        self.metrics.sync()
        position = self.position
        position.metrics_bytes = self.metrics.size
        position.seconds = self.seconds + self.pace.elapsed
        last = self.metrics.rows[-1] if self.metrics.rows else None
        self.task.note(position.step, last.validation if last and last.step == position.step else None)
        state = self.team.whole(self.updates.state)
        write_checkpoint(self.folder, self.task.model, self.updates.optimiser, position, state)
        self.saved = position.step

    def _report(self) -> None:
        position = self.position
        self.run.step = position.step
        if position.best is not None:
            self.run.best = Best(position.best_step, position.best)

"""The clock of one command's training: what an observer is shown and what the time limit counts."""

import math
import time

_SMOOTH = 0.98  # weight of what was, from step to step


class Pace:
    """Seconds since `start`, and running means of the time, the work and the loss of a step."""

    def __init__(self) -> None:
        self.loss = math.nan
        self.work_per_step = 0.0  # in the task's own unit
        self.seconds_per_step = 0.0
        self._began: float | None = None
        self._mark = self._paused = 0.0

    def start(self) -> None:
        """From here on time is counted."""
        self._began = self._mark = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, validations included."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    @property
    def units_per_second(self) -> float:
        """Of the last steps, validations left out."""
        return self.work_per_step / self.seconds_per_step if self.seconds_per_step else 0.0

    def step(self, loss: float, work: int) -> None:
        """One step has ended."""
        now = time.perf_counter()
        took, self._mark = now - self._mark, now
        old = 0.0 if math.isnan(self.loss) else _SMOOTH
        self.loss = (old * self.loss if old else 0.0) + (1 - old) * loss
        self.work_per_step += (1 - old) * (work - self.work_per_step)
        self.seconds_per_step = old * self.seconds_per_step + (1 - old) * took

    def pause(self) -> None:
        """What follows, until `go_on`, is no part of a step."""
        self._paused = time.perf_counter()

    def go_on(self) -> None:
        """Steps are timed again."""
        self._mark += time.perf_counter() - self._paused

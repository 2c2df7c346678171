"""One model of a comparison, in a process of its own: a job as JSON on standard input, JSON lines on standard output.

So that the most memory is this model's alone, and a crash of one loses no other.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from recurra.check.memory import most_held
from recurra.errors import RecurraError
from recurra.tasks.latency import median
from recurra.tasks.model import Model
from recurra.training.config import CONFIG
from recurra.training.observer import Observer, Step
from recurra.training.run import Run
from recurra.training.start import prepared, resume, train

_WRITTEN = 8  # symbols that are written at a time, to see how long one takes
_EVERY = 0.5  # seconds between two lines


class Reporter(Observer):
    """Says where the run is, twice a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_step(self, run: Run, step: Step) -> None:
        if time.monotonic() - self._last < _EVERY:
            return
        self._last = time.monotonic()
        write(event="step", step=step.step, steps=step.steps, left=step.seconds_left)


def write(**fields: Any) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Does the job; the exit code is 0 when it is done, 2 when the person can mend what is wrong."""
    job = json.loads(sys.stdin.read())
    try:
        write(event="end", **(simple(job) if job["out"] is None else trained(job)))
    except RecurraError as error:
        write(event="error", message=str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def simple(job: dict[str, Any]) -> dict[str, Any]:
    """The models to be beaten alone."""
    with prepared(job["data"], job["task"], job["given"]) as ready:
        found = ready.task.measure_baselines()
        return {"baselines": found, "measure": measure_of(ready.task.model)}


def trained(job: dict[str, Any]) -> dict[str, Any]:
    """A run, or the rest of one; then what the model is like."""
    folder, observer = Path(job["out"]), Reporter()
    if (folder / CONFIG).exists():
        run = resume(folder, observer=observer)
    else:
        run = train(job["data"], job["task"], folder, observer, **job["given"])
    memory = most_held()
    return {
        "value": None if run.best is None else run.best.value,
        "step": run.step,
        "seconds": run.history[-1].seconds if run.history else 0.0,
        "parameters": run.model.parameters,
        "description": run.model.description,
        "memory": memory,
        "latency": latency(run.model, job["text"]),
        "baselines": run.baselines,
        "measure": measure_of(run.model),
        "curve": [(row.step, row.validation) for row in run.history if row.validation is not None],
    }


def measure_of(model: Model) -> dict[str, Any]:
    """What its figures are."""
    of = model.measure
    return {"name": of.name, "short": of.short, "lower_is_better": of.lower_is_better, "share": of.share}


def latency(model: Model, text: str) -> float | None:
    """Seconds to label one text, or to write one symbol; the median of some."""
    predicts = type(model).predict is not Model.predict
    try:
        if predicts:
            return median(lambda: model.predict([text]))
        return median(lambda: model.generate("", _WRITTEN, seed=0)) / _WRITTEN
    except RecurraError:
        return None


if __name__ == "__main__":
    sys.exit(main())

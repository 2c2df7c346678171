"""How long a run will take and how much memory: the task that train() would train is measured for a few steps.

    seconds = reading + baselines + Σ_k (a + b w_k) + validations · v + saving + plot and report,

where w_k is the work of step k's batch and a, b are the line through the steps that were measured.
"""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recurra import files
from recurra.check import memory
from recurra.diagnostics.plots import plot_loss
from recurra.errors import TrainingError
from recurra.tasks.task import Task
from recurra.training.checkpoint import packed_state
from recurra.training.loop import Trainer
from recurra.training.metrics import Row
from recurra.training.observer import Observer
from recurra.training.settings import Settings

Floats = NDArray[np.float64]

_SECONDS = 4.0  # that steps are measured for, when so few are enough
_STEPS = 32  # that are measured at most,
_LEAST = 4  # and at least
_BASELINES = 1.5  # seconds that the baselines are measured for
_FIRST_SHARE = 1 / 32
_WRITES = 200e6  # bytes a second that a disk takes, syncing included


@dataclass(frozen=True)
class Cost:
    """What a run with these settings takes on this machine."""

    seconds: float  # from the call of train() to its end, as a clock has it
    stages: dict[str, float]  # the same by what it goes into
    bytes: int  # the most memory that the process will hold
    steps: int
    seconds_per_step: float
    units_per_second: float  # in the model's unit
    unit: str
    weights: int
    model: str  # the network in a few words
    broken: str = ""  # what broke while it was measured

    @property
    def sentence(self) -> str:
        """In words."""
        told = ", ".join(f"{name} {duration(each)}" for name, each in self.stages.items() if each >= 0.05)
        return (
            f"Training will take about {duration(self.seconds)} and {self.bytes / 2**20:,.0f} MiB of memory: {told}. "
            f"{self.model}, {self.weights:,} parameters; {self.steps:,} steps of {1000 * self.seconds_per_step:.3g} "
            f"ms, {self.units_per_second:,.0f} {self.unit} a second."
        )


def duration(seconds: float) -> str:
    """As people say it: "0.4 s", "12 s", "3 min 20 s", "5 h 12 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def measured(task: Task, full: Settings, reading: float) -> Cost:
    """The cost of a run; `reading`: the seconds that it took to read the data and make the task."""
    stages, read = {"reading": reading}, memory.most_held()
    stages["baselines"], most = _baselines(task)
    memory.begin_anew()
    trainer = Trainer(Path(os.devnull) / "nothing is written here", task, full, Observer())
    steps, broken = full.steps or 0, ""
    works = np.array([task.work(0, index) for index in range(task.batches)], float)
    try:
        first, mean = _steps(trainer, works)
    except TrainingError as error:
        first, mean, broken = 0.0, 0.0, str(error).partition(". ")[0]
    stages["training"] = first + steps * mean
    rounds = math.ceil(steps / (full.eval_interval or steps or 1))
    first, again = _validated(task)
    stages["validation"] = first + (rounds - 1) * again + rounds * _sampled(task, full)
    # `last/` at the beginning and after every validation, `best/` after those that are better
    stages["saving"] = (1 + 2 * rounds) * _saved(trainer)
    if full.time_limit is not None:
        limited = stages["training"] + stages["validation"] + stages["saving"]
        cut = min(1.0, full.time_limit / max(limited, 1e-9))
        stages |= {name: cut * stages[name] for name in ("training", "validation", "saving")}
    stages["plot and report"] = _drawn(task)
    return Cost(
        seconds=sum(stages.values()),
        stages=stages,
        bytes=max(read, most, memory.most_held()),
        steps=steps,
        seconds_per_step=mean,
        units_per_second=float(works.mean()) / mean if mean else 0.0,
        unit=task.model.unit,
        weights=task.model.parameters,
        model=task.model.description,
        broken=broken,
    )


def _baselines(task: Task) -> tuple[float, int]:
    """Seconds and the most bytes of the baselines, from a share of what they learn from, or two."""
    points: list[tuple[float, float, int]] = []
    share, before = _FIRST_SHARE, memory.held()
    for _ in range(2):
        memory.begin_anew()
        begun = time.perf_counter()
        task.measure_baselines(share)
        points.append((share, time.perf_counter() - begun, max(0, memory.most_held() - before)))
        whole = _at_all(points, 1)
        share = min(1.0, max(2 * _FIRST_SHARE, _BASELINES / max(whole, 1e-9)))
    task.baselines = {}
    return _at_all(points, 1), before + int(_at_all(points, 2))


def _at_all(points: list[tuple[float, float, int]], what: int) -> float:
    """Where the line through the measurements is at a share of one: at least what was measured."""
    share, value = points[-1][0], float(points[-1][what])
    if share == 1.0 or len(points) == 1:
        return value / share
    slope = max(0.0, (value - points[0][what]) / (share - points[0][0]))
    return max(value, value + slope * (1 - share))


def _steps(trainer: Trainer, works: Floats) -> tuple[float, float]:
    """Seconds that the first step takes more than others, and those of a step in the mean over an epoch."""
    order = np.argsort(works, kind="stable")
    begun = time.perf_counter()
    first = _step(trainer, int(order[-1]))  # the largest: what memory has to hold, and what is compiled
    count = _STEPS
    picks = [int(order[int((n + 0.5) / count * len(order))]) for n in np.random.default_rng(0).permutation(count)]
    seconds, seen = [], []
    for index in picks:
        seconds.append(_step(trainer, index))
        seen.append(works[index])
        if len(seconds) >= _LEAST and time.perf_counter() - begun > _SECONDS:
            break
    mean = _mean_along(np.array(seen), np.array(seconds), works)
    return max(0.0, first - mean), mean


def _mean_along(
    seen: Floats,
    seconds: Floats,
    works: Floats,
) -> float:
    """The mean over an epoch of a line through (work, seconds) that falls nowhere; the first step is still compiled."""
    if np.ptp(seen) == 0:
        return float(seconds.mean())
    slope = max(0.0, float(np.polyfit(seen, seconds, 1)[0]))
    return max(float(seconds.min()), float(seconds.mean() + slope * (works.mean() - seen.mean())))


def _step(trainer: Trainer, index: int) -> float:
    """One step of the run on a batch of the first epoch."""
    trainer.position.step = index
    begun = time.perf_counter()
    trainer.step()
    return time.perf_counter() - begun


def _validated(task: Task) -> tuple[float, float]:
    """Seconds of the first validation, for which steps are compiled, and of those after it."""
    begun = time.perf_counter()
    task.validate()
    first = time.perf_counter() - begun
    if first > 1:
        return first, first
    task.validate()
    return first, time.perf_counter() - begun - first


def _sampled(task: Task, full: Settings) -> float:
    """Seconds of a sample: one of the first characters of it, times its length."""
    if not full.sample_length or full.temperature is None:
        return 0.0
    few = min(full.sample_length, 50)
    begun = time.perf_counter()
    task.sample(few, full.temperature, 0)
    return (time.perf_counter() - begun) * full.sample_length / few


def _saved(trainer: Trainer) -> float:
    """Seconds of writing a checkpoint: what it takes to make it, and to write its bytes."""
    begun = time.perf_counter()
    _, contents = trainer.task.model.folder()
    contents["training.safetensors"] = packed_state(
        trainer.task.network, trainer.updates.optimiser, trainer.updates.state
    )
    for data in contents.values():
        files.digest(data)
    size = sum(map(len, contents.values()))
    return time.perf_counter() - begun + size / _WRITES


def _drawn(task: Task) -> float:
    """Seconds of the plot at the end, and of what the report measures of the model."""
    begun = time.perf_counter()
    row = Row(1, 0, 0.0, 1.0, task.measure.of(1.0), 0.0, 0.0, 1.0, 0.0, 0.0)
    plot_loss(Path(os.devnull), [row, row], {}, task.measure.name)
    task.sections(task.model)
    return time.perf_counter() - begun

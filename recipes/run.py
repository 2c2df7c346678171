"""One recipe run: each seed trained, or gone on with where it was stopped, and then measured."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import recurra
from benchmarks.machine import commit, processor
from recipes.measures import HOW, MEASURES
from recipes.recipe import Recipe
from recurra import files
from recurra.tasks.model import load
from recurra.training.config import CONFIG
from recurra.training.run import Run


class Seed(msgspec.Struct):
    """What is known of one seed; `values` is empty until it was measured. Kept as `seed-N.json`."""

    validation: float | None = None
    validated: str = ""  # what that is, in the words of the task
    values: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {}  # measure: model to be beaten: its figure
    minutes: float = 0.0
    processor_minutes: float = 0.0
    date: str = ""
    machine: str = ""


def run(recipe: Recipe, data: Path, runs: Path, test: bool = True) -> dict[int, Seed]:
    """Trains every seed that is not there yet; with `test` measures those that are not measured yet.

    data: the folder with the data sets. runs: the folder that has a folder for each recipe. Ctrl-C saves the run of
    the seed and raises KeyboardInterrupt; the same call goes on there.
    """
    folder = runs / f"{recipe.name}-{recipe.digest()}"
    folder.mkdir(parents=True, exist_ok=True)
    return {seed: _seed(recipe, data, folder, seed, test) for seed in recipe.seeds}


def _seed(recipe: Recipe, data: Path, folder: Path, number: int, test: bool) -> Seed:
    place, record = folder / f"seed-{number}", folder / f"seed-{number}.json"
    seed = msgspec.json.decode(record.read_bytes(), type=Seed) if record.exists() else Seed()
    if not seed.validated:
        with _clock(seed, record):
            done = _trained(recipe, data, place, number)
            seed.validation, seed.validated = done.best.value if done.best else None, done.measure.name
            seed.date = time.strftime("%Y-%m-%d")
            seed.machine = f"{processor()}, {done.settings.threads} threads; {commit()}"
    if test and seed.values.keys() != recipe.measures.keys():
        with _clock(seed, record):
            result = HOW[recipe.by](load(place), data / (recipe.test or recipe.data))
            seed.values = {name: MEASURES[name].of(result) for name in recipe.measures}
            seed.beside = {name: MEASURES[name].beside(result) for name in recipe.measures}
    return seed


def _trained(recipe: Recipe, data: Path, place: Path, number: int) -> Run:
    if (place / CONFIG).exists():
        return recurra.resume(place)
    return recurra.train(data / recipe.data, recipe.task, place, seed=number, **recipe.given(data))


@contextmanager
def _clock(seed: Seed, record: Path) -> Iterator[None]:
    """Adds the minutes of what is done under it, and writes the record whatever happens."""
    wall, processor = time.perf_counter(), _processor_seconds()
    try:
        yield
    finally:
        seed.minutes += (time.perf_counter() - wall) / 60
        seed.processor_minutes += (_processor_seconds() - processor) / 60
        files.replace_file(record, msgspec.json.format(msgspec.json.encode(seed)))


def _processor_seconds() -> float:
    """Of this process, all threads of it, and of the processes that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime

"""train() and resume(): from what a person gives to a Run."""

import importlib.metadata
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch

from recurra import files
from recurra.cell import Cell
from recurra.cells.by_name import own_cells
from recurra.data.split import is_labelled
from recurra.data.tagged_split import is_tagged
from recurra.diagnostics.plots import plot_loss
from recurra.errors import DataError, FileError, InputError, kind_of
from recurra.tasks.model import load
from recurra.tasks.task import Task
from recurra.training import ranks
from recurra.training.checkpoint import LAST, read_position
from recurra.training.classification import ClassificationSetup
from recurra.training.config import CONFIG, Config, read_config, write_config
from recurra.training.distributed import leading
from recurra.training.helper import Told, help_along
from recurra.training.language import LanguageSetup
from recurra.training.lock import LOCK, alone
from recurra.training.loop import Trainer
from recurra.training.observer import Observer, PlainProgress
from recurra.training.reporting import checked_language, write, write_or_warn
from recurra.training.run import Run
from recurra.training.settings import CHANGEABLE, Settings, check_task, settings, settings_with
from recurra.training.setup import Setup, with_processes
from recurra.training.tagging import TaggingSetup
from recurra.unroll.precision import check_here

SETUPS: dict[str, type[Setup]] = {
    "language": LanguageSetup,
    "classification": ClassificationSetup,
    "tagging": TaggingSetup,
}


def train(
    data: Any,
    task: str | None = None,
    out: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
    **given: Any,
) -> Run:
    """Trains a model on a file and writes a run folder.

    data: of the task `language` the path of a UTF-8 text file, of a .jsonl file of documents, or of a folder of such
    files named train, valid and test; the word `demo`, a Text, or documents: a list, an array or a Series of texts; of
    `classification` the path of a table (.csv, .tsv, .jsonl, .parquet), of a folder of tables
    named train, dev and test, a list or an array of pairs (text, label), a list of dictionaries, a dictionary of
    columns, or a DataFrame; of `tagging` the path of a file or a folder of words with tags (docs/tag.md), or a list of
    (words, tags) or (words, tags, label). A path is a string or a Path.
    task: None takes words with tags for tagging, tables for classification, all else for language, and says so.
    out: the run folder, which must not exist yet; by default `runs/NAME-DATE-TIME`. observer: who watches; by default a
    line a validation on stderr when that is a terminal. All other arguments are settings, listed with their help by
    `recurra.training.settings.describe()`; `cell` may also be a class of your own, derived from `recurra.Cell`, which
    load() and resume() are then given again: `load(path, cells={"MyCell": MyCell})`.

    Ctrl-C saves and then raises KeyboardInterrupt. Errors: InputError (a setting), DataError (the text), FileError
    (the run folder cannot be written), TrainingError (the loss is no longer a number; the last good checkpoint stays).
    """
    _check_observer(observer)
    if ranks.rank():
        return _help(_own_cell(given)[1])
    with prepared(data, task, given) as (kind, setup, full, made, notes):
        folder = _new_folder(out, setup.name)
        with alone(folder), _all_or_nothing(folder):  # in this order: a folder that another process holds stays
            trainer = Trainer(folder, made, full, observer or _default_observer())
            trainer.run.notes = notes
            config = Config(kind, _version(), str(torch.__version__), setup.record(folder), full)
            write_config(folder, config)
            return _run(trainer, config, fresh=True)


class Prepared(NamedTuple):
    """All that a run begins with."""

    kind: str  # the task's name
    setup: Setup
    full: Settings
    task: Task
    notes: tuple[str, ...]  # what was found in the data, and what it was taken for


@contextmanager
def prepared(data: Any, task: str | None, given: dict[str, Any]) -> Iterator[Prepared]:
    """What train() makes of its arguments, in the run's own threads and random numbers. Errors as there."""
    if task is not None and task not in SETUPS:
        raise InputError(f"task={task!r} is unknown; this release has {', '.join(SETUPS)}.")
    given, own = _own_cell(given)
    wanted = settings_with(own, given)
    check_here(wanted.precision)
    kind = task or guessed(data)
    check_task(kind, wanted)
    with own_cells(own):
        setup = SETUPS[kind].of(data, wanted)
        full = with_processes(setup.complete(wanted))
        _check_cells(full, own)
        with _environment(full):
            made = setup.task(full)
            taken = (f"{setup.name} is taken for the task {kind}.",) if task is None and kind != "language" else ()
            yield Prepared(kind, setup, full, made, (*taken, *made.notes))


def guessed(data: Any) -> str:
    """The task that data is taken for when a person names none."""
    return "tagging" if is_tagged(data) else "classification" if is_labelled(data) else "language"


def _own_cell(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, type[Cell]]]:
    """The settings with the name of a cell in place of its class, and the class by that name."""
    cell = given.get("cell")
    if not isinstance(cell, type):
        return given, {}
    return {**given, "cell": cell.__name__}, {cell.__name__: cell}


def resume(
    path: str | os.PathLike[str],
    observer: Observer | None = None,
    cells: Mapping[str, type[Cell]] | None = None,
    **changes: Any,
) -> Run:
    """Goes on with a run from its latest checkpoint, as if it had never stopped: same weights, same log, bit for bit.

    path: the run folder. changes: `time_limit` (counted from now), `steps` (a new end; a cosine schedule then ends
    there), `patience` or `processes`; everything else is fixed by the run, and with another number of processes its
    bits are the same but for rounding. cells: as for load(). Errors as for train(); DataError or FileError when the
    text or the folder is no longer what it was.
    """
    _check_observer(observer)
    if ranks.rank():
        return _help(cells)
    folder = files.folder_path(path)
    read_config(folder)
    with own_cells(cells), alone(folder):
        return _resume(folder, observer, changes, cells)


def _resume(
    folder: Path, observer: Observer | None, changes: dict[str, Any], cells: Mapping[str, type[Cell]] | None
) -> Run:
    config = read_config(folder)
    full = _regrouped(_changed(config.settings, changes), config.settings, changes.get("processes"))
    _check_cells(full, cells)
    check_here(full.precision)
    if "steps" in changes and files.is_folder(folder / LAST):
        _not_behind(folder, full)
    setup = _setup(folder, config).again(folder, config)
    with _environment(full):
        task = setup.task(full)
        if full != config.settings:
            config = msgspec.structs.replace(config, settings=full)
            write_config(folder, config)
        trainer = Trainer(folder, task, full, observer or _default_observer())
        return _run(trainer, config, fresh=not files.is_folder(folder / LAST))


def _run(trainer: Trainer, config: Config, fresh: bool) -> Run:
    run = trainer.run
    told = msgspec.json.encode(Told(str(run.path.absolute()), config))
    try:
        with leading(config.settings.processes or 1, told) as trainer.team:
            if not fresh:
                trainer.restore()
            run.baselines = trainer.task.measure_baselines()
            if fresh:
                trainer.begin()
            trainer.train()
        run.plot = plot_loss(run.path / "loss.png", run.history, run.baselines, run.measure.name)
        run.model = load(run.path)
        if run.best is not None:
            run.report = write_or_warn(run.path, trainer.task, run.model)
    except OSError as error:
        raise FileError(
            f"Writing to {run.path} failed: {files.reason(error)}. Make room, then `recurra resume {run.path}`."
        ) from None
    except KeyboardInterrupt:  # the second Ctrl-C, or one outside the steps
        run.stopped, run.step = "interrupt", trainer.saved
        raise KeyboardInterrupt(run.summary) from None
    trainer.observer.on_end(run)
    if run.stopped == "interrupt":
        raise KeyboardInterrupt(run.summary)
    return run


def _help(cells: Mapping[str, type[Cell]] | None) -> Run:
    """What torchrun's other processes do: take part in the run of the first, whose folder and data they are told."""
    threads = torch.get_num_threads()
    with own_cells(cells), torch.random.fork_rng(devices=[]):
        try:
            return help_along(SETUPS, None, ranks.rank(), ranks.world() or 1)
        finally:
            torch.set_num_threads(threads)


def _check_cells(full: Settings, cells: Mapping[str, type[Cell]] | None) -> None:
    """Raises InputError for a cell that the processes which are started here cannot know."""
    if cells and full.processes != 1 and not ranks.started():
        raise InputError(
            f"processes={full.processes} starts processes that do not know your {', '.join(cells)}; start your script "
            f"by torchrun --nproc-per-node {full.processes}, and leave processes out."
        )


def _regrouped(full: Settings, before: Settings, processes: int | None) -> Settings:
    """The settings of a run that goes on with as many processes as were given, else as torchrun has, else as before."""
    count = processes or ranks.world() or before.processes or 1
    threads = before.threads if count == (before.processes or 1) else None
    return with_processes(msgspec.structs.replace(full, processes=count, threads=threads))


def report(
    path: str | os.PathLike[str],
    language: Literal["en", "zh"] | None = None,
    cells: Mapping[str, type[Cell]] | None = None,
) -> Path:
    """Writes `report.html` of a run folder anew, and gives its path.

    language: None writes in Chinese of a model that reads Chinese, else in English. cells: as for load(). What is
    measured on the validation data is left out, and the report says so, when they are no longer what they were.
    Errors: InputError (language), FileError (no run folder, or one without a validation).
    """
    chosen = checked_language(language)
    folder = files.folder_path(path)
    config = read_config(folder)
    with own_cells(cells), _environment(config.settings):
        model = load(folder)
        try:
            task, missing = _setup(folder, config).again(folder, config).task(config.settings), ""
        except (DataError, FileError) as error:
            task, missing = None, str(error)
        return write(folder, task, model, missing, chosen)


def _setup(folder: Path, config: Config) -> type[Setup]:
    if config.task not in SETUPS:
        raise FileError(
            f"{folder / CONFIG}: field 'task' is {config.task!r} but this release knows {', '.join(SETUPS)}."
        )
    return SETUPS[config.task]


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """A run that ends before its settings are written leaves no folder: there is nothing to go on with."""
    try:
        yield
    finally:
        if not (folder / CONFIG).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(full: Settings) -> Iterator[None]:
    """The run's own threads and random numbers; the caller's come back after it."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(full.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _check_observer(observer: object) -> None:
    if observer is not None and not isinstance(observer, Observer):
        raise InputError(
            f"observer is {kind_of(observer)}, and a run shows itself to a recurra.training.Observer; "
            "give one of a class derived from it."
        )


def _default_observer() -> Observer:
    return PlainProgress() if sys.stderr.isatty() else Observer()


def _new_folder(out: str | os.PathLike[str] | None, name: str) -> Path:
    if out is not None and not isinstance(out, (str, os.PathLike)):
        raise InputError(f"out is {kind_of(out)}; give the path of the run folder to make, or leave out away.")
    if out is not None and not os.fspath(out):
        raise InputError("out is empty; give the path of the run folder to make, or leave out away.")
    stem = re.sub(r"\W+", "-", Path(name).stem).strip("-") or "run"
    folder = Path(out) if out is not None else Path("runs") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (folder / CONFIG).exists():
        raise FileError(
            f"{folder} already holds a run; `recurra resume {folder}` goes on with it, or choose another out."
        )
    if folder.is_file():
        raise FileError(f"{folder} is a file; choose another out.")
    if folder.exists() and (not folder.is_dir() or any(p.name != LOCK for p in folder.iterdir())):
        raise FileError(f"{folder} exists and is not empty; choose another out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The run folder {folder} cannot be made: {files.reason(error)}; choose another out.") from None
    return folder


def _changed(full: Settings, changes: dict[str, Any]) -> Settings:
    settings(**changes)
    for name in changes:
        if name not in CHANGEABLE:
            raise InputError(
                f"{name}={changes[name]!r} cannot be changed in a run that has begun with {getattr(full, name)!r}; "
                f"resume() takes {', '.join(CHANGEABLE)}."
            )
    return msgspec.structs.replace(full, **{name: value for name, value in changes.items() if value is not None})


def _not_behind(folder: Path, full: Settings) -> None:
    done = read_position(folder).step
    if full.steps is not None and full.steps < done:
        raise InputError(
            f"steps={full.steps} is behind step {done}, which {folder} has reached; give more than {done}."
        )


def _version() -> str:
    try:
        return importlib.metadata.version("recurra")
    except importlib.metadata.PackageNotFoundError:
        return "source"

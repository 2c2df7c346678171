"""train() and resume(): from what a person gives to a Run."""

import dataclasses
import importlib.metadata
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from recurra import files
from recurra.data.demo import DEMO
from recurra.data.text import Text, Vocabulary
from recurra.diagnostics.plots import plot_loss
from recurra.errors import DataError, FileError, InputError, kind_of
from recurra.tasks.language import LanguageNetwork, Sizes
from recurra.tasks.language_model import LanguageModel, as_text
from recurra.tasks.language_task import LanguageTask
from recurra.tasks.model import find
from recurra.training.checkpoint import LAST, read_position
from recurra.training.config import CONFIG, Config, Data, read_config, write_config
from recurra.training.lock import LOCK, alone
from recurra.training.loop import Trainer
from recurra.training.observer import Observer, PlainProgress
from recurra.training.run import Run
from recurra.training.settings import CHANGEABLE, Settings, complete, settings

TASKS = ("language",)
_COPY = "data.txt"  # in the run folder, when the text came from no file


def train(
    data: str | os.PathLike[str] | Text,
    task: str = "language",
    out: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
    **given: Any,
) -> Run:
    """Trains a model on a text and writes a run folder.

    data: path of a UTF-8 text file, the word `demo`, or a Text. out: the run folder, which must not exist yet; by
    default `runs/NAME-DATE-TIME`. observer: who watches; by default a line a validation on stderr when that is a
    terminal. All other arguments are settings, listed with their help by `recurra.training.settings.describe()`.

    Ctrl-C saves and then raises KeyboardInterrupt. Errors: InputError (a setting), DataError (the text), FileError
    (the run folder cannot be written), TrainingError (the loss is no longer a number; the last good checkpoint stays).
    """
    if task not in TASKS:
        raise InputError(f"task={task!r} is unknown; this release has {', '.join(TASKS)}.")
    _check_observer(observer)
    wanted = settings(**given)
    text = as_text(data)
    if text.content.isspace():
        raise DataError(f"{text.name} holds nothing but white space; give a text of at least some thousand characters.")
    part = text.split(wanted.validation)[0].content
    symbols = len(Vocabulary(part))
    full = complete(wanted, len(part), symbols)
    _check_memory(full, symbols)
    full = msgspec.structs.replace(full, threads=full.threads or torch.get_num_threads())
    with _environment(full):
        language = _task(text, full)
        folder = _new_folder(out, text.name)
        with alone(folder), _all_or_nothing(folder):  # in this order: a folder that another process holds stays
            trainer = Trainer(folder, language, full, observer or _default_observer())
            write_config(folder, Config(task, _version(), str(torch.__version__), _record(folder, data, text), full))
            return _run(trainer, fresh=True)


def resume(path: str | os.PathLike[str], observer: Observer | None = None, **changes: Any) -> Run:
    """Goes on with a run from its latest checkpoint, as if it had never stopped: same weights, same log, bit for bit.

    path: the run folder. changes: `time_limit` (counted from now), `steps` (a new end; a cosine schedule then ends
    there) or `patience`; everything else is fixed by the run. Errors as for train(); DataError or FileError when the
    text or the folder is no longer what it was.
    """
    _check_observer(observer)
    folder = files.folder_path(path)
    read_config(folder)
    with alone(folder):
        return _resume(folder, observer, changes)


def _resume(folder: Path, observer: Observer | None, changes: dict[str, Any]) -> Run:
    config = read_config(folder)
    full = _changed(config.settings, changes)
    if "steps" in changes and files.is_folder(folder / LAST):
        _not_behind(folder, full)
    text = _text_again(folder, config)
    with _environment(full):
        language = _task(text, full)
        if full != config.settings:
            write_config(folder, msgspec.structs.replace(config, settings=full))
        trainer = Trainer(folder, language, full, observer or _default_observer())
        return _run(trainer, fresh=not files.is_folder(folder / LAST))


def _run(trainer: Trainer, fresh: bool) -> Run:
    run = trainer.run
    try:
        if not fresh:
            trainer.restore()
        run.baselines = trainer.task.measure_baselines()
        if fresh:
            trainer.begin()
        trainer.train()
        run.plot = plot_loss(run.path / "loss.png", run.history, run.baselines)
        run.model = LanguageModel.from_folder(files.read_folder(find(run.path)))
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


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """A run that ends before its settings are written leaves no folder: there is nothing to go on with."""
    try:
        yield
    finally:
        if not (folder / CONFIG).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _sizes(full: Settings) -> Sizes:
    assert full.hidden and full.embedding is not None  # complete() has set them
    return Sizes(full.cell, full.layers, full.hidden, full.embedding)


def _check_memory(full: Settings, symbols: int) -> None:
    """Raises InputError for a network that this machine cannot hold: weights, gradients and AdamW's two moments."""
    network = LanguageNetwork(_sizes(full), symbols, device="meta")
    weights = sum(p.numel() for p in network.parameters())
    needed, there = 16 * weights, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"hidden={full.hidden}, layers={full.layers} and embedding={full.embedding} make {weights:,} weights, for "
            f"whose training {needed / 2**30:,.0f} GiB are needed and {there / 2**30:,.0f} there; give smaller ones."
        )


def _task(text: Text, full: Settings) -> LanguageTask:
    assert full.batch and full.window and full.dropout is not None  # complete() has set them
    sizes = _sizes(full)
    record = msgspec.to_builtins(full)
    return LanguageTask(text, sizes, full.dropout, full.batch, full.window, full.validation, full.seed, record)


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


def _record(folder: Path, data: str | os.PathLike[str] | Text, text: Text) -> Data:
    """How the text is found again: its path from anywhere, the word `demo`, or a copy in the run folder."""
    if isinstance(data, Text):
        files.replace_file(folder / _COPY, text.content.encode())
        path = _COPY
    else:
        path = DEMO if text.name == DEMO else str(Path(data).absolute())
    return Data(path, text.name, len(text), text.sha256)


def _text_again(folder: Path, config: Config) -> Text:
    path = config.data.path
    text = as_text(folder / _COPY if path == _COPY else path)
    if text.sha256 != config.data.sha256:
        raise FileError(
            f"{path} has changed since the run began: its sha256 is {text.sha256[:16]}… but field 'data.sha256' of "
            f"{folder / CONFIG} says {config.data.sha256[:16]}…; put the text back or train again."
        )
    return dataclasses.replace(text, name=config.data.name)


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

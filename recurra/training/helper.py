"""A process beside the first: it is told the run, reads the same data, and takes every step with the others."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch

from recurra.errors import RecurraError, TrainingError
from recurra.training.config import Config
from recurra.training.distributed import follow, joined, ready, received
from recurra.training.run import Run
from recurra.training.setup import Setup
from recurra.training.updates import NotFinite, Updates


class Told(msgspec.Struct):
    """What the first process says of the run: its folder, and all that it was started with."""

    folder: str
    config: Config


def help_along(setups: dict[str, type[Setup]], store: Path | None, rank: int, size: int) -> Run:
    """Takes part in the run of the first process until that ends. TrainingError when it has left, or cannot go on."""
    with _uninterrupted(), joined(store, rank, size):
        told = msgspec.json.decode(received(), type=Told)
        folder, config = Path(told.folder), told.config
        torch.set_num_threads(config.settings.threads or 1)
        task = setups[config.task].again(folder, config).task(config.settings)
        try:
            follow(Updates(task, config.settings), rank, size)
        except (RuntimeError, NotFinite) as error:
            raise TrainingError(f"The first process has left the run of {folder}: {error}") from None
    return Run(folder, config.settings, task.model, task.batches)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is for the first process, which says when to stop. Outside the main thread Python leaves it as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """Of a process that the first one has started: STORE RANK SIZE."""
    from recurra.training.start import SETUPS  # which loads what every task needs

    store, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    ready(store, rank).touch()
    try:
        help_along(SETUPS, store, rank, size)
    except RecurraError as error:
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)


def _end_with_the_first() -> None:
    sys.stdin.buffer.read()
    os._exit(1)

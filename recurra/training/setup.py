"""What a run asks of a task before it trains: to read the data, to find open settings from it, to make the task."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from recurra.data.texts import Texts
from recurra.errors import FileError, InputError
from recurra.tasks.task import Task
from recurra.training import ranks
from recurra.training.config import CONFIG, Config, Data
from recurra.training.settings import Settings, filled


class Setup(ABC):
    """The data of one run, read."""

    name: str  # what the data goes by; a run folder is called after it

    @classmethod
    @abstractmethod
    def of(cls, data: Any, wanted: Settings) -> "Setup":
        """From what a person gave. Raises DataError for data and InputError for settings that cannot be used."""

    @classmethod
    @abstractmethod
    def again(cls, folder: Path, config: Config) -> "Setup":
        """From where `record` said it is. Raises FileError when it is no longer what it was."""

    @abstractmethod
    def complete(self, wanted: Settings) -> Settings:
        """The settings with all that was left open found from the data. Raises InputError for those that do not fit."""

    @abstractmethod
    def task(self, full: Settings) -> Task:
        """The task of completed settings."""

    @abstractmethod
    def record(self, folder: Path) -> Data:
        """How the data is found again: its path from anywhere, or a copy that this writes into the run folder."""

    def parts(self, full: Settings) -> dict[str, Texts]:
        """The texts by what they are for: training, validation, test. {} from a task whose data is no text."""
        return {}


def of_length(given: Settings, batches: int, epochs: int) -> Settings:
    """The settings of a run of so many epochs of batches, unless `steps` or `epochs` say another length."""
    steps = given.steps or (given.epochs or epochs) * batches
    interval = given.eval_interval or max(1, min(steps, batches))
    full = filled(
        given,
        steps=steps,
        warmup=min(100, steps // 10),
        eval_interval=interval,
        log_interval=max(1, min(interval, steps // 200)),
    )
    return msgspec.structs.replace(full, epochs=None)


def check_memory(network: nn.Module, sizes: str) -> None:
    """Raises InputError for a network that this machine cannot hold: weights, gradients and AdamW's two moments."""
    weights = sum(p.numel() for p in network.parameters())
    needed, there = 16 * weights, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"{sizes} make {weights:,} weights, for whose training {needed / 2**30:,.0f} GiB are needed and "
            f"{there / 2**30:,.0f} there; give smaller ones."
        )


def check_unchanged(path: str, found: str, folder: Path, config: Config) -> None:
    """Raises FileError when data has another sha256 than when the run began."""
    if found != config.data.sha256:
        what = "the text" if config.task == "language" else "the data"
        raise FileError(
            f"{path} has changed since the run began: its sha256 is {found[:16]}… but field 'data.sha256' of "
            f"{folder / CONFIG} says {config.data.sha256[:16]}…; put {what} back or train again."
        )


def with_processes(full: Settings) -> Settings:
    """The settings with the numbers of processes, and of threads of each, that were left open.

    InputError for other processes than torchrun has started, and for more than a batch has rows.
    """
    there = ranks.world()
    if there is not None and full.processes not in (None, there):
        raise InputError(f"processes={full.processes} but torchrun has started {there}; leave processes out.")
    processes = full.processes or there or 1
    if full.batch is not None and processes > full.batch:
        raise InputError(
            f"processes={processes} are to share a batch of {full.batch}; give at most {full.batch}, or a larger batch."
        )
    threads = full.threads or max(1, torch.get_num_threads() // (ranks.here() or processes))
    return msgspec.structs.replace(full, processes=processes, threads=threads)

"""What every trained model can do, and how one is loaded from a folder."""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn

from recurra import files
from recurra.cell import Cell
from recurra.cells.by_name import own_cells
from recurra.errors import FileError, InputError
from recurra.machine.precision import NAMES
from recurra.report.blocks import About
from recurra.report.words import Both
from recurra.tasks.measure import Measure
from recurra.tasks.terms import term

TASKS = {
    "language": ("recurra.tasks.language_model", "LanguageModel"),
    "classification": ("recurra.tasks.classifier", "Classifier"),
    "tagging": ("recurra.tasks.tagger", "Tagger"),
}  # name of the task: module and class of its model


class Reached(Protocol):
    """What training reached on the validation data."""

    @property
    def step(self) -> int: ...
    @property
    def baselines(self) -> dict[str, float]: ...


class Model(ABC):
    """A trained model of one task: its network and all that is needed to use it, saved in one folder of plain data."""

    task: ClassVar[str]
    measure: Measure  # what validation in training gives
    unit: ClassVar[str]  # what its work is counted in: "characters"
    unit_short: ClassVar[str]  # the same beside a progress bar: "chars"
    network: nn.Module
    result: Reached | None  # None of a model that did not come from training

    @property
    def parameters(self) -> int:
        """How many numbers training has set."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    @abstractmethod
    def description(self) -> str:
        """The network in a few words: "2 LSTM layers of 512 units"."""

    def about(self) -> About:
        """What its report says of it without looking at any data."""
        return About(term(self.task), Both(self.description, self.description), [])

    @abstractmethod
    def evaluate(self, data: Any) -> Any:
        """Measures the model on `data` beside the baselines of its task."""

    def predict(self, *args: Any, **settings: Any) -> list[Any]:
        """The label of each text, from the tasks that tell texts apart; the tags of its words, from taggers."""
        raise InputError(f"A model of the task '{self.task}' does not predict labels.")

    def probabilities(self, *args: Any, **settings: Any) -> list[dict[str, float]]:
        """The probability of every label for each text, from the same tasks."""
        raise InputError(f"A model of the task '{self.task}' does not predict labels.")

    def stream(self, *args: Any, **settings: Any) -> Iterator[str]:
        """Text piece by piece, from the tasks that write."""
        raise InputError(f"A model of the task '{self.task}' does not write text.")

    def generate(self, *args: Any, **settings: Any) -> str:
        """The same as one string."""
        return "".join(self.stream(*args, **settings))

    def score(self, *args: Any, **settings: Any) -> list[Any]:
        """ln p of each text, from language models."""
        raise InputError(f"A model of the task '{self.task}' does not say how likely a text is.")

    def fill(self, *args: Any, **settings: Any) -> Any:
        """What stands best in the blank of a sentence, from language models."""
        raise InputError(f"A model of the task '{self.task}' does not fill blanks; give a language model.")

    def rank(self, *args: Any, **settings: Any) -> list[Any]:
        """The candidates of a recogniser, best first, from language models."""
        raise InputError(f"A model of the task '{self.task}' does not rank candidates; give a language model.")

    def compute_in(self, precision: str) -> None:
        """What the recurrent layers compute in from now on, in place of what they were trained in."""
        raise InputError(f"precision={precision!r} cannot be chosen for a model of the task '{self.task}'.")

    @property
    def rounding(self) -> str:
        """In int8, the measured error in a sentence; else ""."""
        return ""

    @abstractmethod
    def folder(self) -> tuple[dict[str, object], dict[str, bytes]]:
        """The manifest's record and the files of the model's folder."""

    @classmethod
    @abstractmethod
    def from_folder(cls, folder: files.Folder) -> "Model":
        """The model of a verified folder."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model folder `path`, whole or not at all."""
        files.write_folder(files.folder_path(path), *self.folder())


def load(
    path: str | os.PathLike[str], precision: str | None = None, cells: Mapping[str, type[Cell]] | None = None
) -> Model:
    """Loads a model from a model folder, or the best one of a run folder (the last while there is no best).

    precision: what its recurrent layers compute in, "int8" among them; None: what they were trained in.
    cells: the classes of cells that are not Recurra's own, by the names that the folder has: {"MyCell": MyCell}.
    Every byte is verified before anything is built. FileError names the file and the field that is not as it must be.
    """
    folder = files.read_folder(find(files.folder_path(path)))
    task = folder.record.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise FileError(f"{folder.manifest}: field 'task' is {task!r} but this release knows {', '.join(TASKS)}.")
    module, name = TASKS[task]
    kind: type[Model] = getattr(importlib.import_module(module), name)
    with own_cells(cells):
        model = kind.from_folder(folder)
    if precision is not None:
        model.compute_in(precision)
    return model


def rounding_said(error: float | None) -> str:
    """What a model in int8 says of the error that was measured."""
    return f"The recurrent layers compute in int8: their outputs are up to {error or 0:.2g} of the largest off fp32."


def trained_precision(folder: files.Folder, settings: Mapping[str, object]) -> str:
    """What a model was trained in; folders of earlier releases do not say, and were trained in fp32."""
    found = settings.get("precision", "fp32")
    if found not in NAMES:
        raise FileError(
            f"{folder.manifest}: field 'settings.precision' is {found!r}, and there are {', '.join(NAMES)}."
        )
    return str(found)


def find(path: Path) -> Path:
    """The model folder that `path` means: itself, or best/ or last/ of a run folder."""
    for place in (path, path / "best", path / "last"):
        if files.is_folder(place):
            return place
    if not path.exists():
        raise FileError(f"{path} does not exist; give a run folder or a model folder that Recurra wrote.")
    raise FileError(f"{path} is neither a run folder nor a model folder: it has no {files.MANIFEST}, best/ or last/.")

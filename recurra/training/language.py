"""How a run of the task `language` begins: its text, and the settings found from it."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from recurra import files
from recurra.data.demo import DEMO
from recurra.data.text import Text, Vocabulary
from recurra.errors import DataError, InputError
from recurra.tasks.language import LanguageNetwork, Sizes
from recurra.tasks.language_model import as_text
from recurra.tasks.language_task import LanguageTask
from recurra.training.config import Config, Data
from recurra.training.settings import Settings, filled
from recurra.training.setup import Setup, check_memory, check_unchanged

CELLS = ("lstm", "gru", "rnn")
_COPY = "data.txt"  # in the run folder, when the text came from no file


class LanguageSetup(Setup):
    """A text, and the path it came from; None for a Text of the caller's own."""

    def __init__(self, text: Text, path: str | None) -> None:
        self.text, self.path, self.name = text, path, text.name

    @classmethod
    def of(cls, data: Any, wanted: Settings) -> "LanguageSetup":
        text = as_text(data)
        if text.content.isspace():
            raise DataError(
                f"{text.name} holds nothing but white space; give a text of at least some thousand characters."
            )
        if isinstance(data, Text):
            return cls(text, None)
        return cls(text, DEMO if text.name == DEMO else str(Path(os.fspath(data)).absolute()))

    @classmethod
    def again(cls, folder: Path, config: Config) -> "LanguageSetup":
        path = config.data.path
        text = as_text(folder / _COPY if path == _COPY else path)
        check_unchanged(path, text.sha256, folder, config)
        return cls(dataclasses.replace(text, name=config.data.name), path)

    def complete(self, wanted: Settings) -> Settings:
        if wanted.cell is not None and wanted.cell not in CELLS:
            raise InputError(f"cell={wanted.cell!r} cannot be used; give {', '.join(CELLS[:-1])} or {CELLS[-1]}.")
        part = self.text.split(wanted.validation)[0].content
        symbols = len(Vocabulary(part))
        full = complete(wanted, len(part), symbols)
        network = LanguageNetwork(_sizes(full), symbols, device="meta")
        check_memory(network, f"hidden={full.hidden}, layers={full.layers} and embedding={full.embedding}")
        return full

    def task(self, full: Settings) -> LanguageTask:
        assert full.batch and full.window and full.dropout is not None  # complete() has set them
        record = msgspec.to_builtins(full)
        sizes = _sizes(full)
        return LanguageTask(self.text, sizes, full.dropout, full.batch, full.window, full.validation, full.seed, record)

    def record(self, folder: Path) -> Data:
        if self.path is None:
            files.replace_file(folder / _COPY, self.text.content.encode())
        return Data(self.path or _COPY, self.text.name, self.text.sha256, characters=len(self.text))


def complete(given: Settings, characters: int, symbols: int) -> Settings:
    """Fills what was left open from the training text: its number of characters and of different symbols.

    The number of steps never depends on the speed of the machine, so that a seed means the same run everywhere.
    """
    window = given.window or max(1, min(64, (characters - 1) // 2))
    batch = given.batch or max(1, min(16, characters // (4 * window)))
    per_epoch = max(1, characters // (batch * window))
    steps = given.steps or (per_epoch * given.epochs if given.epochs else _seen(characters) // (batch * window))
    eval_interval = given.eval_interval or max(1, min(2000, -(-steps // 6)))
    found = {
        "cell": "lstm",
        "learning_rate": 0.004,
        "sample_length": 200,
        "temperature": 0.8,
        "hidden": 128 if characters < 50_000 else 256 if characters < 150_000 else 512,
        "embedding": min(64, symbols),
        "dropout": 0.0 if steps < 10 * per_epoch else 0.2,
        "window": window,
        "batch": batch,
        "steps": steps,
        "warmup": min(50, steps // 10),
        "eval_interval": eval_interval,
        "log_interval": max(1, min(eval_interval, steps // 200)),
    }
    return msgspec.structs.replace(filled(given, **found), epochs=None)


def _seen(characters: int) -> int:
    """Characters to learn from: about a minute of them, three passes over a longer text, one over a very long one."""
    return max(characters, min(200 * characters, max(_A_MINUTE, 3 * min(characters, 1_000_000))))


_A_MINUTE = 1_050_000  # what an LSTM of 512 units learns from in somewhat less than a minute on two cores


def _sizes(full: Settings) -> Sizes:
    assert full.hidden and full.embedding is not None  # complete() has set them
    return Sizes(cast(Literal["lstm", "gru", "rnn"], full.cell), full.layers, full.hidden, full.embedding)

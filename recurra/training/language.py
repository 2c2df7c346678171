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
from recurra.training.settings import Settings, complete
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


def _sizes(full: Settings) -> Sizes:
    assert full.hidden and full.embedding is not None  # complete() has set them
    return Sizes(cast(Literal["lstm", "gru", "rnn"], full.cell), full.layers, full.hidden, full.embedding)

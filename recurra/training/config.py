"""`config.toml` of a run folder: everything that a run was started with, complete, to be read and compared."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from recurra import files
from recurra.errors import FileError
from recurra.training.settings import Settings

CONFIG = "config.toml"


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data of a run: where it is, what its name was when it was given, its digest, and how much it holds."""

    path: str
    name: str
    sha256: str
    characters: int | None = None  # of a text
    rows: int | None = None  # of a table
    vectors: str | None = None  # digest of the file of word vectors


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run's record: task, versions, data and completed settings."""

    task: str
    recurra: str
    torch: str
    data: Data
    settings: Settings


def write_config(folder: Path, config: Config) -> None:
    """Writes `config.toml`, whole or not at all."""
    files.replace_file(folder / CONFIG, toml(msgspec.to_builtins(config)).encode())


def read_config(folder: Path) -> Config:
    """Reads it again; FileError names file and field."""
    path = folder / CONFIG
    if not path.exists():
        raise FileError(f"{folder} is not a run folder: it has no {CONFIG}; give the folder that train() wrote.")
    try:
        return msgspec.convert(tomllib.loads(files.read_file(path).decode()), Config)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise FileError(f"{path}: a field is not as it must be: {error}.") from None


def toml(record: Mapping[str, Any]) -> str:
    """A record of strings, numbers and tables one level deep as TOML 1.0. None is left out: TOML has no word for it."""
    tables = {name: value for name, value in record.items() if isinstance(value, Mapping)}
    text = _pairs({name: value for name, value in record.items() if name not in tables})
    return text + "".join(f"\n[{name}]\n{_pairs(table)}" for name, table in tables.items())


def _pairs(table: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items() if value is not None)


def _value(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)

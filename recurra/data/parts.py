"""What the names of files say that they are for."""

import os
import re
from pathlib import Path

from recurra.data.trees import is_labelled_file
from recurra.errors import DataError

_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
PARTS = {name: part for part, names in _NAMES.items() for name in names}  # name: part


def part_of(name: str) -> str | None:
    """What a word of a name says that a file is for: "train" of `train.bio` and of `en_ewt-ud-train.conllu.gz`."""
    return next((PARTS[word] for word in re.split(r"[\W_]+", name.lower()) if word in PARTS), None)


def parts_of(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The labelled texts of a folder by what their names say they are for. DataError when two are for the same."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        part = PARTS.get(path.name.partition(".")[0].lower())
        if part is None or not is_labelled_file(path):
            continue
        if part in found:
            raise DataError(f"{folder} has {found[part].name} and {path.name}, both for {part}; take one away.")
        found[part] = path
    return found

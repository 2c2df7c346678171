"""What a language model learns from: one text, or texts that are named for training, validation and test."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from recurra.data.documents import read_documents
from recurra.data.file_text import open_text
from recurra.data.parts import PARTS
from recurra.data.text import Source
from recurra.errors import DataError

_WHOLE = "whole"
_SUFFIXES = (".txt", ".jsonl")  # also with .gz after


@dataclass(frozen=True)
class Corpus:
    """Texts by what they are for: `train`, `validation`, `test`; or one that is `whole`, and split by a share."""

    name: str
    texts: dict[str, Source]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.texts.values()))

    @property
    def sha256(self) -> str:
        """Of one text its own; of several that of their digests, part by part."""
        digests = [text.sha256 for text in self.texts.values()]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def split(self, share: float) -> tuple[Source, Source]:
        """What to train on and what is kept for validation: by their names, or the last `share` of the text."""
        if _WHOLE in self.texts:
            return self.texts[_WHOLE].split(share)
        if "validation" not in self.texts:
            return self.texts["train"].split(share)
        return self.texts["train"], self.texts["validation"]

    @property
    def whole(self) -> Source | None:
        """The text, where there is but one."""
        return self.texts.get(_WHOLE)

    @property
    def test(self) -> Source | None:
        """What is kept for the test by its name."""
        return self.texts.get("test")


def corpus_of(text: Source, notes: tuple[str, ...] = ()) -> Corpus:
    """One text."""
    return Corpus(text.name, {_WHOLE: text}, notes)


def read_corpus(path: str | os.PathLike[str], column: str | None = None) -> Corpus:
    """A text file, a .jsonl file of documents (`column`: their field), or a folder of such files. DataError."""
    if not Path(path).is_dir() or not os.fspath(path):
        return corpus_of(*_read(Path(path) if os.fspath(path) else path, column))
    files = text_parts(path)
    if "train" not in files:
        raise DataError(
            f"{path} has no text for training; name the files train.txt, valid.txt and test.txt, or give one file."
        )
    read = {part: _read(files[part], column) for part in ("train", "validation", "test") if part in files}
    notes = tuple(note for _, found in read.values() for note in found)
    return Corpus(os.fspath(path), {part: text for part, (text, _) in read.items()}, notes)


def text_parts(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The texts of a folder whose names hold train, valid (validation, val, dev) or test. DataError when two do."""
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        name = path.name.lower().removesuffix(".gz")
        parts = {PARTS[word] for word in re.split(r"[\W_]+", name) if word in PARTS}
        if not name.endswith(_SUFFIXES) or len(parts) != 1:
            continue
        (part,) = parts
        if part in found:
            raise DataError(f"{folder} has {found[part].name} and {path.name}, both for {part}; take one away.")
        found[part] = path
    return found


def _read(path: str | os.PathLike[str], column: str | None) -> tuple[Source, tuple[str, ...]]:
    if os.fspath(path).lower().removesuffix(".gz").endswith(".jsonl"):
        return read_documents(path, column)
    return open_text(path), ()

"""A text too large for memory, read from its file again whenever it is needed."""

import bisect
import codecs
import gzip
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from recurra.data.text import Source, Text, check_beginning, no_text, read_text, refuse_endless, whole_words
from recurra.errors import DataError

LARGE = 64 * 2**20  # bytes of a file that is not held in memory; packed ones are taken for five times their size
_BLOCK = 2**20  # bytes that are read at a time


@dataclass(frozen=True)
class FileText(Source):
    """Characters `begin` to before `end` of a UTF-8 file, which was checked when it was opened."""

    name: str
    path: Path
    begin: int
    end: int
    digest: str  # of the whole file
    bytes_before: tuple[int, ...] = field(repr=False)  # every block's place in the file
    characters_before: tuple[int, ...] = field(repr=False)  # and in the text

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def sha256(self) -> str:
        """sha256 of the whole file, without a mark at its beginning."""
        return self.digest

    @property
    def content(self) -> str:  # type: ignore[override]
        """All of it, in memory."""
        return "".join(self._blocks())

    def pieces(self) -> Iterator[str]:
        return whole_words(self._blocks())

    def part(self, begin: int, end: int, name: str) -> "FileText":
        given = (self.digest, self.bytes_before, self.characters_before)
        return FileText(name, self.path, self.begin + begin, self.begin + end, *given)

    def _blocks(self) -> Iterator[str]:
        first = bisect.bisect_right(self.characters_before, self.begin) - 1
        place = self.characters_before[first]
        decoder = codecs.getincrementaldecoder("utf-8")()
        with _opened(self.path) as file:
            file.seek(self.bytes_before[first])
            while place < self.end and (raw := file.read(_BLOCK)):
                block = decoder.decode(raw)
                yield block[max(0, self.begin - place) : self.end - place]
                place += len(block)
        if place < self.end:
            raise DataError(f"{self.path} has become shorter while it was read; put it back as it was.")


def open_text(path: str | os.PathLike[str]) -> Source:
    """A text file: in memory, or where it is when it is large. DataError says what is wrong, and at which byte."""
    place = Path(path)
    packed = place.name.lower().endswith(".gz")
    if not os.fspath(path) or not place.is_file() or place.stat().st_size * (5 if packed else 1) < LARGE:
        return read_text(path)
    refuse_endless(place)
    try:
        return _indexed(place)
    except OSError as error:  # gzip's are such too
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    except EOFError as error:
        raise DataError(f"{path} is no whole gzip file: {error}; pack it again.") from None


def _indexed(path: Path) -> Source:
    """Reads the file once: its length, its digest, and where each block of it begins."""
    decoder, digest = codecs.getincrementaldecoder("utf-8")(), hashlib.sha256()
    with _opened(path) as file:
        check_beginning(path, raw := file.read(len(codecs.BOM_UTF8)))
        before = len(codecs.BOM_UTF8) if raw == codecs.BOM_UTF8 else 0
        file.seek(before)
        places, counts, read, characters = [before], [0], before, 0
        while True:
            raw = file.read(_BLOCK)
            left = len(decoder.getstate()[0])
            try:
                block = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise no_text(path, error.object, error, read - left) from None
            if "\0" in block:
                raise no_text(path, raw, UnicodeDecodeError("utf-8", raw, 0, 1, ""), read)
            if not raw:
                break
            digest.update(raw)
            read, characters = read + len(raw), characters + len(block)
            places.append(read - len(decoder.getstate()[0]))
            counts.append(characters)
    if not characters:
        return Text(str(path), "")  # raises
    return FileText(str(path), path, 0, characters, digest.hexdigest(), tuple(places), tuple(counts))


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else open(path, "rb")

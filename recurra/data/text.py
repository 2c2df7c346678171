"""Text: read, checked, split, and given out in pieces."""

import codecs
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recurra.data.gz import unpacked
from recurra.data.symbols import END
from recurra.errors import DataError

PIECE = 2**20  # characters of a text that are looked at together
_NO_TEXT = frozenset(range(32)) - frozenset(b"\a\b\t\n\v\f\r\x1a\x1b")  # control bytes no encoding of text uses


class Source(ABC):
    """A text that is read in pieces, wherever it is: its name, its length in characters, its digest."""

    name: str
    content: str  # all of it

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def sha256(self) -> str:
        """sha256 of the text's UTF-8 bytes."""

    @abstractmethod
    def pieces(self) -> Iterator[str]:
        """All of it piece by piece, none of which divides a word where there is white space in a million characters."""

    @abstractmethod
    def part(self, begin: int, end: int, name: str) -> "Source":
        """The characters from `begin` to before `end`."""

    def split(self, share: float) -> tuple["Source", "Source"]:
        """The part to train on and, at the end, the `share` kept for validation."""
        length = len(self)
        cut = length - max(1, round(length * share))
        if cut < 2 or length - cut < 2:
            raise DataError(
                f"{self.name} has {length} characters, of which validation={share:g} leaves {max(cut, 0)} "
                "for training, and 2 are needed in each part; give a longer text."
            )
        return (
            self.part(0, cut, f"{self.name}, first {cut} characters"),
            self.part(cut, length, f"{self.name}, last {length - cut} characters"),
        )

    def first(self, characters: int) -> str:
        """At most so many characters of the beginning."""
        return self.part(0, min(characters, len(self)), self.name).content

    def last(self, characters: int) -> str:
        """At most so many characters of the end."""
        return self.part(max(0, len(self) - characters), len(self), self.name).content


@dataclass(frozen=True)
class Text(Source):
    """A text in memory and the name it goes by (its path, or `demo`)."""

    name: str
    content: str

    def __post_init__(self) -> None:
        if not self.content:
            raise DataError(f"{self.name} is empty; give a text of at least some thousand characters.")
        try:
            self.content.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.name} holds half a surrogate pair at character {error.start}, which UTF-8 cannot store; decode "
                "the text again from its bytes."
            ) from None

    def __len__(self) -> int:
        return len(self.content)

    @property
    def sha256(self) -> str:
        """sha256 of the text's UTF-8 bytes."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def pieces(self) -> Iterator[str]:
        """Cut at the last end of a line or document, or at the last blank, within so many characters."""
        return whole_words([self.content])

    def part(self, begin: int, end: int, name: str) -> "Text":
        return Text(name, self.content[begin:end])


def whole_words(blocks: Iterable[str], length: int = PIECE) -> Iterator[str]:
    """The text of blocks in pieces of at most so many characters, which end where a line, a document or a word does."""
    left = ""
    for block in blocks:
        left += block
        begin = 0
        while len(left) - begin > length:
            end = _end_of_words(left, begin, begin + length)
            yield left[begin:end]
            begin = end
        left = left[begin:]
    if left:
        yield left


def _end_of_words(text: str, begin: int, end: int) -> int:
    """Where a piece ends: after a line or document, else before a blank, else where it is full."""
    if after := max(text.rfind(mark, begin, end) for mark in ("\n", END)) + 1:
        return after
    before = text.rfind(" ", begin + 1, end)
    return before if before > 0 else end


def read_bytes(path: str | os.PathLike[str], needed: str = "a text of at least some thousand characters") -> bytes:
    """The bytes of a file of text, where `needed` is what it must hold. DataError says why there are none."""
    if not os.fspath(path):
        raise DataError("The path of the text is empty; give the path of a text file.")
    path = Path(path)
    try:
        refuse_endless(path)
        raw = path.read_bytes()
    except MemoryError:
        size = path.stat().st_size
        raise DataError(f"{path} has {size} bytes, for which there is no memory; give a part of it.") from None
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the path of a text file.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; give the path of a text file in it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not raw:
        raise DataError(f"{path} is empty (0 bytes); give {needed}.")
    return raw


def read_text(path: str | os.PathLike[str]) -> Text:
    """Reads a UTF-8 text file, also packed as .gz. DataError says what is wrong, and at which byte."""
    raw = unpacked(path, read_bytes(path))
    path = Path(path)
    check_beginning(path, raw)
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise no_text(path, raw, error) from None
    if "\0" in content:
        raise DataError(_binary(path, raw[raw.index(0)], raw.index(0)))
    content = content.removeprefix("\ufeff")
    return Text(str(path), content)


def check_beginning(path: Path, raw: bytes) -> None:
    """Raises DataError for a file that says in its first bytes that it is no UTF-8."""
    for mark, name in ((codecs.BOM_UTF16_LE, "UTF-16LE"), (codecs.BOM_UTF16_BE, "UTF-16BE")):
        if raw.startswith(mark):
            raise DataError(f"{path} is {name}, as byte 0 says; convert it to UTF-8 (iconv -f {name} -t UTF-8).")


def no_text(path: Path, raw: bytes, error: UnicodeDecodeError, before: int = 0) -> DataError:
    """What is wrong with bytes of a file that cannot be decoded; `before`: how many came before them."""
    if (place := next((n for n, byte in enumerate(raw) if byte in _NO_TEXT), None)) is not None:
        return DataError(_binary(path, raw[place], before + place))
    return DataError(
        f"{path} is not UTF-8 text: byte {before + error.start} is 0x{raw[error.start]:02x} ({error.reason}); convert "
        "it to UTF-8 (iconv -f LATIN1 -t UTF-8 for western European text)."
    )


def refuse_endless(path: Path) -> None:
    """What is no file on a disk may never end, or never begin."""
    mode = path.stat().st_mode
    for is_one, kind in ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device")):
        if is_one(mode) or (kind == "device" and stat.S_ISBLK(mode)):
            raise DataError(
                f"{path} is a {kind}, which may never end and cannot be read again when a run goes on; write its text "
                "to a file and give that."
            )


def _binary(path: Path, byte: int, place: int) -> str:
    return f"{path} is a binary file: byte {place} is 0x{byte:02x}; give a text file."

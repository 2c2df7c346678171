"""Text: read, split, turned into numbers, and cut into batches that follow one another along the text."""

import codecs
import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.keys import key
from recurra.errors import DataError

UNKNOWN = 0  # the reserved symbol: every character that the vocabulary does not know

_NO_TEXT = frozenset(range(32)) - frozenset(b"\a\b\t\n\v\f\r\x1a\x1b")  # control bytes no encoding of text uses


@dataclass(frozen=True)
class Text:
    """A text and the name it goes by (its path, or `demo`)."""

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

    def split(self, share: float) -> tuple["Text", "Text"]:
        """The part to train on and, at the end, the `share` kept for validation."""
        cut = len(self.content) - max(1, round(len(self.content) * share))
        if cut < 2 or len(self.content) - cut < 2:
            raise DataError(
                f"{self.name} has {len(self.content)} characters, of which validation={share:g} leaves {max(cut, 0)} "
                "for training, and 2 are needed in each part; give a longer text."
            )
        return (
            Text(f"{self.name}, first {cut} characters", self.content[:cut]),
            Text(f"{self.name}, last {len(self.content) - cut} characters", self.content[cut:]),
        )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file of text. DataError says in one sentence why there are none."""
    if not os.fspath(path):
        raise DataError("The path of the text is empty; give the path of a text file.")
    path = Path(path)
    try:
        _refuse_endless(path)
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
        raise DataError(f"{path} is empty (0 bytes); give a text of at least some thousand characters.")
    return raw


def read_text(path: str | os.PathLike[str]) -> Text:
    """Reads a UTF-8 text file. DataError says in one sentence what is wrong, and at which byte."""
    raw = read_bytes(path)
    path = Path(path)
    for mark, name in ((codecs.BOM_UTF16_LE, "UTF-16LE"), (codecs.BOM_UTF16_BE, "UTF-16BE")):
        if raw.startswith(mark):
            raise DataError(f"{path} is {name}, as byte 0 says; convert it to UTF-8 (iconv -f {name} -t UTF-8).")
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if (place := next((n for n, byte in enumerate(raw) if byte in _NO_TEXT), None)) is not None:
            raise DataError(_binary(path, raw, place)) from None
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{raw[error.start]:02x} ({error.reason}); convert it to "
            "UTF-8 (iconv -f LATIN1 -t UTF-8 for western European text)."
        ) from None
    if "\0" in content:
        raise DataError(_binary(path, raw, raw.index(0)))
    content = content.removeprefix("\ufeff")
    return Text(str(path), content)


def _refuse_endless(path: Path) -> None:
    """What is no file on a disk may never end, or never begin."""
    mode = path.stat().st_mode
    for is_one, kind in ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device")):
        if is_one(mode) or (kind == "device" and stat.S_ISBLK(mode)):
            raise DataError(
                f"{path} is a {kind}, which may never end and cannot be read again when a run goes on; write its text "
                "to a file and give that."
            )


def _binary(path: Path, raw: bytes, place: int) -> str:
    return f"{path} is a binary file: byte {place} is 0x{raw[place]:02x}; give a text file."


class Vocabulary:
    """Characters and their numbers: 0 is the reserved unknown symbol, then the characters in code point order."""

    def __init__(self, characters: str) -> None:
        self.characters = "".join(sorted(set(characters)))
        self._points = _points(self.characters)

    def __len__(self) -> int:
        return 1 + len(self.characters)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Numbers (N,) of the characters; UNKNOWN for those that the vocabulary does not know."""
        points = _points(text)
        if not len(self._points):
            return np.zeros(len(points), np.int64)
        place = np.searchsorted(self._points, points)
        place[place == len(self._points)] = 0
        return np.where(self._points[place] == points, place + 1, UNKNOWN)

    def decode(self, numbers: list[int]) -> str:
        """The text of numbers; the unknown symbol is written U+FFFD."""
        return "".join(self.characters[n - 1] if n != UNKNOWN else "\ufffd" for n in numbers)

    def unknown(self, text: str) -> dict[str, int]:
        """Characters of `text` that the vocabulary does not know, with how often each occurs, most frequent first."""
        known = set(self.characters)
        return dict(Counter(c for c in text if c not in known).most_common())


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Stream:
    """A text as `batch` lanes read side by side, window after window, each window going on where the last one ended.

    Lane b of epoch e starts at character (r_e + b L) mod N, where L = N // batch and the rotation r_e is a function of
    (seed, epoch) alone. So the order of the data is known at any step without having walked there, and windows are cut
    at different places in every epoch. Seen as a circle the text has one seam, where its end meets its start.
    """

    def __init__(self, numbers: NDArray[np.int64], batch: int, window: int, seed: int) -> None:
        lane = len(numbers) // batch
        if len(numbers) <= window:
            raise DataError(
                f"The training text has {len(numbers)} characters but one window needs {window + 1} (window={window} "
                f"and the character after it); give a longer text or window={max(1, len(numbers) - 1)}."
            )
        if lane < window:
            raise DataError(
                f"The training text has {len(numbers)} characters but one step reads batch={batch} times "
                f"window={window} = {batch * window}; give a longer text, or a smaller batch or window."
            )
        self.numbers, self.batch, self.window, self.seed = numbers, batch, window, seed
        self.windows = lane // window
        self._lanes = np.arange(batch) * lane
        self._steps = np.arange(window + 1)[:, None]

    def __call__(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Window `index` of `epoch`: the characters read and those to be predicted, each (T, B)."""
        start = key(self.seed, "epoch", epoch) % len(self.numbers) + index * self.window
        block = self.numbers[(start + self._lanes + self._steps) % len(self.numbers)]
        return torch.from_numpy(block[:-1]), torch.from_numpy(block[1:])

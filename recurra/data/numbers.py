"""The numbers of a text's symbols: in memory, or of a text that is too large for it in a file."""

import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurra.data.symbols import Vocabulary
from recurra.data.text import Source, Text


class FileNumbers:
    """Numbers in a temporary file that goes when the process does; slices are read as they are asked for.

    Read and not mapped: pages of a map count as memory of the process until somebody else needs them.
    """

    def __init__(self, kind: np.dtype[Any]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        self._kind = kind
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, numbers: NDArray[np.int64]) -> None:
        """Writes further ones."""
        self._file.write(numbers.astype(self._kind).tobytes())
        self._file.flush()
        self._length += len(numbers)

    def __getitem__(self, places: slice) -> NDArray[np.int64]:
        begin, end, _ = places.indices(self._length)
        size = self._kind.itemsize
        raw = os.pread(self._file.fileno(), max(0, end - begin) * size, begin * size)
        return np.frombuffer(raw, self._kind).astype(np.int64)


Numbers = NDArray[np.int64] | FileNumbers


def encoded(vocabulary: Vocabulary, text: Source) -> tuple[Numbers, NDArray[np.int64]]:
    """The numbers of a text, and how often each number occurs, (V,)."""
    counts = np.zeros(len(vocabulary), np.int64)
    if isinstance(text, Text):
        numbers = np.concatenate([vocabulary.encode(piece) for piece in text.pieces()])
        return numbers, counts + np.bincount(numbers, minlength=len(counts))
    kept = FileNumbers(np.min_scalar_type(len(vocabulary)))
    for piece in text.pieces():
        numbers = vocabulary.encode(piece)
        counts += np.bincount(numbers, minlength=len(counts))
        kept.append(numbers)
    return kept, counts

"""Files that gzip has packed."""

import gzip
import os
import zlib

from recurra.errors import DataError


def unpacked(path: str | os.PathLike[str], raw: bytes) -> bytes:
    """The bytes of a file, unpacked where its name ends in .gz. DataError for one that is no whole gzip file."""
    if not os.fspath(path).lower().endswith(".gz"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file: {error}; pack it again.") from None

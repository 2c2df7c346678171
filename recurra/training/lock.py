"""One trainer at a time in a run folder."""

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recurra.errors import FileError

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock. FileError when another process holds it, with its number; a warning where none can be.

    The lock is the system's (flock) on `.lock`, so that it ends with its process however that ends; the file stays.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # a folder that cannot be written: whoever writes to it first says so
        yield
        return
    try:
        _take(file, folder)
        yield
    finally:
        os.close(file)


def _take(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            warnings.warn(
                f"the file system of {folder} has no locks, so that nothing keeps a second process from training in "
                "it at the same time: start one only.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        other = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
        raise FileError(
            f"{folder} is being trained by another process, number {other}; wait until it ends, or stop it first."
        ) from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)

"""What a person types: the command as this terminal knows it, and Ctrl-C before there is anything to go on with."""

import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

NAME = "recurra"


STOPPED = "Interrupted before the first step; nothing was saved."


@contextmanager
def loading() -> Iterator[None]:
    """While modules load, Ctrl-C ends the process at once: torch swallows an exception raised in its import."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{NAME}: {STOPPED}\n".encode())
    os._exit(128 + number)


@contextmanager
def beginning() -> Iterator[None]:
    """A run that is interrupted says itself how to go on; before that there is no run."""
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args:
            raise
        raise KeyboardInterrupt(STOPPED) from None


def command() -> str:
    """`recurra`, or where that is not on the PATH the path by which this program was called."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == NAME:
        return f"{_near(sys.executable)} -m {NAME}"
    found = shutil.which(NAME)
    if called.name != NAME or not called.exists() or (found is not None and os.path.samefile(found, called)):
        return NAME
    return _near(called)


def typeable(text: str) -> str:
    """A message whose commands are those that this terminal knows."""
    return text.replace(f"`{NAME} ", f"`{command()} ")


def _near(program: str | Path) -> str:
    """Its path from the working folder when it lies below, else whole; links are not followed."""
    path = Path(os.path.abspath(program))
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))

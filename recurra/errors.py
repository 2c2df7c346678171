"""Every exception that a user of Recurra meets.

A message is one or two sentences: the user's own words, both values, and what to do about it.
"""

from collections.abc import Callable


def kind_of(value: object) -> str:
    """What a value is, for a message: "an int", "a list", "an ndarray"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' or name.startswith('nd') else 'a'} {name}"


class RecurraError(Exception):
    """What all of Recurra's own exceptions are."""


def alone(check: Callable[[], None]) -> None:
    """A check made because something has failed: what it raises stands for that failure, which says nothing more."""
    try:
        check()
    except RecurraError as told:
        raise told from None


class CellError(RecurraError):
    """A cell breaks the contract of `recurra.Cell`: its `step`, its `initial`, its widths."""


class InputError(RecurraError, ValueError):
    """An argument of a call does not fit: the width of x, a state, lengths, a setting."""


class StrictError(RecurraError):
    """Strict mode met a fall-back to a slower executor; the message says which line of which step is why."""


class ProgramError(RecurraError):
    """A program, made by a pass or read from a file, does not verify."""


class DataError(RecurraError):
    """A file of data cannot be used: missing, empty, not text, too short."""


class FileError(RecurraError):
    """A run or model folder cannot be written or read; the message names file and field."""


class TrainingError(RecurraError):
    """Training cannot go on, as when the loss is no longer a number."""

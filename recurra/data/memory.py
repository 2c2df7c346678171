"""What a person has in memory: lists, tuples, arrays, Series, DataFrames, as plain lists and dictionaries of Python."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recurra.errors import InputError, kind_of


def is_frame(data: Any) -> bool:
    """Whether it is a DataFrame, of pandas or of what follows it."""
    return hasattr(data, "columns") and hasattr(data, "to_dict")


def in_memory(data: Any) -> bool:
    """Whether it is data itself and not a path."""
    return not isinstance(data, (str, os.PathLike))


def records_of(data: Any) -> list[dict[str, Any]] | None:
    """The rows of a DataFrame, of a dictionary of columns, or of a list of dictionaries; None for other data."""
    if is_frame(data):
        return _zipped({str(name): plain(data[name]) for name in data.columns})
    if isinstance(data, Mapping):
        return _zipped({str(name): items(column, f"data[{name!r}]", "a list") for name, column in data.items()})
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        return [dict(row) for row in data]
    return None


def _zipped(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise InputError(f"The columns of data have different lengths: {told}; each row needs all of them.")
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def items(data: Any, name: str, wanted: str) -> list[Any]:
    """The items of a list, a tuple, an array or a Series. InputError for what has none in an order that stays.

    name, wanted: of the argument and what it should be, for the message.
    """
    if isinstance(data, (str, bytes, os.PathLike, Mapping)) or is_frame(data):
        raise InputError(f"{name} is {kind_of(data)}; give {wanted}.")
    if isinstance(data, Iterator):
        raise InputError(f"{name} is {kind_of(data)}, which can be read once only; give list({name}).")
    if isinstance(data, Sequence):
        return list(data)
    if not hasattr(data, "__len__") or not hasattr(data, "__array__") or getattr(data, "ndim", 1) == 0:
        raise InputError(f"{name} is {kind_of(data)}; give {wanted}.")
    return plain(data)


def plain(column: Any) -> list[Any]:
    """A column or an array as a list of Python's own numbers and strings."""
    return list(column.tolist() if hasattr(column, "tolist") else column)


def is_text_list(data: Any) -> bool:
    """Whether data in memory is a list, an array or a Series of texts alone: there is nothing to tell them apart by."""
    if isinstance(data, (str, Mapping)) or is_frame(data) or getattr(data, "ndim", 1) == 0:
        return False
    if isinstance(data, Sequence) or hasattr(data, "__array__"):
        return any(isinstance(first, str) for first in list(data[:1]))
    return False

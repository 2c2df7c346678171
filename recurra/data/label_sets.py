"""Several labels a row: how a table writes them, found from its cells."""

from collections.abc import Iterable, Sequence

import msgspec

_JOIN = "\x01"  # stands between the labels of a row, whatever stood there in the file: a character that no text has
NO_LABEL = _JOIN  # of a row that has none, where a cell without text says nothing
_SEPARATORS = ("|", ";", ",")
JSON, COLUMNS, ONE = "json", "columns", ""  # ways of writing beside a separator; ONE: one label a row
_YES, _NO = ("1", "true", "1.0"), ("0", "false", "0.0")


def joined_labels(labels: Iterable[str]) -> str:
    """Labels as one string, each once and in order."""
    return _JOIN.join(sorted({label.strip() for label in labels} - {""})) or NO_LABEL


def labels_of(cell: str) -> tuple[str, ...]:
    """The labels that `joined_labels` put together."""
    return tuple(filter(None, cell.split(_JOIN)))


def way_of(cells: Sequence[str]) -> str:
    """How cells write several labels: JSON lists, a separator, or ONE where each has one.

    A separator is one if some cell has it, and fewer different labels stand between than there are different cells:
    a label that merely has a comma in its name occurs whole, and its parts do not recur.
    """
    full = [cell for cell in cells if cell.strip()]
    if full and all(_list(cell) is not None for cell in full):
        return JSON
    different = set(full)
    for separator in _SEPARATORS:
        parts = [part.strip() for cell in different for part in cell.split(separator)]
        if len(parts) > len(different) and all(parts) and len(set(parts)) < len(different):
            return separator
    return ONE


def read_cell(cell: str, way: str) -> str:
    """The labels of a cell, joined: of `[]` none; of a cell without text nothing is said, not even that.

    What is no list where lists are written is one label.
    """
    if way == ONE or not cell.strip():
        return cell.strip()
    if way == JSON:
        listed = _list(cell)
        return joined_labels([cell] if listed is None else listed)
    return joined_labels(cell.split(way))


def _list(cell: str) -> list[str] | None:
    if not cell.lstrip().startswith("["):
        return None
    try:
        return [str(label) for label in msgspec.json.decode(cell, type=list[str | int])]
    except msgspec.MsgspecError:
        return None


def is_flag_column(cells: Iterable[str]) -> bool:
    """Whether all cells are 0 or 1, and both occur."""
    found = {cell.strip().lower() for cell in cells}
    return found <= {*_YES, *_NO} and bool(found & set(_YES)) and bool(found & set(_NO))


def is_set(cell: str) -> bool:
    """Whether a flag is 1."""
    return cell.strip().lower() in _YES


def said(way: str, columns: Sequence[str]) -> str:
    """How the labels stand there, in words."""
    if way == COLUMNS:
        return f"one in each of the columns {', '.join(columns)}, where it is 1"
    return "as JSON lists" if way == JSON else f"divided by {way}"

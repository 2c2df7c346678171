"""Documents: texts that end, one a line of a .jsonl file."""

import os
from typing import Any

import msgspec

from recurra.data.gz import unpacked
from recurra.data.symbols import END
from recurra.data.table import decoded
from recurra.data.text import Text, read_bytes
from recurra.errors import DataError


def read_documents(path: str | os.PathLike[str], column: str | None = None) -> tuple[Text, tuple[str, ...]]:
    """The documents of a file, each with END after it and the first with END before it; and what was found.

    A document is an object's field that is a string, or a list of strings, which are put together; None takes that with
    the longest texts. Raises DataError that names the line.
    """
    name = os.fspath(path)
    content = decoded(path, unpacked(path, read_bytes(path)))
    records = [(n, _record(name, n, line)) for n, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not records:
        raise DataError(f"{name} has no rows; give an object with a text a line.")
    chosen = _longest(name, [record for _, record in records]) if column is None else column
    texts = [_text(name, n, record, chosen) for n, record in records]
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise DataError(f"{name} has no text in its field {chosen!r}; give another one by text=…")
    notes = [f"{name}: {len(kept):,} documents, field {chosen!r}."]
    if empty := len(texts) - len(kept):
        notes.append(f"{empty} document{'s are' if empty > 1 else ' is'} empty and left out.")
    return Text(name, END + "".join(text + END for text in kept)), tuple(notes)


def _record(name: str, number: int, line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"Line {number} of {name} is no JSON object: {error}; give one object a line.") from None


def _longest(name: str, records: list[dict[str, Any]]) -> str:
    lengths: dict[str, int] = {}
    for record in records:
        for field, value in record.items():
            if (text := _joined(value)) is not None:
                lengths[field] = lengths.get(field, 0) + len(text)
    if not lengths:
        raise DataError(f"{name} has no field that is a string or a list of strings; it has {', '.join(records[0])}.")
    return max(lengths, key=lambda field: lengths[field])


def _joined(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "".join(value)
    return value if isinstance(value, str) else None


def _text(name: str, number: int, record: dict[str, Any], field: str) -> str:
    if field not in record:
        raise DataError(f"Line {number} of {name} has no field {field!r}; it has {', '.join(record)}.")
    if (text := _joined(record[field])) is None:
        raise DataError(f"Line {number} of {name}: field {field!r} is neither a string nor a list of strings.")
    if END in text:
        raise DataError(
            f"Line {number} of {name}: field {field!r} has the character U+0003, which stands for the end of a "
            "document; take it out."
        )
    return text

"""Documents: texts that end, one a line of a .jsonl file."""

import os
from typing import Any

import msgspec

from recurra.data.gz import unpacked
from recurra.data.memory import items, records_of
from recurra.data.symbols import END
from recurra.data.table import decoded
from recurra.data.text import Text, read_bytes
from recurra.errors import DataError, InputError, kind_of


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
    return _joined_up(name, chosen, [_text(f"Line {n} of {name}", record, chosen) for n, record in records])


def documents_of_memory(data: Any, column: str | None = None) -> tuple[Text, tuple[str, ...]]:
    """The same of a list, an array or a Series of texts, or of a DataFrame. Raises InputError for other data."""
    name = "data"
    records = records_of(data)
    if records is None:
        given = items(data, name, "the path of a text file, a list or an array of texts, a DataFrame, or a Text")
        if (pair := next((n for n, text in enumerate(given) if not isinstance(text, str)), None)) is not None:
            raise InputError(f"data[{pair}] is {kind_of(given[pair])}; a language model is trained on texts alone.")
        records, column = [{"text": text} for text in given], "text"
    if not records:
        raise InputError("data has no texts; give at least some thousand characters.")
    chosen = _longest(name, records) if column is None else column
    return _joined_up(name, chosen, [_text(f"{name}[{n}]", record, chosen) for n, record in enumerate(records)])


def _joined_up(name: str, field: str, texts: list[str]) -> tuple[Text, tuple[str, ...]]:
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise DataError(f"{name} has no text in its field {field!r}; give another one by text=…")
    notes = [f"{name}: {len(kept):,} documents, field {field!r}."]
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


def _text(where: str, record: dict[str, Any], field: str) -> str:
    if field not in record:
        raise DataError(f"{where} has no field {field!r}; it has {', '.join(map(str, record))}.")
    if (text := _joined(record[field])) is None:
        raise DataError(f"{where}: field {field!r} is neither a string nor a list of strings.")
    if END in text:
        raise DataError(
            f"{where}: field {field!r} has the character U+0003, which stands for the end of a document; take it out."
        )
    return text

"""Tables: the rows of a .csv, .tsv or .jsonl file (also as .gz), of a .parquet file, or of what is in memory."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from recurra.data.gz import unpacked
from recurra.data.memory import items, records_of
from recurra.data.parquet import read_parquet
from recurra.data.text import read_bytes
from recurra.errors import DataError, InputError, kind_of

KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
NO_VALUE = ""


@dataclass(frozen=True)
class Table:
    """Rows of text. Whether the first row of a file names the columns is found by who reads them: see `columns`."""

    name: str
    rows: list[list[str]]  # all of one width
    lines: list[int]  # where each row begins in the file, from 1; in memory its place
    columns: list[str] | None = None  # None where only the first row can tell


def kind_of_table(path: str | os.PathLike[str]) -> str | None:
    """The suffix of a table's path without .gz, one of `KINDS`; None for another file."""
    suffix = Path(os.fspath(path).lower().removesuffix(".gz")).suffix
    return suffix if suffix in KINDS else None


def read_table(path: str | os.PathLike[str]) -> Table:
    """Reads a file by its suffix. DataError names file, line and byte of what cannot be read."""
    kind = kind_of_table(path)
    if kind is None:
        raise DataError(
            f"{os.fspath(path)} is no table by its name; tables end in {', '.join(KINDS)}, or in .gz after."
        )
    raw = read_bytes(path)
    if kind == ".parquet":
        return table_of_records(str(path), read_parquet(str(path), raw))
    content = decoded(path, unpacked(path, raw))
    table = _objects(str(path), content) if kind == ".jsonl" else _fields(str(path), content, kind)
    if not table.rows:
        raise DataError(f"{path} has no rows; give a table with a text and a label in each row.")
    return table


def table_of_memory(data: Any) -> Table:
    """A table of rows in memory: a DataFrame, a list or array of pairs (text, label), a list of dictionaries, or a
    dictionary of columns. Raises InputError."""
    name = "data"
    records = records_of(data)
    if records is not None:
        return _whole(table_of_records(name, records))
    given = items(data, name, "a path, a list or an array of (text, label) pairs or of dictionaries, or a DataFrame")
    for place, row in enumerate(given):
        if isinstance(row, str) or not (isinstance(row, Sequence) or hasattr(row, "__array__")) or len(row) != 2:
            size = f" of {len(row)}" if isinstance(row, Sequence) and not isinstance(row, str) else ""
            columns = "; two columns are given as list(zip(texts, labels))" if size and len(given) == 2 else ""
            raise InputError(
                f"data[{place}] is {kind_of(row)}{size}; each row is a pair (text, label), or a dictionary{columns}."
            )
    rows = [[_text_of(value) for value in row] for row in given]
    return _whole(Table(name, rows, list(range(len(rows))), ["text", "label"]))


def table_of_records(name: str, records: Iterable[Mapping[Any, Any]], lines: list[int] | None = None) -> Table:
    """A table of dictionaries; its columns are the keys of the first, and each must have them."""
    rows: list[list[str]] = []
    names: list[Any] | None = None
    for place, record in enumerate(records):
        names = names or list(record)
        line = lines[place] if lines else place
        if missing := [column for column in names if column not in record]:
            where = f"line {line} of {name}" if lines else f"{name}[{line}]"
            raise DataError(
                f"{where} has no {missing[0]!r}, which the first row has; it has {', '.join(map(str, record))}."
            )
        rows.append([_text_of(record[column]) for column in names])
    return Table(name, rows, lines or list(range(len(rows))), [str(column) for column in names or []])


def _whole(table: Table) -> Table:
    if not table.rows:
        raise InputError("data has no rows; give at least some of each label.")
    return table


def _text_of(value: Any) -> str:
    """A cell as text; None and a number that is none are no value."""
    if value is None or value != value:  # nan, as a DataFrame has it
        return NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):  # several labels
        return msgspec.json.encode(sorted(map(str, value))).decode()
    return str(value)


def read_content(path: str | os.PathLike[str]) -> str:
    """The UTF-8 text of a file, which may be packed. DataError names line and byte of what is none."""
    return decoded(path, unpacked(path, read_bytes(path)))


def decoded(path: str | os.PathLike[str], raw: bytes) -> str:
    """UTF-8, or a sentence with the line and byte where it is none, and how many lines are not."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        broken = [(n, e) for n, line in enumerate(raw.split(b"\n"), 1) if (e := _error_of(line)) is not None]
        number, error = broken[0]
        lines = "1 line is" if len(broken) == 1 else f"{len(broken)} lines are"
        raise DataError(
            f"{path} is not UTF-8 throughout: {lines} not, the first is line {number}, whose byte {error.start + 1} is "
            f"0x{error.object[error.start]:02x}; convert it (iconv -f GB18030 -t UTF-8 for Chinese, -f LATIN1 for "
            "western European text)."
        ) from None


def _error_of(line: bytes) -> UnicodeDecodeError | None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error
    return None


def _objects(name: str, content: str) -> Table:
    records, lines = [], []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(f"Line {number} of {name} is no JSON object: {error}; give one object a line.") from None
        lines.append(number)
    return table_of_records(name, records, lines)


def _fields(name: str, content: str, kind: str) -> Table:
    """Comma-separated rows with quotes as RFC 4180 has them; of tab-separated ones a quote is a character like any."""
    rows, lines = [], []
    lines_of, delimiter = io.StringIO(content, newline=""), _delimiter(content, kind)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if kind == ".tsv" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines_of, delimiter=delimiter, quoting=quoting)
    before = 0
    try:
        for row in reader:
            begins, before = before + 1, reader.line_num
            if not row:
                continue
            rows.append(row)
            lines.append(begins)
            if len(row) != len(rows[0]):
                raise DataError(
                    f"Line {begins} of {name} has {len(row)} fields but line {lines[0]} has {len(rows[0])}; put a "
                    "field that holds the delimiter or a line break in quotes, or give .jsonl."
                )
    except csv.Error as error:
        raise DataError(f"Line {before + 1} of {name} cannot be read: {error}; give it as .jsonl.") from None
    return Table(name, rows, lines)


def _delimiter(content: str, kind: str) -> str:
    """A tab; or, of comma and semicolon, that which the first line has more often."""
    if kind == ".tsv":
        return "\t"
    first = content[: content.find("\n")] if "\n" in content else content
    return max(",", ";", key=first.count)

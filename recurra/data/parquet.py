"""Parquet files. The only home of pyarrow."""

import io
from typing import Any

from recurra.errors import DataError


def read_parquet(name: str, raw: bytes) -> list[dict[str, Any]]:
    """The rows of a file as dictionaries. DataError where pyarrow is missing or cannot read it."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise DataError(
            f"{name} is a Parquet file, and pyarrow, which reads them, is not installed; pip install pyarrow, or give "
            "the table as .csv or .jsonl."
        ) from None
    try:
        rows: list[dict[str, Any]] = read_table(io.BytesIO(raw)).to_pylist()
    except ArrowException as error:
        raise DataError(f"{name} is no Parquet file: {error}.") from None
    return rows

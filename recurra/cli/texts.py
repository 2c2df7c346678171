"""Texts of a command: its arguments, the lines of a file, or those of standard input."""

import sys
from collections.abc import Sequence

from recurra.data.gz import unpacked
from recurra.data.table import decoded
from recurra.data.text import read_bytes
from recurra.errors import InputError


def given_texts(texts: Sequence[str], file: str | None) -> list[str]:
    """The texts, one a line where they come from a file; blank lines, which say nothing, are counted and said."""
    if texts and file is not None:
        raise InputError(f"Both texts and --file {file} are given; give one of them.")
    if texts:
        return list(texts)
    lines = read_lines(file)[1].splitlines()
    kept = [line for line in lines if line.strip()]
    if blank := len(lines) - len(kept):
        print(f"recurra: {blank} blank line{'s were' if blank > 1 else ' was'} left out", file=sys.stderr)
    if not kept:
        raise InputError(f"{file or 'Standard input'} holds no text; give at least one line.")
    return kept


def read_lines(file: str | None) -> tuple[str, str]:
    """The name and the text of a file, or of standard input; DataError names the line and byte that are not UTF-8."""
    if file is None:
        return "standard input", decoded("standard input", sys.stdin.buffer.read())
    return file, decoded(file, unpacked(file, read_bytes(file, "at least one line")))

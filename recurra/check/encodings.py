"""Bytes that are not UTF-8: which lines, which byte, and what they probably are."""

import gzip
import zlib
from pathlib import Path

from recurra.check.problems import Problem, some

_READ = 64 * 2**20  # bytes of a file that are looked at
_SHOWN = 5
_TEXT = (".txt", ".csv", ".tsv", ".jsonl", ".conll", ".conllu", ".bio", ".bmes", ".in", ".out", ".label")


def encodings(path: Path) -> list[Problem]:
    """The lines of a file, or of the files of a folder, that are not UTF-8. [] for what cannot be read as bytes."""
    if path.is_dir():
        try:
            files = sorted(each for each in path.iterdir() if each.is_file() and _is_text(each))
        except OSError:
            return []
        return [problem for file in files for problem in encodings(file)]
    if not path.is_file():
        return []
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            raw = file.read(_READ)
    except (OSError, EOFError, zlib.error):
        return []
    if path.suffix == ".parquet" or b"\0" in raw[:_READ]:
        return []
    return _broken(path, raw)


def _is_text(path: Path) -> bool:
    return Path(path.name.lower().removesuffix(".gz")).suffix in _TEXT or path.name == "label"


def _broken(path: Path, raw: bytes) -> list[Problem]:
    whole = raw.decode("utf-8", "surrogateescape").split("\n")
    lines = [(number, line) for number, line in enumerate(whole, 1) if any("\udc80" <= c <= "\udcff" for c in line)]
    if not lines:
        return []
    shown = "; ".join(_told(number, line) for number, line in lines[:_SHOWN]) + (" …" if len(lines) > _SHOWN else "")
    kind = "mixes encodings" if len(lines) < len([line for line in whole if not line.isascii()]) else "is not UTF-8"
    what = (
        f"{path} {kind}: {some(len(lines), 'line')} cannot be read as UTF-8 ({shown}); convert them (iconv -t UTF-8)."
    )
    return [Problem("error", what, len(lines))]


def _told(number: int, line: str) -> str:
    """ "line 3, byte 12: 0xe9, probably LATIN1: café"."""
    raw = line.encode("utf-8", "surrogateescape")
    place = len(
        line[: next(n for n, c in enumerate(line) if "\udc80" <= c <= "\udcff")].encode("utf-8", "surrogateescape")
    )
    name, text = _guess(raw)
    return f"line {number}, byte {place + 1}: 0x{raw[place]:02x}, probably {name}: {text.strip()[:30]!r}"


def _guess(raw: bytes) -> tuple[str, str]:
    """Chinese where the bytes are pairs of GB18030 that give Chinese characters, else western European."""
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return "LATIN1", raw.decode("latin-1")
    han = sum("\u4e00" <= c <= "\u9fff" for c in text)
    high = sum(byte >= 0x80 for byte in raw)
    return ("GB18030", text) if han and 2 * han >= 0.8 * high and high >= 4 else ("LATIN1", raw.decode("latin-1"))

"""The caches of a core, as Linux tells them, and in which of them weights stay from step to step."""

from functools import cache
from pathlib import Path

FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_STAYS = 0.75  # of a cache, beside the rows that pass through it


@cache
def caches(folder: Path = FOLDER) -> dict[str, int]:
    """Bytes of each cache that holds data, by "L1", "L2", ...; empty where the system does not tell."""
    found = {}
    for index in sorted(folder.glob("index[0-9]*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        digits, unit = size.rstrip("KMG"), _UNITS.get(size[-1:], 1)
        if kind != "Instruction" and digits.isdecimal():
            found[f"L{level}"] = int(digits) * unit
    return dict(sorted(found.items()))


def level_of(size: int, folder: Path = FOLDER) -> str:
    """The nearest cache in which so many bytes stay; "memory" where none is large enough; "" where none is known."""
    known = caches(folder)
    return next((name for name, room in known.items() if size <= _STAYS * room), "memory" if known else "")

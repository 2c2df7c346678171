"""Numbers as an explanation writes them: three digits and a unit."""

_THOUSANDS = ("", " thousand", " million", " G", " T")


def in_bytes(count: float) -> str:
    """ "1.05 MB"."""
    return _scaled(count, (" bytes", " KB", " MB", " GB"))


def in_all(count: float) -> str:
    """ "268 million"."""
    return _scaled(count, _THOUSANDS)


def in_time(seconds: float) -> str:
    """ "28 us"."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def per_cent(part: float) -> str:
    """ "37 %"."""
    return f"{100 * part:.0f} %"


def several(count: int, what: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _scaled(count: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}{units[-1]}"

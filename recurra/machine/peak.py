"""What this machine can do at most, measured once a process when somebody asks: multiply-adds, and reads."""

from functools import cache

from recurra.machine.program import KINDS, library


@cache
def multiply_rate(precision: str, threads: int) -> float:
    """Multiply-adds a second of so many threads together, out of registers, in one of the precisions of the machine."""
    rate: float = library.multiply_rate(KINDS[precision], threads)
    return rate


@cache
def read_rate(size: int, threads: int) -> float:
    """Bytes a second of so many threads together, each reading `size` bytes again and again."""
    rate: float = library.read_rate(size, threads)
    return rate

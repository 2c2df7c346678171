"""What data is, what is wrong with it, and what training on it will take."""

from recurra.check.checking import check
from recurra.check.result import Check

__all__ = ["Check", "check"]

"""Several models on the same data: each a run of its own, in a process of its own."""

from recurra.compare.comparing import compare
from recurra.compare.result import Comparison

__all__ = ["Comparison", "compare"]

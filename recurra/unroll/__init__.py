"""The one door to speed: `unroll` means what `scan` means, and chooses who runs it; `explain` says who did."""

from recurra.unroll.door import unroll, unroll_packed
from recurra.unroll.explanation import Description, Explanation, describe, explain
from recurra.unroll.notes import Visit, strict, visits
from recurra.unroll.recording import Recording
from recurra.unroll.stepper import Stepper

__all__ = [
    "Description",
    "Explanation",
    "Recording",
    "Stepper",
    "Visit",
    "describe",
    "explain",
    "strict",
    "unroll",
    "unroll_packed",
    "visits",
]

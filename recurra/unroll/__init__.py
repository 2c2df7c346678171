"""The one door to speed: `unroll` means what `scan` means, and chooses who runs it; `explain` says who did."""

from recurra.unroll.call import Call
from recurra.unroll.door import unroll, unroll_packed, unrolling, unrolling_packed
from recurra.unroll.explanation import Description, Explanation, describe, explain
from recurra.unroll.notes import Visit, strict, visits
from recurra.unroll.recording import Recording
from recurra.unroll.stepper import Stepper
from recurra.unroll.work import Pending, finish_both

__all__ = [
    "Call",
    "Description",
    "Explanation",
    "Pending",
    "Recording",
    "Stepper",
    "Visit",
    "describe",
    "explain",
    "finish_both",
    "strict",
    "unroll",
    "unroll_packed",
    "unrolling",
    "unrolling_packed",
    "visits",
]

"""The one door to speed: `unroll` means what `scan` means, and chooses who runs it; `explain` says who did."""

from recurra.unroll.call import Call
from recurra.unroll.door import answer, answer_both, unroll
from recurra.unroll.explanation import Description, Explanation, describe, explain
from recurra.unroll.notes import Visit, as_weights_are, strict, visits
from recurra.unroll.recording import Recording
from recurra.unroll.stepper import Stepper

__all__ = [
    "Call",
    "Description",
    "Explanation",
    "Recording",
    "Stepper",
    "Visit",
    "answer",
    "answer_both",
    "as_weights_are",
    "describe",
    "explain",
    "strict",
    "unroll",
    "visits",
]

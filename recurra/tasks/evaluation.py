"""The result of measuring a language model on a text."""

import math
from dataclasses import dataclass, field

from recurra.tasks import measure
from recurra.tasks.measure import Measure


def _bits(nats: float) -> float:
    return nats / math.log(2)


BITS = Measure("bits per character", "bits/char", lower_is_better=True, of_loss=_bits)


@dataclass(frozen=True)
class Evaluation:
    """How well the characters of a text were predicted, each from those before it."""

    loss: float  # mean negative log-likelihood, nats per character
    characters: int  # predicted characters: all but the first
    text: str  # the name of the text, or of the part of it that was measured
    unknown: dict[str, int] = field(default_factory=dict)  # characters the vocabulary lacks, with how often they occur
    baselines: dict[str, float] = field(default_factory=dict)  # bits per character of n-gram models on the same text
    note: str = ""  # what a reader must know to take the numbers rightly

    @property
    def bits_per_character(self) -> float:
        """The loss in bits: -log2 p, averaged."""
        return _bits(self.loss)

    @property
    def verdict(self) -> str:
        """One line that says plainly who is ahead."""
        return verdict(self.bits_per_character, self.baselines)

    def __str__(self) -> str:
        over = _characters(self.characters)
        lines = [f"{self.text}: {self.bits_per_character:.4f} bits per character over {over}."]
        if self.unknown:
            shown = " ".join(repr(c) for c in list(self.unknown)[:8]) + (" …" if len(self.unknown) > 8 else "")
            count = sum(self.unknown.values())
            are, were = ("is", "was") if count == 1 else ("are", "were")
            lines.append(
                f"{_characters(count)} ({shown}) {are} not in the model's vocabulary and {were} read as the reserved "
                "unknown symbol."
            )
        return "\n".join([*lines, self.verdict, *([self.note] if self.note else [])])


def verdict(bits: float, baselines: dict[str, float]) -> str:
    """Who is ahead, the model or one of the baselines, with everyone's bits per character; equal figures are level."""
    return measure.verdict(bits, baselines, BITS)


def _characters(count: int) -> str:
    return f"{count:,} character{'' if count == 1 else 's'}"

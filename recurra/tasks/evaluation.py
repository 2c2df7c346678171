"""The result of measuring a language model on a text."""

import math
from dataclasses import dataclass, field


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
        return self.loss / math.log(2)

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
    if not baselines:
        return f"The model has {bits:.3f} bits per character; there is no baseline to compare it with."
    figures = {name: round(value, 3) + 0.0 for name, value in {"the model": bits, **baselines}.items()}  # no -0.000
    least = min(figures.values())
    *more, last = [_the(name) for name, value in figures.items() if value == least]
    first = f"{', '.join(more)} and {last}" if more else last
    others = ", ".join(f"{n} {v:.3f}" for n, v in sorted(figures.items(), key=lambda row: row[1]) if v > least)
    behind = f"; behind {'them' if more else 'it'} {others}" if others else ""
    ahead = "are level" if more else "is ahead"
    return f"{first[0].upper()}{first[1:]} {ahead} with {least:.3f} bits per character{behind}."


def _the(name: str) -> str:
    return f"the {name.removeprefix('the ')}"


def _characters(count: int) -> str:
    return f"{count:,} character{'' if count == 1 else 's'}"

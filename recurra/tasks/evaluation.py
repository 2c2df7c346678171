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
        lines = [f"{self.text}: {self.bits_per_character:.4f} bits per character over {self.characters:,} characters."]
        if self.unknown:
            shown = " ".join(repr(c) for c in list(self.unknown)[:8]) + (" …" if len(self.unknown) > 8 else "")
            lines.append(
                f"{sum(self.unknown.values())} characters ({shown}) are not in the model's vocabulary and were read as "
                "the reserved unknown symbol."
            )
        return "\n".join([*lines, self.verdict, *([self.note] if self.note else [])])


def verdict(bits: float, baselines: dict[str, float]) -> str:
    """Who is ahead, the model or one of the baselines, with everyone's bits per character."""
    if not baselines:
        return f"The model has {bits:.3f} bits per character; there is no baseline to compare it with."
    (best, least), *rest = sorted([("the model", bits), *baselines.items()], key=lambda row: row[1])
    others = ", ".join(f"{name} {value:.3f}" for name, value in rest)
    name = best if best == "the model" else f"the {best}"
    return f"{name[0].upper()}{name[1:]} is ahead with {least:.3f} bits per character; behind it {others}."

"""The result of measuring a language model on a text; perplexity and bits per character, defined once.

    loss = -(1/N) Σ_t ln p(s_t | s_{<t}),    perplexity = e^loss,    bits per character = N loss / (C ln 2),

over N symbols s_t, which together have C characters.
"""

import math
from dataclasses import dataclass, field

from recurra.data.symbols import Kind, Vocabulary
from recurra.tasks import measure
from recurra.tasks.measure import Measure


def bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """Among how many equally likely symbols one would be as uncertain; infinite where no number can say it."""
    return math.exp(nats) if nats < 700 else math.inf


def bits_per_character(loss: float, symbols: int, characters: int) -> float:
    """Of a mean loss (nats) over so many symbols that have so many characters."""
    return bits(loss * symbols) / characters


def counted(vocabulary: Vocabulary, text: str) -> tuple[int, int]:
    """How many symbols of a text are predicted, all but the first, and how many characters they have."""
    if vocabulary.kind == "characters":
        return len(text) - 1, len(text) - 1
    found = vocabulary.split(text)
    return len(found) - 1, len(text) - (text.index(found[0]) + len(found[0]))


BITS = Measure("bits per character", "bits/char", lower_is_better=True, of_loss=bits)
PERPLEXITY = Measure("perplexity", "perplexity", lower_is_better=True, of_loss=perplexity)
MEASURES: dict[Kind, Measure] = {"characters": BITS, "words": PERPLEXITY, "bpe": PERPLEXITY}
NOUNS: dict[Kind, str] = {"characters": "character", "words": "word", "bpe": "piece"}


@dataclass(frozen=True)
class Evaluation:
    """How well the symbols of a text were predicted, each from those before it."""

    loss: float  # mean negative log-likelihood, nats per symbol
    characters: int  # of the predicted symbols
    text: str  # the name of the text, or of the part of it that was measured
    unknown: dict[str, int] = field(default_factory=dict)  # symbols the vocabulary lacks, with how often they occur
    baselines: dict[str, float] = field(default_factory=dict)  # the measure of n-gram models on the same text
    note: str = ""  # what a reader must know to take the numbers rightly
    symbols: int = 0  # predicted symbols: all but the first; 0 where they are the characters
    kind: Kind = "characters"  # what the symbols are

    @property
    def bits_per_character(self) -> float:
        """-log2 p of all that was predicted, over its characters."""
        return bits_per_character(self.loss, self.symbols or self.characters, self.characters)

    @property
    def perplexity(self) -> float:
        """Per symbol: per character, per word, or per piece."""
        return perplexity(self.loss)

    @property
    def measure(self) -> Measure:
        """The one that models of these symbols are compared by."""
        return MEASURES[self.kind]

    @property
    def verdict(self) -> str:
        """One line that says plainly who is ahead."""
        return measure.verdict(self.measure.of(self.loss) or 0.0, self.baselines, self.measure)

    def __str__(self) -> str:
        over = _counted(self.symbols or self.characters, self.kind)
        noun = NOUNS[self.kind]
        in_bits = f"{self.bits_per_character:.4f} bits per character"
        if self.kind == "characters":
            lines = [f"{self.text}: {in_bits} over {over}. Perplexity {self.perplexity:.3f}, {self.loss:.4f} nats."]
        else:
            per = f"perplexity {self.perplexity:.2f} per {noun}"
            lines = [f"{self.text}: {per} over {over}. That is {in_bits}, {self.loss:.4f} nats per {noun}."]
        if self.unknown:
            shown = " ".join(repr(c) for c in list(self.unknown)[:8]) + (" …" if len(self.unknown) > 8 else "")
            count = sum(self.unknown.values())
            are, were = ("is", "was") if count == 1 else ("are", "were")
            lines.append(
                f"{_counted(count, self.kind)} ({shown}) {are} not in the model's vocabulary and {were} read as the "
                "reserved unknown symbol."
            )
        return "\n".join([*lines, self.verdict, *([self.note] if self.note else [])])


def verdict(value: float, baselines: dict[str, float], of: Measure = BITS) -> str:
    """Who is ahead, the model or one of the baselines, with everyone's figure; equal figures are level."""
    return measure.verdict(value, baselines, of)


def _counted(count: int, kind: Kind) -> str:
    return f"{count:,} {NOUNS[kind]}{'' if count == 1 else 's'}"

"""Filling the blank of a sentence: what stands best between its left and its right.

Candidates are scored with the whole sentence (`recurra.tasks.infilling`). Probabilities are those of the candidates
against one another, softmax of ln p.

Where the blank ends the sentence, the mark that ends it is open too: "sky." and "sky!" are both the candidate "sky",
whose probability is the sum of theirs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recurra.data.symbols import END, UNKNOWN, Vocabulary
from recurra.data.words import stand_apart
from recurra.errors import InputError, kind_of
from recurra.tasks.infilling import Allowed

BLANK = "____"
_RUN = re.compile(r"[_＿]{2,}")
_ENDS = "。．.！!？?…～~"  # marks that end a sentence
_LINE_ENDS = {"\n", END}


@dataclass(frozen=True)
class Candidate:
    """What may stand in the blank."""

    text: str
    probability: float  # of the candidates that were considered
    log_probability: float  # ln p of the whole sentence with it


@dataclass(frozen=True)
class Filling:
    """The candidates for the blank of a sentence, the likeliest first."""

    sentence: str
    candidates: list[Candidate]
    considered: int  # how many candidates there were
    left: str
    right: str

    @property
    def best(self) -> str:
        """The sentence with the likeliest candidate."""
        return f"{self.left}{self.candidates[0].text}{self.right}"

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"{c.probability:8.4f}  {c.text}" for c in self.candidates)])


def cut_at_blank(sentence: str, blank: str | None) -> tuple[str, str]:
    """What stands left and right of the blank. InputError when there is none, or several, or nothing else."""
    if not isinstance(sentence, str):
        raise InputError(f"sentence is {kind_of(sentence)}; give a string with a blank in it, as in 'The cat {BLANK}.'")
    if blank is not None and (not isinstance(blank, str) or not blank.strip()):
        raise InputError(f"blank={blank!r} cannot mark a blank; give some characters that the sentence has once.")
    if not sentence.strip():
        raise InputError(f"The sentence is empty; give one with a blank in it, as in 'The cat {BLANK}.'")
    found = list((_RUN if blank is None else re.compile(re.escape(blank))).finditer(sentence))
    form = BLANK if blank is None else blank
    if not found:
        raise InputError(f"The sentence {sentence!r} has no blank; write {form} where something is missing.")
    if len(found) > 1:
        raise InputError(
            f"The sentence {sentence!r} has {len(found)} blanks, and one is filled at a time; write words in the "
            "others, or choose another form for the blank, as in blank='[?]'."
        )
    left, right = sentence[: found[0].start()], sentence[found[0].end() :]
    if not (left + right).strip():
        raise InputError(f"The sentence {sentence!r} is a blank alone; give words on its left or right.")
    return left, right


@dataclass(frozen=True)
class Sides:
    """What is read left and right of the blank, and what the symbols that fill it begin and end with beside."""

    left: str
    right: str
    begins: str = ""
    ends: str = ""

    def allowed(self, vocabulary: Vocabulary) -> Allowed:
        """Symbols that a candidate may have: not the unknown one, nor what ends a line or document."""
        texts = [vocabulary.text(number) for number in range(len(vocabulary))]
        inside = torch.tensor([n != UNKNOWN and not _LINE_ENDS & set(text) for n, text in enumerate(texts)])
        first = torch.tensor([text.startswith(self.begins) for text in texts])
        last = torch.tensor([text.endswith(self.ends) for text in texts])
        marks = torch.tensor([text.strip() != "" and not text.strip(_ENDS) for text in texts])
        return Allowed(inside & first, inside, inside & last, inside & last & marks)

    def text(self, filled: str) -> str:
        """What stands in the blank itself, of the symbols that fill it."""
        return filled[len(self.begins) : len(filled) - len(self.ends)]


def sides(vocabulary: Vocabulary, left: str, right: str) -> Sides:
    """What is read of each side. A word that the blank is a part of is no symbol yet: it belongs to the candidates.

    Of "the un____." the words that are read are "the", and candidates are the words of the vocabulary that begin with
    "un" and end with "."; pieces of words (BPE) hold the blank before them.
    """
    if vocabulary.kind == "words":
        begins = vocabulary.split(left)[-1] if left and stand_apart(left, left) and not left[-1].isspace() else ""
        ends = vocabulary.split(right)[0] if right and stand_apart(right[0], right) and not right[0].isspace() else ""
        return Sides(left.removesuffix(begins), right.removeprefix(ends), begins, ends)
    if vocabulary.kind == "bpe" and left.endswith(" ") and any(s.startswith(" ") for s in vocabulary.symbols):
        return Sides(left[:-1], right, " ")
    return Sides(left, right)


def check_count(value: object, name: str) -> None:
    """InputError when so many cannot be found or shown."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name}={value!r} cannot be used; give a whole number of 1 or more.")


def shares(nats: Sequence[float]) -> list[float]:
    """Probabilities of candidates against one another."""
    p: list[float] = torch.tensor(np.array(nats)).softmax(0).tolist()
    return p


def without_marks(found: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Candidates whatever marks end them: ln of the sum of their probabilities. A mark alone is none."""
    sums: dict[str, list[float]] = {}
    for text, nats in found:
        if word := text.rstrip(_ENDS):
            sums.setdefault(word, []).append(nats)
    return [(word, float(np.logaddexp.reduce(each))) for word, each in sums.items()]

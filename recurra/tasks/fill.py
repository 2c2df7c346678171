"""Filling the blank of a sentence: what stands best between its left and its right.

A candidate c, of one to `longest` symbols, is scored with the whole sentence,

    ln p(left c right end) = ln p(left) + ln p(c | left) + ln p(right end | left c),

though the left is read once only. Every symbol of the vocabulary is a candidate; the candidates of two symbols and
more are those that a beam search finds likely after the left. The right is read on from each candidate's own state, all
side by side, and a candidate that has fallen far behind the best is given up. Probabilities are those of the candidates
against one another, softmax of ln p.

Where the blank ends the sentence, the mark that ends it is open too: "sky." and "sky!" are both the candidate "sky",
whose probability is the sum of theirs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from recurra.data.symbols import END, UNKNOWN, Vocabulary
from recurra.data.words import stand_apart
from recurra.errors import InputError, kind_of
from recurra.tasks.reading import Ints, Position, Reader

BLANK = "____"
_RUN = re.compile(r"[_＿]{2,}")
_FIRST = 4096  # candidates of one symbol, the likeliest after the left; all of them in most vocabularies
_BEAM = 256  # beginnings that the search goes on from with one symbol more
_ENDS = "。．.！!？?…～~"  # marks that end a sentence
_LINE_ENDS = {"\n", END}
_BEHIND = 14.0  # nats behind the best so far at which a candidate is given up: at most e^-14 of its probability


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
class Allowed:
    """Which symbols (V,) a candidate may begin with, hold, and end with."""

    first: Tensor
    inside: Tensor
    last: Tensor


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
        return Allowed(inside & first, inside, inside & last)

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


@dataclass
class _Open:
    """Candidates that are being read: their symbols (N, longest), -1 past their ends; ln p so far; where they are."""

    symbols: Tensor
    nats: Tensor
    position: Position

    def take(self, rows: Tensor) -> "_Open":
        return _Open(self.symbols[rows], self.nats[rows], self.position.take(rows))

    def within(self, nats: float) -> "_Open":
        """Those that are not so far behind the best."""
        return self.take((self.nats >= self.nats.max() - nats).nonzero()[:, 0])


def _joined(parts: Sequence[_Open]) -> _Open:
    position = parts[0].position.joined([part.position for part in parts[1:]])
    return _Open(torch.cat([p.symbols for p in parts]), torch.cat([p.nats for p in parts]), position)


@torch.no_grad()
def search(
    reader: Reader, left: Ints, right: Ints, allowed: Allowed, longest: int
) -> tuple[list[tuple[list[int], float]], int]:
    """The likeliest that may stand between `left` and `right`, with ln p(c right | left); and how many there were."""
    at = _Open(torch.full((1, longest), -1), torch.zeros(1, dtype=torch.float64), reader.after(left))
    whole: list[_Open] = []
    considered = 0
    for depth in range(longest):
        beginnings: list[_Open] = []
        for grown in _grown(reader, at, allowed, depth):
            if not beginnings:  # the likeliest come first
                beginnings.append(grown.take(torch.arange(min(_BEAM, len(grown.nats)))))
            ended = grown.take(allowed.last[grown.symbols[:, depth]].nonzero()[:, 0])
            if not len(ended.nats):
                continue
            considered += len(ended.nats)
            if len(right):
                ended.nats = ended.nats + ended.position.of(torch.full(ended.nats.shape, int(right[0])))
            whole.append(ended.within(_BEHIND))
        if not beginnings:
            break
        at = beginnings[0]
    if not whole:
        return [], 0
    found = _joined(whole).within(_BEHIND)
    for read, target in pairwise(right.tolist()):
        found = _joined(list(_read_on(reader, found, read, target))).within(_BEHIND)
    order = found.nats.argsort(descending=True, stable=True)
    rows = zip(found.symbols[order].tolist(), found.nats[order].tolist(), strict=True)
    return [([n for n in symbols if n >= 0], nats) for symbols, nats in rows], considered


def _grown(reader: Reader, at: _Open, allowed: Allowed, depth: int) -> Iterator[_Open]:
    """The likeliest candidates with one symbol more, by falling ln p, in pieces that are read at once."""
    nats = at.position.following() + at.nats[:, None]
    nats[:, ~(allowed.inside if depth else allowed.first)] = -torch.inf
    kept = min(_BEAM if depth else _FIRST, int((nats > -torch.inf).sum()))
    best, place = nats.flatten().topk(kept)
    rows, numbers = place // reader.symbols, place % reader.symbols
    symbols = at.symbols[rows]
    symbols[:, depth] = numbers
    size = max(_BEAM, reader.most_rows)
    for n in range(0, kept, size):
        piece = slice(n, n + size)
        yield _Open(symbols[piece], best[piece], at.position.read(rows[piece], numbers[piece]))


def _read_on(reader: Reader, at: _Open, number: int, target: int) -> Iterator[_Open]:
    """All candidates after one symbol more of the right, with ln p of the next one, in pieces."""
    for rows in torch.split(torch.arange(len(at.nats)), reader.most_rows):
        position = at.position.read(rows, torch.full(rows.shape, number))
        yield _Open(at.symbols[rows], at.nats[rows] + position.of(torch.full(rows.shape, target)), position)


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

"""Searching for what stands between a left and a right.

A candidate c, of one to `longest` symbols, is scored with all of it,

    ln p(left c right) = ln p(left) + ln p(c | left) + ln p(right | left c),

though the left is read once only. Every symbol of the vocabulary is a candidate; the candidates of two symbols and
more are those that a beam search finds likely after the left. The right is read on from each candidate's own state, all
side by side, and a candidate that has fallen far behind the best is given up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from recurra.tasks.reading import Ints, Position, Reader

_FIRST = 4096  # candidates of one symbol, the likeliest after the left; all of them in most vocabularies
_BEAM = 256  # beginnings that the search goes on from with one symbol more
_BEHIND = 10.0  # nats behind the best so far at which a candidate is given up: e^-10 of its probability


@dataclass(frozen=True)
class Allowed:
    """Which symbols (V,) a candidate may begin with, hold, and end with, and which marks may follow the longest."""

    first: Tensor
    inside: Tensor
    last: Tensor
    marks: Tensor


@dataclass
class _Open:
    """Candidates that are being read: their symbols (N, longest), -1 past their ends; ln p so far; where they are."""

    symbols: Tensor
    nats: Tensor
    position: Position

    def take(self, rows: Tensor) -> "_Open":
        return _Open(self.symbols[rows], self.nats[rows], self.position.take(rows))

    def kept(self, least: int) -> "_Open":
        """Those that are not given up."""
        return self.take((self.nats >= _bound(self.nats, least)).nonzero()[:, 0])


def _bound(nats: Tensor, least: int) -> float:
    """ln p below which a candidate is given up: far behind the best, and behind the best `least`."""
    if len(nats) < least:
        return -torch.inf
    best = nats.topk(least).values
    return min(float(best[0]) - _BEHIND, float(best[-1]))


def _joined(parts: Sequence[_Open]) -> _Open:
    position = parts[0].position.joined([part.position for part in parts[1:]])
    return _Open(torch.cat([p.symbols for p in parts]), torch.cat([p.nats for p in parts]), position)


@torch.no_grad()
def search(
    reader: Reader, left: Ints, right: Ints, allowed: Allowed, longest: int, least: int, is_last: bool
) -> tuple[list[tuple[list[int], float]], int]:
    """The likeliest candidates with ln p(c right | left), the best first; and how many there were.

    least: how many are read to the end, however far behind they are. is_last: a mark may follow the longest of them.
    """
    masks = [allowed.first, *[allowed.inside] * (longest - 1), *([allowed.marks] if is_last else [])]
    at = _Open(torch.full((1, len(masks)), -1), torch.zeros(1, dtype=torch.float64), reader.after(left))
    whole: list[_Open] = []
    considered = 0
    for depth, mask in enumerate(masks):
        if not mask.any() or not len(at.nats):
            break
        at, ended, count = _one_more(reader, at, mask, allowed.last, depth, torch.from_numpy(right[:1]), least)
        whole += ended
        considered += count
    if not whole:
        return [], 0
    found = _joined(whole).kept(least)
    for symbol, target in pairwise(right.tolist()):
        found = _joined(list(_read_on(reader, found, symbol, target))).kept(least)
    order = found.nats.argsort(descending=True, stable=True)
    rows = zip(found.symbols[order].tolist(), found.nats[order].tolist(), strict=True)
    return [([n for n in symbols if n >= 0], nats) for symbols, nats in rows], considered


def _one_more(
    reader: Reader, at: _Open, mask: Tensor, last: Tensor, depth: int, first: Tensor, least: int
) -> tuple[_Open, list[_Open], int]:
    """Candidates with one symbol more: the likeliest, which others begin with; those that end here, with ln p of the
    right's `first` symbol, if it has one; and how many those were."""
    nats = at.position.following() + at.nats[:, None]
    nats[:, ~mask] = -torch.inf
    nats, place = nats.flatten().topk(min(_BEAM if depth else _FIRST, int((nats > -torch.inf).sum())))
    rows, numbers = place // reader.symbols, place % reader.symbols
    symbols = at.symbols[rows]
    symbols[:, depth] = numbers
    ends = last[numbers]
    beginnings, whole = at.take(torch.arange(0)), list[_Open]()
    for piece in torch.split(torch.arange(len(nats)), max(_BEAM, reader.most_rows // 8)):
        if whole and float(nats[piece[0]]) < _bound(torch.cat([each.nats for each in whole]), least):
            break  # these and all after them are given up before the right is read, for it adds nothing to ln p
        read = _Open(symbols[piece], nats[piece], at.position.read(rows[piece], numbers[piece]))
        if not len(beginnings.nats):
            beginnings = read.take(torch.arange(min(_BEAM, len(piece))))
        ended = read.take(ends[piece].nonzero()[:, 0])
        if len(ended.nats):
            ended.nats = ended.nats + (ended.position.of(first.expand(len(ended.nats))) if len(first) else 0.0)
            whole.append(ended.kept(least))
    return beginnings, whole, int(ends.sum())


def _read_on(reader: Reader, at: _Open, number: int, target: int) -> Iterator[_Open]:
    """All candidates after one symbol more of the right, with ln p of the next one, in pieces."""
    for rows in torch.split(torch.arange(len(at.nats)), reader.most_rows):
        position = at.position.read(rows, torch.full(rows.shape, number))
        yield _Open(at.symbols[rows], at.nats[rows] + position.of(torch.full(rows.shape, target)), position)

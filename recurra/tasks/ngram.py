"""n-gram models of symbols with interpolated Kneser-Ney smoothing: what a recurrent network has to beat.

    p_k(c | u) = max(a(uc) - D(a(uc)), 0) / a(u) + γ(u) p_{k-1}(c | u'),      p_0(c) = 1 / V,
    γ(u) = Σ_c min(a(uc), D(a(uc))) / a(u),     a(u) = Σ_c a(uc),

where u' is the context u without its first symbol, and a is the count in the text for the highest order and, for
each lower one, the continuation count: in how many different symbols c' the text has c'uc. The three discounts D(1),
D(2), D(3 and more) of each order are those of Chen & Goodman 1998 (TR-10-98, "modified"; Kneser & Ney 1995):

    Y = n_1 / (n_1 + 2 n_2),   D(i) = i - (i + 1) Y n_{i+1} / n_i,   n_i = how many k-grams have a = i.

A k-gram is named by a number: its place among the sorted pairs (number of its first k-1 symbols, last symbol). So
any order fits 64-bit integers, and counting and looking up are sorts and binary searches over whole texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.symbols import UNKNOWN, Characters, Vocabulary
from recurra.errors import InputError
from recurra.tasks.decoding import Decoder, check_length, check_prompt
from recurra.tasks.evaluation import bits_per_character, counted
from recurra.tasks.reading import Position, Reader
from recurra.tasks.scorer import Scorer
from recurra.tasks.scoring import divider

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_LEAST = np.finfo(np.float64).tiny  # ln p of what counts hold for impossible stays a number


@dataclass(frozen=True)
class _Order:
    """One order's tables: k-grams by sorted key, and for each context what is discounted."""

    keys: Ints  # (G,) sorted: number of the context times V, plus the last character
    counts: Ints  # (G,) a(uc)
    totals: Ints  # (contexts,) a(u)
    gamma: Floats  # (contexts,) γ(u); 1 for a context that was never followed by anything
    discounts: Floats  # (4,): 0, D(1), D(2), D(3 and more)

    def find(self, context: Ints, last: Ints, symbols: int) -> Ints:
        """Numbers of the k-grams (context, last); -1 for those the text does not have."""
        wanted = context * symbols + last
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((context >= 0) & (self.keys[place] == wanted), place, -1)

    def mix(self, context: Ints, gram: Ints, lower: Floats) -> Floats:
        """p_k from p_{k-1}: contexts that the text does not have leave it as it is."""
        count = np.where(gram >= 0, self.counts[gram], 0)
        share = (count - self.discounts[np.minimum(count, 3)]) / np.maximum(self.totals[context], 1)
        return np.where(context >= 0, share + self.gamma[context] * lower, lower)


class NGram(Scorer):
    """An interpolated Kneser-Ney model of any order; order 1 is the unigram model.

    It answers as a trained network does: `loss(text)`, `bits_per_character(text)`, `generate(prompt, …)`, `stream(…)`,
    `score`, `fill`, `rank`. vocabulary: its symbols; None for the characters of the text.
    """

    def __init__(self, text: str, order: int, vocabulary: Vocabulary | None = None) -> None:
        if order < 1:
            raise InputError(f"An n-gram model needs an order of 1 or more, but order={order}.")
        self.order = order
        self.vocabulary = vocabulary or Characters(text)
        self._tables = _count(self.vocabulary.encode(text), order, len(self.vocabulary))
        self._begins = 1  # ends of sentences before a sentence

    @classmethod
    def of_sentences(cls, text: str, order: int, vocabulary: Vocabulary | None = None) -> "NGram":
        """A model of the lines or documents of a text, each by itself: order - 1 ends before it hide the one before."""
        mark, times = divider(text) or "", max(1, order - 1)
        model = cls(text.replace(mark, mark * times), order, vocabulary)
        model._begins = times
        return model

    @property
    def name(self) -> str:
        """`unigram` or `5-gram`."""
        return "unigram" if self.order == 1 else f"{self.order}-gram"

    def loss(self, text: str) -> float:
        """Mean of -ln p(s_t | s_{<t}) over all symbols of `text` but the first."""
        return float(-np.log(self.probabilities_along(text)[1:]).mean())

    def bits_per_character(self, text: str) -> float:
        """The same in bits, all together, over its characters after that symbol."""
        return bits_per_character(self.loss(text), *counted(self.vocabulary, text))

    def probabilities_along(self, text: str) -> Floats:
        """p(s_t | the symbols of `text` before it) for every t, (N,)."""
        return self.along(self.vocabulary.encode(text))

    def along(self, numbers: Ints) -> Floats:
        """The same for numbers (N,)."""
        symbols = len(self.vocabulary)
        p = np.full(len(numbers), 1.0 / symbols)
        context = np.zeros(len(numbers), np.int64)  # the number of the (k-1)-gram that ends before each character
        for table in self._tables:
            gram = table.find(context, numbers, symbols)
            p = table.mix(context, gram, p)
            context = np.concatenate([[-1], gram[:-1]])
        return p

    def probabilities(self, context: str) -> Floats:
        """p(c | context) for every symbol of the vocabulary, (V,); they sum to one."""
        numbers = self.vocabulary.encode(context)
        return self._next(numbers[max(0, len(numbers) - self.order + 1) :])

    def _next(self, context: Ints) -> Floats:
        p: Floats = self.after_each(context[None], np.arange(len(self.vocabulary))[None])[0]
        return p

    def after_each(self, contexts: Ints, last: Ints) -> Floats:
        """p(last | context), (N, L), for contexts (N, K) that are -1 where they are shorter, and last (N or 1, L)."""
        p = np.full((len(contexts), last.shape[1]), 1.0 / len(self.vocabulary))
        for k, table in enumerate(self._tables):
            if k > contexts.shape[1]:
                break
            number = self._numbers(contexts[:, contexts.shape[1] - k :])[:, None]
            p = table.mix(number, table.find(number, last, len(self.vocabulary)), p)
        return p

    def _numbers(self, grams: Ints) -> Ints:
        """The number of each k-gram (N, k), -1 for those that the text does not have; the empty one is 0."""
        number = np.zeros(len(grams), np.int64)
        for table, last in zip(self._tables, grams.T, strict=False):
            number = table.find(number, last, len(self.vocabulary))
        return number

    def reader(self) -> Reader:
        return _CountsReader(self, self._begins)

    def stream(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Symbols drawn one after another, as text; see `Decoder` for what the settings do."""
        check_prompt(prompt)
        check_length(length)
        decoder = Decoder(temperature, top_k, top_p, seed)
        seen = self.vocabulary.encode(prompt).tolist()
        for _ in range(length):
            context = np.array(seen[len(seen) - min(len(seen), self.order - 1) :], np.int64)
            p = torch.from_numpy(self._next(context)).log()
            p[UNKNOWN] = -torch.inf
            seen.append(decoder(p))
            yield self.vocabulary.after(seen[-2] if len(seen) > 1 else None, seen[-1])

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The same characters as one string, without the prompt."""
        return "".join(self.stream(prompt, length, temperature, top_k, top_p, seed))


class _CountsReader(Reader):
    """Counts read: a place is the last order - 1 symbols."""

    def __init__(self, model: NGram, begins: int) -> None:
        self._model, self._begins = model, begins
        self.symbols = len(model.vocabulary)

    def after(self, numbers: Ints) -> Position:
        read = np.concatenate([np.repeat(numbers[:1], self._begins), numbers[1:]])
        context = np.full((1, self._model.order - 1), -1)
        if kept := min(len(read), self._model.order - 1):
            context[0, -kept:] = read[len(read) - kept :]
        return _CountsPosition(self._model, context)

    def along(self, before: Ints, sequences: Sequence[Ints]) -> list[Tensor]:
        begin = np.concatenate([np.repeat(before[:1], self._begins), before[1:]])
        found = []
        for sequence in sequences:
            p = self._model.along(np.concatenate([begin, sequence]))[len(begin) :]
            found.append(torch.from_numpy(np.log(np.maximum(p, _LEAST))))
        return found


class _CountsPosition(Position):
    def __init__(self, model: NGram, contexts: Ints) -> None:
        self._model, self._contexts = model, contexts

    def following(self) -> Tensor:
        return self._nats(np.arange(len(self._model.vocabulary))[None])

    def of(self, numbers: Tensor) -> Tensor:
        return self._nats(numbers.numpy()[:, None])[:, 0]

    def _nats(self, last: Ints) -> Tensor:
        return torch.from_numpy(np.log(np.maximum(self._model.after_each(self._contexts, last), _LEAST)))

    def read(self, rows: Tensor, numbers: Tensor) -> Position:
        contexts = np.concatenate([self._contexts[rows.numpy()], numbers.numpy()[:, None]], 1)[:, 1:]
        return _CountsPosition(self._model, contexts)

    def joined(self, others: Sequence[Position]) -> Position:
        every: list[_CountsPosition] = [self, *others]  # type: ignore[list-item]
        return _CountsPosition(self._model, np.concatenate([each._contexts for each in every]))

    def take(self, rows: Tensor) -> Position:
        return _CountsPosition(self._model, self._contexts[rows.numpy()])


def _count(numbers: Ints, order: int, symbols: int) -> list[_Order]:
    """The tables of every order up to `order`."""
    keys: list[Ints] = []
    counts: list[Ints] = []
    suffixes: list[Ints] = []  # for each k-gram the number of the (k-1)-gram it ends with
    before = np.zeros(len(numbers), np.int64)  # number of the (k-1)-gram that ends before each character
    ending = np.zeros(len(numbers), np.int64)  # number of the (k-1)-gram that ends with each character
    for k in range(1, order + 1):
        inside = np.arange(k - 1, len(numbers))  # a k-gram needs k - 1 characters before its last
        found, first, number, count = np.unique(
            before[inside] * symbols + numbers[inside], return_index=True, return_inverse=True, return_counts=True
        )
        keys.append(found)
        counts.append(count)
        suffixes.append(ending[inside][first])
        ending = np.full(len(numbers), -1)
        ending[inside] = number
        before = np.concatenate([[-1], ending[:-1]])
    for k in range(order - 1):  # below the highest order: how many different characters come before
        counts[k] = np.bincount(suffixes[k + 1], minlength=len(keys[k]))
    contexts = [1, *(len(k) for k in keys)]
    return [_table(keys[k], counts[k], contexts[k], symbols) for k in range(order) if len(keys[k])]


def _table(keys: Ints, counts: Ints, contexts: int, symbols: int) -> _Order:
    discounts = _discounts(counts)
    context = keys // symbols
    totals = np.bincount(context, counts, contexts).astype(np.int64)
    left = np.bincount(context, discounts[np.minimum(counts, 3)], contexts)
    gamma = np.where(totals > 0, left / np.maximum(totals, 1), 1.0)
    return _Order(keys, counts, totals, gamma, discounts)


def _discounts(counts: Ints) -> Floats:
    """0, D(1), D(2), D(3 and more); one absolute discount Y for a text too small to have n_1 … n_4."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[:5].astype(float)
    if n[1:].min() > 0:
        y = n[1] / (n[1] + 2 * n[2])
        d = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        if all(0 < d[i - 1] < i for i in (1, 2, 3)):
            return np.array([0.0, *d])
    y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    return np.array([0.0, y, y, y])

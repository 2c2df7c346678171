"""The models a tagger has to beat: the most frequent tag of each word, and an averaged structured perceptron.

The perceptron scores tags by features of the words around and by the tag before, takes the best path, and where that is
wrong adds the features of the true tags and takes those of its own away; the mean of all weights on the way is kept.
Collins 2002, EMNLP. The sentences come in one fixed order for each pass: the same data give the same model.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from recurra.data.keys import key
from recurra.tasks.crf import Floats, Ints, viterbi

_PASSES = 5
_LEAST = 2  # words that a feature must be with


class FrequentTags:
    """The most frequent tag of each word in training; of other words the most frequent of words that come once."""

    def __init__(self, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for words, marks in zip(sentences, tags):
            for word, tag in zip(words, marks):
                counts[word][tag] += 1
        once = Counter[str]()
        for each in counts.values():
            if each.total() == 1:
                once += each
        every = sum(counts.values(), Counter[str]())
        self._other = _first(once or every)
        self._tags = {word: _first(each) for word, each in counts.items()}

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[self._tags.get(word, self._other) for word in words] for words in sentences]


class AveragedPerceptron:
    """tags = argmax_y Σ_t w[features of t] · y_t + A[y_{t-1}, y_t], in what the scheme allows.

    forbidden (K + 1, K + 1): 0, or -inf where a tag must not follow another; the last row and column for the ends.
    """

    def __init__(
        self, sentences: Sequence[Sequence[str]], tags: Sequence[Ints], count: int, forbidden: Floats, characters: bool
    ) -> None:
        self._forbidden, self._of = forbidden, _of_characters if characters else _of_words
        kept: Counter[str] = Counter()
        rows = [list(self._of(words)) for words in sentences]
        for row in rows:
            for features in row:
                kept.update(features)
        named = (name for name, times in kept.items() if times >= _LEAST)
        self._numbers = {name: number for number, name in enumerate(named, 1)}  # 0: one that is not known
        self._weights = np.zeros((1 + len(self._numbers), count), np.float32)
        self._between = np.zeros((count + 1, count + 1), np.float32)
        self._learn([self._encoded(row) for row in rows], tags)

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[Ints]:
        """The numbers of the tags of each sentence."""
        return [self._best(self._encoded(list(self._of(words)))) for words in sentences]

    def _encoded(self, features: list[list[str]]) -> Ints:
        """(n, F)"""
        known = self._numbers
        return np.array([[known.get(name, 0) for name in row] for row in features], np.int64)

    def _best(self, features: Ints) -> Ints:
        e = self._weights[features].sum(1)
        between = self._between + self._forbidden
        return viterbi(
            e[:, None], np.array([len(e)]), between[-1, :-1], between[:-1, :-1], between[:-1, -1]
        )[:, 0]  # fmt: skip

    def _learn(self, rows: list[Ints], tags: Sequence[Ints]) -> None:
        """With w_n after n sentences, the mean is w_N - Σ_n n (w_n - w_{n-1}) / N."""
        late, late_between = np.zeros_like(self._weights), np.zeros_like(self._between)
        seen = 0
        for number in range(_PASSES):
            order = np.random.default_rng(key("perceptron", number)).permutation(len(rows))
            for n in order.tolist():
                seen += 1
                guess, true = self._best(rows[n]), tags[n]
                if (guess == true).all():
                    continue
                for sign, path in ((1.0, true), (-1.0, guess)):
                    wrong = guess != true
                    places, columns = rows[n][wrong], path[wrong]
                    both = np.concatenate([[-1], path, [-1]])
                    for weights, scale in ((self._weights, sign), (late, sign * seen)):
                        np.add.at(weights, (places, columns[:, None]), scale)
                        weights[0] = 0  # what is not known says nothing
                    for weights, scale in ((self._between, sign), (late_between, sign * seen)):
                        np.add.at(weights, (both[:-1], both[1:]), scale)
        self._weights -= late / max(1, seen)
        self._between -= late_between / max(1, seen)


def _first(counts: Counter[str]) -> str:
    return min(counts, key=lambda name: (-counts[name], name))


def _of_words(words: Sequence[str]) -> Iterator[list[str]]:
    around = ["<<", "<", *(word.casefold() for word in words), ">", ">>"]
    for n, word in enumerate(words):
        far, before, here, after, beyond = around[n : n + 5]
        yield [
            "", f"0{here}", f"-{before}", f"+{after}", f"={far}", f"#{beyond}", f"a{before} {here}", f"b{here} {after}",
            f"s{here[-1:]}", f"t{here[-2:]}", f"u{here[-3:]}", f"v{here[-4:]}", f"p{here[:1]}", f"q{here[:3]}",
            f"x{before[-3:]}", f"y{after[-3:]}", f"z{_shape(word)}", f"w{word[:1].isupper()}{n == 0}",
        ]  # fmt: skip


def _of_characters(words: Sequence[str]) -> Iterator[list[str]]:
    around = ["<<", "<", *words, ">", ">>"]
    for n in range(len(words)):
        far, before, here, after, beyond = around[n : n + 5]
        yield [
            "", f"0{here}", f"-{before}", f"+{after}", f"={far}", f"#{beyond}", f"a{before}{here}", f"b{here}{after}",
            f"c{before}{after}", f"d{far}{before}", f"e{after}{beyond}", f"f{far}{before}{here}",
            f"g{here}{after}{beyond}", f"h{before}{here}{after}",
        ]  # fmt: skip


def _shape(word: str) -> str:
    """`Xx`, `dd-dd`: letters and digits by their kind, no more than two of a kind in a row."""
    shape = ""
    for c in word:
        kind = "X" if c.isupper() else "x" if c.isalpha() else "d" if c.isdigit() else c
        if not shape.endswith(2 * kind):
            shape += kind
    return shape

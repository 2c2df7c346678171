"""What every language model does with whole sentences, be it a network or counts: score, fill, rank."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from recurra.data.candidates import groups_of_memory
from recurra.data.symbols import Vocabulary
from recurra.data.words import has_blanks
from recurra.errors import InputError
from recurra.tasks.evaluation import NOUNS
from recurra.tasks.fill import BLANK, Candidate, Filling, check_count, cut_at_blank, shares, sides, without_marks
from recurra.tasks.infilling import search
from recurra.tasks.rank import Ranking, check_weight, ranking
from recurra.tasks.reading import Ints, Reader
from recurra.tasks.scoring import Score, checked_texts, edges, score, warn_of_unknown

_LEAST = 20  # candidates that are read to the end in any case
_FINALISTS = 200  # candidates of words and pieces whose whole sentences are scored


class Scorer(ABC):
    """A model that says how likely a text is: `score`, `fill`, `rank`."""

    vocabulary: Vocabulary

    @abstractmethod
    def reader(self) -> Reader:
        """What reads texts for this model."""

    def score(self, texts: str | Iterable[str]) -> list[Score]:
        """ln p of each text as a whole sentence, from its beginning to its end; see `recurra.tasks.scoring`.

        A sentence begins and ends as those of the training text: with a line break, or as a document. Symbols that the
        vocabulary does not know are read as the reserved unknown symbol, with a warning that names them. InputError for
        what is no text, or an empty one.
        """
        listed = checked_texts(texts, "texts")
        warn_of_unknown(self.vocabulary, listed, "The texts have", 2)
        return score(self.reader(), self.vocabulary, listed)

    def fill(
        self,
        sentence: str,
        top: int = 10,
        longest: int | None = None,
        candidates: Sequence[str] | None = None,
        blank: str | None = None,
    ) -> Filling:
        """What stands best in the blank of a sentence, by the probability of the whole sentence; `recurra.tasks.fill`.

        sentence: text with one blank, `____` (two underscores or more), or `blank` where the text has underscores.
        top: how many candidates are given. longest: symbols that a candidate may have; None: of characters 12, or 4 in
        a sentence without white space; of words 1; of pieces 4. candidates: the only ones, in place of those that are
        found.
        InputError for a sentence without a blank or with several.
        """
        left, right = cut_at_blank(sentence, blank)
        check_count(top, "top")
        if candidates is not None:
            if longest is not None:
                raise InputError(f"longest={longest!r} is of candidates that are found, but candidates are given.")
            found, considered = self._of_given(left, right, candidates)
        else:
            longest = self._longest(left + right) if longest is None else longest
            check_count(longest, "longest")
            found, considered = self._found(left, right, longest, max(top, _LEAST))
        probabilities = shares([nats for _, nats in found])
        rows = sorted(zip(found, probabilities, strict=True), key=lambda row: -row[1])
        best = [Candidate(text, p, nats) for (text, nats), p in rows[:top]]
        return Filling(sentence, best, considered, left, right)

    def _longest(self, sentence: str) -> int:
        if self.vocabulary.kind == "words":
            return 1
        return 12 if self.vocabulary.kind == "characters" and has_blanks([sentence]) else 4

    def _found(self, left: str, right: str, longest: int, least: int) -> tuple[list[tuple[str, float]], int]:
        """The likeliest candidates with ln p of the whole sentence, and how many were considered."""
        around = sides(self.vocabulary, left, right)
        warn_of_unknown(self.vocabulary, [around.left, around.right], "The sentence has", 3)
        begin, end = edges(self.vocabulary)
        before, after = self.vocabulary.encode(around.left), self.vocabulary.encode(around.right)
        is_last = len(end) > 0 and not right.strip()  # whatever mark ends the sentence is part of what is found
        rows, considered = search(
            self.reader(), np.concatenate([begin, before]), np.concatenate([after, end]),
            around.allowed(self.vocabulary), longest, least, is_last,
        )  # fmt: skip
        filled = ((around.text(self.vocabulary.decode(numbers)), nats) for numbers, nats in reversed(rows))
        texts = {text: nats for text, nats in filled if text.strip()}
        if not texts:
            raise InputError(
                f"No {NOUNS[self.vocabulary.kind]} of the model begins with {around.begins!r} and ends with "
                f"{around.ends!r}; put a blank between {BLANK} and the words beside it."
            )
        found = self._whole(left, right, before, texts)
        return (without_marks(found) or found) if is_last else found, considered

    def _whole(self, left: str, right: str, before: Ints, found: dict[str, float]) -> list[tuple[str, float]]:
        """Candidates with ln p of the whole sentence. Its words and pieces are found anew: they depend on all of it."""
        if self.vocabulary.kind == "characters":
            of_left = float(self.reader().along(edges(self.vocabulary)[0], [before])[0].sum())
            return [(text, of_left + nats) for text, nats in found.items()]
        texts = sorted(found, key=lambda text: -found[text])[:_FINALISTS]
        scores = score(self.reader(), self.vocabulary, [left + text + right for text in texts])
        return [(text, s.log_probability) for text, s in zip(texts, scores, strict=True)]

    def _of_given(self, left: str, right: str, candidates: Sequence[str]) -> tuple[list[tuple[str, float]], int]:
        if isinstance(candidates, str):
            raise InputError(f"candidates is a str; give a list of strings, as in [{candidates!r}].")
        listed = list(dict.fromkeys(checked_texts(candidates, "candidates")))
        sentences = [left + each + right for each in listed]
        warn_of_unknown(self.vocabulary, sentences, "The sentences have", 3)
        scores = score(self.reader(), self.vocabulary, sentences)
        return [(text, s.log_probability) for text, s in zip(listed, scores, strict=True)], len(listed)

    def rank(self, groups: Iterable[Any], weight: float | None = None) -> list[Ranking]:
        """The candidates of each group by ln p of the whole sentence, the best first; see `recurra.tasks.rank`.

        groups: lists of candidates, or of pairs (candidate, score) where a recogniser gave scores of its own. weight:
        that of ln p beside these scores; None: 1. All candidates are scored side by side.
        """
        listed = groups_of_memory(groups)
        weight = check_weight(weight, listed)
        texts = [text for group in listed for text in group.texts]
        warn_of_unknown(self.vocabulary, texts, "The candidates have", 2)
        scores = iter(score(self.reader(), self.vocabulary, texts))
        return [ranking(group, [next(scores) for _ in group.texts], weight) for group in listed]

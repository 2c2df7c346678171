"""Kneser-Ney against a plain reading of its formula, and against the law that probabilities sum to one."""

import inspect
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.data.demo import demo_text
from recurra.data.symbols import Characters
from recurra.errors import InputError
from recurra.tasks.language_model import LanguageModel
from recurra.tasks.ngram import NGram

TEXTS = ["abracadabra, said the abbot; a cab, a crab, a bar.", "a", "ab", "aaaa", "the cat sat on the mat " * 20]


def plain_kneser_ney(text: str, order: int, symbols: int, context: str, character: str) -> float:
    """p(character | context) by dictionaries, straight from the formula in recurra/tasks/ngram.py."""
    p = 1 / symbols
    for k in range(1, order + 1):
        u = context[len(context) - k + 1 :] if k > 1 else ""
        if len(u) < k - 1:
            break
        if k == order:
            a = Counter(text[i : i + k] for i in range(len(text) - k + 1))
        else:
            longer = {text[i : i + k + 1] for i in range(len(text) - k)}
            a = Counter(gram[1:] for gram in longer)
        n = Counter(a.values())
        d = discounts([n[i] for i in range(1, 5)])
        followers = {gram: count for gram, count in a.items() if gram[:-1] == u}
        total = sum(followers.values())
        if total == 0:
            continue
        taken = sum(d[min(count, 3)] for count in followers.values())
        count = followers.get(u + character, 0)
        p = (count - d[min(count, 3)]) / total + taken / total * p
    return p


def discounts(n: list[int]) -> list[float]:
    if min(n) > 0:
        y = n[0] / (n[0] + 2 * n[1])
        d = [i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3)]
        if all(0 < d[i - 1] < i for i in (1, 2, 3)):
            return [0.0, *d]
    y = n[0] / (n[0] + 2 * n[1]) if n[0] and n[1] else 0.5
    return [0.0, y, y, y]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("text", TEXTS)
def test_probabilities_are_those_of_the_formula(text: str, order: int) -> None:
    model = NGram(text, order)
    for context in ("", "a", "ab", "abra", "z", "xyzzy", "the ca", "cab", text[-3:], text):
        p = model.probabilities(context)
        for character in model.vocabulary.characters:
            expected = plain_kneser_ney(text, order, len(model.vocabulary), context, character)
            assert p[model.vocabulary.encode(character)[0]] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.text("abc \n", min_size=1, max_size=200), st.integers(1, 7), st.text("abcx ", max_size=9))
def test_probabilities_sum_to_one_after_any_context(text: str, order: int, context: str) -> None:
    p = NGram(text, order).probabilities(context)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p.min() >= 0 and (order == 1 or p.min() > 0 or len(text) < 3)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_along_a_text_and_one_by_one_are_the_same(order: int) -> None:
    model = NGram(TEXTS[0], order)
    text = "a crab sat, said the abbot; xylophone"
    along = model.probabilities_along(text)
    numbers = model.vocabulary.encode(text)
    one_by_one = [model.probabilities(text[:t])[numbers[t]] for t in range(len(text))]
    np.testing.assert_allclose(along, one_by_one, rtol=1e-12)
    assert model.bits_per_character(text) == pytest.approx(-np.log2(one_by_one[1:]).mean())


def test_on_the_demo_text_it_reaches_what_the_literature_method_must_reach() -> None:
    train, kept = demo_text().split(0.1)
    vocabulary = Characters(train.content)
    began = time.perf_counter()
    bits = [NGram(train.content, order, vocabulary).bits_per_character(kept.content) for order in (1, 3, 5)]
    assert time.perf_counter() - began < 10
    assert bits[0] == pytest.approx(4.68, abs=0.2)  # another CPython has a slightly different text
    assert bits[1] == pytest.approx(2.57, abs=0.1)
    assert bits[2] == pytest.approx(1.88, abs=0.1)


def test_it_writes_like_its_text_and_like_its_seed() -> None:
    model = NGram("abcabcabcabc", 3)
    assert model.generate("ab", 9, temperature=0) == "cabcabcab"
    assert model.generate("a", 20, seed=1) == model.generate("a", 20, seed=1) == "".join(model.stream("a", 20, seed=1))
    assert len({model.generate("", 20, seed=seed) for seed in range(9)}) > 1
    assert "\ufffd" not in model.generate("", 500, seed=3)  # the unknown symbol is never written


@pytest.mark.parametrize("method", ["generate", "stream", "bits_per_character"])
def test_it_answers_as_a_network_does(method: str) -> None:
    assert inspect.signature(getattr(NGram, method)) == inspect.signature(getattr(LanguageModel, method))


def test_names_and_errors() -> None:
    assert [NGram("abc", order).name for order in (1, 3)] == ["unigram", "3-gram"]
    with pytest.raises(InputError, match="order=0"):
        NGram("abc", 0)

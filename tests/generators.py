"""Labelled texts made from a seed, whose labels are known by rule."""

import random

_FILLERS = [f"w{n}" for n in range(60)]
_GOOD, _BAD = ("splendid", "lovely"), ("awful", "dreadful")


def sentiment(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of filler words with one planted word, by which they are good or bad."""
    rng = random.Random(seed)
    rows = []
    for n in range(count):
        label = ("good", "bad")[n % 2]
        sentence = rng.choices(_FILLERS, k=rng.randrange(3, 20))
        sentence.insert(rng.randrange(len(sentence)), rng.choice(_GOOD if label == "good" else _BAD))
        rows.append((" ".join(sentence), label))
    return rows


def brackets(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Strings of brackets: half are balanced, half have one bracket of a balanced one turned round."""
    rng = random.Random(seed)
    rows = []
    for n in range(count):
        letters = list(_balanced(rng, rng.randrange(2, 7)))
        if n % 2:
            place = rng.randrange(len(letters))
            letters[place] = "()"[letters[place] == "("]
        rows.append(("".join(letters), ("balanced", "broken")[n % 2]))
    return rows


def _balanced(rng: random.Random, pairs: int) -> str:
    text, depth, left = "", 0, pairs
    while left or depth:
        if left and (depth == 0 or rng.random() < 0.5):
            text, depth, left = text + "(", depth + 1, left - 1
        else:
            text, depth = text + ")", depth - 1
    return text


def reversals(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Three letters and the same again, reversed or as they were; the middle one differs from its neighbours."""
    rng = random.Random(seed)
    rows = []
    for n in range(count):
        half = "".join(rng.sample("abcd", 3))
        rows.append((half + (half[::-1] if n % 2 else half), ("repeated", "reversed")[n % 2]))
    return rows

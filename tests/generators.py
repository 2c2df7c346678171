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


_PEOPLE, _PLACES, _TITLES = ("Ada", "Alan", "Grace"), ("London", "Turin", "Bath"), ("Dr", "Sir")


def grammar(count: int, seed: int = 0) -> list[tuple[list[str], list[str], str]]:
    """Sentences of a small grammar with their BIO tags and what they are, all known by rule.

    The tag of a capitalised number `Xn` is that of the word before it: it is known by its neighbour only.
    """
    rng = random.Random(seed)
    rows = []
    for n in range(count):
        words, tags = [], []
        for _ in range(rng.randrange(1, 4)):
            words += rng.choices(_FILLERS, k=rng.randrange(0, 3))
            tags += ["O"] * (len(words) - len(tags))
            kind, names = (("PER", _PEOPLE), ("LOC", _PLACES))[rng.randrange(2)]
            name = [rng.choice(_TITLES)] * (kind == "PER" and rng.random() < 0.5) + [rng.choice(names)]
            name += [f"X{rng.randrange(1000)}"] * (rng.random() < 0.3)
            words += name
            tags += [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)]
        asks = n % 2 == 0
        words.append("?" if asks else ".")
        tags.append("O")
        rows.append((words, tags, "asks" if asks else "says"))
    return rows


def depths(count: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Balanced brackets, each tagged with how deep it stands, up to 3: to know it is to have counted."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        letters, tags, depth = list(_balanced(rng, rng.randrange(2, 7))), [], 0
        for letter in letters:
            depth += letter == "("
            tags.append(f"d{min(depth, 3)}")
            depth -= letter == ")"
        rows.append((letters, tags))
    return rows

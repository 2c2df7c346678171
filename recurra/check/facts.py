"""What texts are: their script and language, their lengths, their labels, and which symbols are unknown."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from recurra.data.symbols import Vocabulary
from recurra.data.texts import Texts

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")
_KANA, _HANGUL, _CYRILLIC = (
    re.compile(r"[\u3040-\u30ff]"),
    re.compile(r"[\uac00-\ud7a3]"),
    re.compile(r"[\u0400-\u04ff]"),
)
_LOOKED_AT = 1_000_000  # characters that the script is told by
_MEASURED = 20_000  # texts whose lengths are measured, evenly spaced
_BARS = 10
_MIXED = 0.1  # of the letters; less of another script is a name or a quotation


@dataclass(frozen=True)
class Lengths:
    """Of the texts of a part, in the symbols that the model reads."""

    unit: str
    median: float
    mean: float
    longest: int
    longest_where: str
    histogram: tuple[tuple[int, int], ...]  # (the most symbols of a bar, its texts)


@dataclass(frozen=True)
class Facts:
    """One part of the data."""

    name: str
    texts: int
    noun: str
    characters: int
    language: str  # by script and blanks: "English or another language in Latin letters, words between blanks"
    lengths: Lengths | None
    labels: dict[str, int]
    unknown: dict[str, int]  # symbols that training does not know, the most frequent first
    unknown_share: float  # of all symbols


def facts_of(part: Texts, vocabulary: Vocabulary | None, held: bool) -> Facts:
    """What a part is; `held`: whether unknown symbols are counted, as they are of what is not trained on."""
    places = (
        range(len(part)) if len(part) <= _MEASURED else np.linspace(0, len(part) - 1, _MEASURED).astype(int).tolist()
    )
    lengths, unknown, symbols = [], Counter[str](), 0
    known = set(vocabulary.symbols) if vocabulary else set()
    for place in places:
        found = vocabulary.split(part.texts[place]) if vocabulary else part.texts[place]
        lengths.append(len(found))
        symbols += len(found)
        if held:
            unknown.update(symbol for symbol in found if symbol not in known)
    unit = "characters" if vocabulary is None or vocabulary.kind == "characters" else "words"
    if vocabulary is not None and vocabulary.kind == "bpe":
        unit = "pieces"
    return Facts(
        name=part.name,
        texts=len(part),
        noun=part.noun,
        characters=sum(map(len, part.texts)),
        language=language_of(part.texts),
        lengths=_lengths(part, list(places), np.array(lengths), unit) if lengths else None,
        labels=dict(Counter(label for row in part.labels or () for label in row).most_common()),
        unknown=dict(unknown.most_common(10)),
        unknown_share=sum(unknown.values()) / max(1, symbols),
    )


def _lengths(
    part: Texts, places: list[int], lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", unit: str
) -> Lengths:
    longest = int(lengths.argmax())
    low, top = int(lengths.min()), int(np.quantile(lengths, 0.99))
    edges = sorted({round(low + (top - low) * n / (_BARS - 1)) for n in range(_BARS)})
    bars = np.searchsorted(edges, lengths, "left")
    bars[bars == len(edges)] = len(edges) - 1
    edges[-1] = max(edges[-1], int(lengths.max()))  # the last bar holds the longest hundredth too
    counts = np.bincount(bars, minlength=len(edges)).tolist()
    return Lengths(
        unit,
        float(np.median(lengths)),
        float(lengths.mean()),
        int(lengths.max()),
        part.where(places[longest]),
        tuple(zip(edges, counts)),
    )


def language_of(texts: list[str]) -> str:
    """The language by its script and its blanks, as far as these tell."""
    sample, size = [], 0
    step = max(1, len(texts) // 5000)
    for text in texts[::step]:
        sample.append(text[:20_000])
        size += len(sample[-1])
        if size > _LOOKED_AT:
            break
    joined = "\n".join(sample)
    letters = len(_LETTER.findall(joined))
    if not letters:
        return "no letters"
    scripts = {
        "Chinese": _HAN, "Latin letters": _LATIN, "Japanese kana": _KANA, "Korean": _HANGUL,
        "Cyrillic letters": _CYRILLIC,
    }  # fmt: skip
    shares = {name: len(pattern.findall(joined)) / letters for name, pattern in scripts.items()}
    if shares["Japanese kana"] > _MIXED:
        return f"Japanese ({shares['Japanese kana']:.0%} kana)"
    there = [name for name, share in sorted(shares.items(), key=lambda row: -row[1]) if share > _MIXED]
    blanks = sum(map(str.isspace, joined)) / len(joined)
    between = "words between blanks" if 12 * blanks >= 1 else "no blanks between words"
    if not there:
        return f"a script that is none of {', '.join(scripts)}; {between}"
    if len(there) > 1:
        return "mixed: " + ", ".join(f"{shares[name]:.0%} {name}" for name in there) + f"; {between}"
    if there == ["Latin letters"]:
        return f"{_english(joined)}; {between}"
    return f"{there[0]}; {between}"


def _english(text: str) -> str:
    """English by its commonest words: at least one word in twelve is one of a dozen."""
    words = re.findall(r"[a-z]+", text[:200_000].lower())
    common = sum(word in _COMMON for word in words)
    return "English" if 12 * common >= len(words) else "Latin letters, not plain English"


_COMMON = {"the", "of", "and", "to", "a", "in", "is", "that", "it", "i", "you", "for"}

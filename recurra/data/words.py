"""Text to words. The only home of rjieba, which finds the words of Chinese."""

import re
from collections.abc import Iterable

from recurra.errors import InputError

_WORD = re.compile(r"\w+(?:['’]\w+)*|['’]\w+|[^\w\s]")
_TOKEN = re.compile(r"\w+?(?=n['’]t\b)|n['’]t\b|['’](?:s|m|d|re|ve|ll)\b|\w+(?:[-.,]\w+)*|[^\w\s]", re.IGNORECASE)
_STANDING = re.compile(r"[\n\x03]|[^\s\x03]+")
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
_WIDE = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U000323af]")  # and its marks


def words(text: str) -> list[str]:
    """The words of a text, case-folded, and its marks one by one: Unicode's letters and digits, "don't" as one word.

    Chinese, which puts no blanks between words, is cut by rjieba; InputError where that is not installed.
    """
    if _CHINESE.search(text):
        text = " ".join(_cut(text))
    return _WORD.findall(text.casefold())


def as_they_stand(text: str) -> list[str]:
    r"""What stands between white space, unchanged; the end of a line ("\n") and of a document are words by themselves.

    Chinese is cut by rjieba; InputError where that is not installed.
    """
    found: list[str] = _STANDING.findall(text)
    if not _CHINESE.search(text):
        return found
    return [word for run in found for word in (_cut(run) if _CHINESE.search(run) else [run])]


def tokens(text: str) -> list[str]:
    """The words of a text as they stand, and its marks one by one: "don't" is do n't, "Ada's" Ada 's, 3.5 one word.

    So do the Penn Treebank and Universal Dependencies with English. Chinese is cut by rjieba.
    """
    if _CHINESE.search(text):
        text = " ".join(_cut(text))
    return _TOKEN.findall(text)


def stand_apart(left: str, right: str) -> bool:
    """Whether a blank is written between two words: not beside the end of a line or document, nor beside Chinese."""
    return not any(c in "\n\x03" or _WIDE.match(c) for c in (left[-1:], right[:1]))


def has_blanks(texts: Iterable[str]) -> bool:
    """Whether words are divided by white space: at least one character in twelve. Not so in Chinese or Japanese."""
    characters = blanks = 0
    for text in texts:
        characters += len(text)
        blanks += sum(map(str.isspace, text))
    return 12 * blanks >= characters


def is_chinese(symbols: Iterable[str]) -> bool:
    """Whether different symbols are mostly those of Chinese: half of them have its characters, and no kana is there."""
    listed = list(symbols)
    if any(_KANA.search(symbol) for symbol in listed):
        return False
    return 2 * sum(bool(_CHINESE.search(symbol)) for symbol in listed) > len(listed)


def _cut(text: str) -> list[str]:
    try:
        import rjieba
    except ImportError:
        raise InputError(
            "symbols='words' of Chinese text needs rjieba, which is not installed; pip install 'recurra[text]', or "
            "choose symbols='characters'."
        ) from None
    cut: list[str] = rjieba.cut(text)
    return cut

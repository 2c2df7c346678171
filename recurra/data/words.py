"""Text to words. The only home of rjieba, which finds the words of Chinese."""

import re
from collections.abc import Iterable

from recurra.errors import InputError

_WORD = re.compile(r"\w+(?:['’]\w+)*|['’]\w+|[^\w\s]")
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def words(text: str) -> list[str]:
    """The words of a text, case-folded, and its marks one by one: Unicode's letters and digits, "don't" as one word.

    Chinese, which puts no blanks between words, is cut by rjieba; InputError where that is not installed.
    """
    if _CHINESE.search(text):
        text = " ".join(_cut(text))
    return _WORD.findall(text.casefold())


def has_blanks(texts: Iterable[str]) -> bool:
    """Whether words are divided by white space: at least one character in twelve. Not so in Chinese or Japanese."""
    characters = blanks = 0
    for text in texts:
        characters += len(text)
        blanks += sum(map(str.isspace, text))
    return 12 * blanks >= characters


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

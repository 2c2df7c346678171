"""Texts that do not look as text does: markup, decoded wrongly, invisible characters."""

import re

from recurra.check.problems import Problem, some
from recurra.data.texts import Texts

_SHOWN = 60  # characters of a text in a message

# What it is, how it is found, and what to do.
_SIGNS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (
        "was decoded with the wrong encoding",
        re.compile(r"\ufffd|锟斤拷|ï»¿|â€[\u0080-\u00ff™œ\u2018-\u203a]|Ã[\u0080-\u00bf©¨¼¶¤Ÿ±]"),
        "decode it again from its bytes",
    ),
    (
        "holds HTML",
        re.compile(r"</?(?:[a-zA-Z][a-zA-Z0-9]{0,9})(?:\s[^<>]{0,200})?/?>|&(?:amp|lt|gt|quot|nbsp|#\d{1,5});"),
        "take the tags out, or leave them if the texts to come have them too",
    ),
    (
        "holds control characters",
        re.compile(r"[\x00-\x02\x04-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
        "take them out, for nobody sees them",
    ),
    (
        "holds invisible characters (zero width, or the direction of writing)",
        re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"),
        "take them out, for nobody sees them",
    ),
    (
        "is one character repeated forty times or more",
        re.compile(r"(\S)\1{39,}"),
        "see whether it is text",
    ),
)  # fmt: skip


def suspicious(part: Texts) -> list[Problem]:
    """A problem for each sign that some texts have: how many, the first with its place, the remedy."""
    problems = []
    for what, sign, remedy in _SIGNS:
        found = [(place, match) for place, text in enumerate(part.texts) if (match := sign.search(text))]
        if not found:
            continue
        place, match = found[0]
        shown = _around(part.texts[place], match.start())
        of = f"{some(len(found), part.noun)} of {part.name}"
        said = what if len(found) == 1 else _plural(what)
        problems.append(Problem("warning", f"{of} {said}, first {part.where(place)}: {shown!r}; {remedy}.", len(found)))
    return problems


def _plural(what: str) -> str:
    verb, _, rest = what.partition(" ")
    return f"{ {'was': 'were', 'holds': 'hold', 'is': 'are'}[verb] } {rest}".strip()


def _around(text: str, place: int) -> str:
    begin = max(0, place - _SHOWN // 2)
    return ("…" if begin else "") + text[begin : begin + _SHOWN] + ("…" if begin + _SHOWN < len(text) else "")

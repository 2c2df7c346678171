"""Schemes in which tags of words say spans, as BIO does; from tags to spans and back.

    BIO     B begins a span, I goes on in it (Ramshaw & Marcus 1995, as IOB2)
    BIOES   E ends a span of several words, S is one of a single word
    BMES    the same with M for I, as usual for characters of Chinese
    IOB1    B only where a span follows one of its kind; it is read, and written as BIO

A tag is `O`, outside of every span, or a letter, a hyphen and the kind of the span: `B-PER`. Spans without a kind, as
the words of a text, have bare letters.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SCHEMES = ("BIO", "BIOES", "BMES")
OUTSIDE = "O"
_LETTERS = {"BIO": "BI", "BIOES": "BIES", "BMES": "BMES"}
_FORM = re.compile(r"O|[BIEMS](-.+)?")


class Span(NamedTuple):
    """Words `begin` to `end` - 1 of a sentence, and what they are."""

    kind: str
    begin: int
    end: int


class Break(NamedTuple):
    """A tag that cannot stand where it stands: the place of its word, and what is wrong, in words."""

    place: int
    said: str
    strange: bool = False  # whether the scheme has no such tag at all


def split_tag(tag: str) -> tuple[str, str]:
    """Letter and kind: ("B", "PER") of `B-PER`, ("O", "") of `O`."""
    return tag[:1], tag[2:]


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans that tags of any scheme say, as conlleval reads them, broken ones too.

    A span begins with B or S, and where I, M or E has none of its kind to go on in. Tjong Kim Sang & Buchholz 2000.
    """
    found: list[Span] = []
    before, kind, begin = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        letter, now = split_tag(tag)
        if before != OUTSIDE and (before in "ES" or letter in "BSO" or now != kind):
            found.append(Span(kind, begin, place))
            before = OUTSIDE
        if letter != OUTSIDE and before == OUTSIDE:
            begin = place
        before, kind = letter, now
    return found


def written(spans: Iterable[Span], words: int, scheme: str) -> list[str]:
    """The tags of so many words that say these spans, which do not overlap."""
    tags = [OUTSIDE] * words
    inside = "M" if scheme == "BMES" else "I"
    for span in spans:
        letters = ["B", *[inside] * (span.end - span.begin - 1)]
        if scheme != "BIO":
            letters[-1] = "E" if len(letters) > 1 else "S"
        tags[span.begin : span.end] = [tag_of(letter, span.kind) for letter in letters]
    return tags


def tag_of(letter: str, kind: str) -> str:
    return f"{letter}-{kind}" if kind else letter


def tags_of(kinds: Iterable[str], scheme: str) -> list[str]:
    """All tags that a scheme has for these kinds of spans, `O` first."""
    return [OUTSIDE, *(tag_of(letter, kind) for kind in kinds for letter in _LETTERS[scheme])]


def may_follow(before: str, tag: str, scheme: str) -> bool:
    """Whether a tag may follow another; `O` stands for the ends of a sentence too."""
    (last, kind), (letter, now) = split_tag(before), split_tag(tag)
    if letter in "IME":
        return last in "BIM" and kind == now
    return scheme == "BIO" or last not in "BIM"


def breaks(tags: Sequence[str], scheme: str) -> list[Break]:
    """Where tags break a scheme, or are none of its tags; after a break they are judged anew."""
    found: list[Break] = []
    before = OUTSIDE
    for place, tag in enumerate([*tags, OUTSIDE]):
        ended = place == len(tags)
        if not ended and not _is_of(tag, scheme):
            choice = ", ".join(f"{letter}-…" for letter in _LETTERS[scheme][:-1])
            said = f"is none of {scheme}, where O, {choice} or {_LETTERS[scheme][-1]}-… was expected"
            found.append(Break(place, f"the tag {tag!r} {said}", strange=True))
            before = OUTSIDE
            continue
        if not may_follow(before, tag, scheme):
            what = "the sentence ends" if ended else f"the tag {tag!r} stands"
            where = f"after {before!r}" if place else "at the start of the sentence"
            found.append(
                Break(min(place, len(tags) - 1), f"{what} {where}, where {_expected(before, tag, scheme)} was expected")
            )
        before = tag
    return found


def _expected(before: str, tag: str, scheme: str) -> str:
    """What should have stood in place of a tag that may not follow the one before."""
    last, kind = split_tag(before)
    if scheme != "BIO" and last in "BIM":
        return " or ".join(tag_of(letter, kind) for letter in _LETTERS[scheme][1:3])
    now = split_tag(tag)[1]
    return " or ".join(tag_of(letter, now) for letter in ("B" if scheme == "BIO" else "BS"))


def _is_of(tag: str, scheme: str) -> bool:
    return tag == OUTSIDE or (_FORM.fullmatch(tag) is not None and tag[0] in _LETTERS[scheme])


def found_scheme(tags: Iterable[str]) -> str | None:
    """The scheme that tags are of, by their letters; None where they say no spans, as parts of speech."""
    counts = Counter(tags)
    said = {tag for tag in counts if tag != OUTSIDE}
    formed = {tag for tag in said if _FORM.fullmatch(tag)}
    if not formed or 2 * len(formed) <= len(said):
        return None
    letters = {tag[0] for tag in formed}
    if "M" in letters:
        return "BMES"
    return "BIOES" if letters & {"E", "S"} else "BIO"


def is_iob1(sentences: Iterable[Sequence[str]]) -> bool:
    """Whether tags with the letters of BIO are IOB1: every B follows a span of its kind, and some I begins one."""
    begins = 0
    for tags in sentences:
        for before, tag in zip([OUTSIDE, *tags], tags):
            (last, kind), (letter, now) = split_tag(before), split_tag(tag)
            same = last != OUTSIDE and kind == now
            if letter == "B" and not same:
                return False
            begins += letter == "I" and not same
    return begins > 0

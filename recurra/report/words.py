"""Sentences in English and in Chinese. A sentence that lacks one of them cannot be made."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Both:
    """A sentence in both languages. `Both("{n} rows", "{n} 行")(n=3)` fills both in; a value may itself be Both."""

    en: str
    zh: str

    def __call__(self, **values: "Said") -> "Both":
        en, zh = ({name: say(value, to) for name, value in values.items()} for to in ("en", "zh"))
        return Both(self.en.format(**en), self.zh.format(**zh))


Said: TypeAlias = Both | str | int


def say(value: Said, language: Language | str) -> str:
    """What is read: a sentence in that language; data as it is; whole numbers with their thousands marked."""
    if isinstance(value, Both):
        return value.zh if language == "zh" else value.en
    return f"{value:,}" if isinstance(value, int) else value


def listed(items: list[Said]) -> Both:
    """Several things in one sentence."""
    en, zh = ([say(item, to) for item in items] for to in ("en", "zh"))
    return Both(", ".join(en), "、".join(zh))


def span(seconds: float) -> Both:
    """A time, in the unit that suits it."""
    if seconds < 1e-3:
        return Both(f"{seconds * 1e6:.3g} µs", f"{seconds * 1e6:.3g} 微秒")
    if seconds < 1:
        return Both(f"{seconds * 1e3:.3g} ms", f"{seconds * 1e3:.3g} 毫秒")
    if seconds < 100:
        return Both(f"{seconds:.3g} s", f"{seconds:.3g} 秒")
    minutes = round(seconds / 60)
    if minutes < 100:
        return Both(f"{minutes} min", f"{minutes} 分钟")
    return Both(f"{minutes / 60:.1f} h", f"{minutes / 60:.1f} 小时")

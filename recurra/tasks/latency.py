"""How long a model takes to answer, measured for its report: a median of few calls, so that it costs little."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from recurra.report.blocks import Block, Measured, Table, Text
from recurra.report.words import Both, span

_CALLS = 7  # of which the median is taken,
_SECONDS = 0.5  # or fewer, where they take longer than this


class Call(NamedTuple):
    """What is timed: what it does, the call, and the symbols that one call reads or writes."""

    what: Both
    call: Callable[[], object]
    symbols: int


def latency(calls: Sequence[Call], threads: int) -> list[Block]:
    """The table of these calls."""
    head = (
        Both("what", "内容"),
        Both("symbols", "符号数"),
        Both("median time", "时间（中位数）"),
        Both("per symbol", "每符号"),
    )
    rows = []
    for what, call, symbols in calls:
        seconds = median(call)
        rows.append((what, symbols, Measured(span(seconds)), Measured(span(seconds / max(1, symbols)))))
    note = Both(
        "Measured on the machine that wrote this report, with {threads} of its processor's threads; reading the text "
        "is included.",
        "在生成本报告的机器上测得，使用 {threads} 个处理器线程，包含读取文本的时间。",
    )
    return [Table(Both("How long an answer takes", "回答所需时间"), head, rows), Text(note(threads=threads))]


def median(call: Callable[[], object]) -> float:
    """Seconds that a call takes, after one that does not count."""
    call()
    times: list[float] = []
    while len(times) < _CALLS and sum(times) < _SECONDS:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)

"""Interleaved timing in one process: each round runs every contestant once, so that a slow minute is slow for all."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch

from benchmarks.goals import QUIET
from benchmarks.records import Time

HOPELESS = 1.5  # a variant this much slower than another of the same name after warming up is not timed further
SLICE = 0.004  # seconds a contestant runs at a time


class Absent(Exception):
    """A rival cannot be had here; its rows say why, and the run goes on."""


class Runner(Protocol):
    """What can be timed: seconds gives those of one call and unit of work, in the mean of so many calls.

    Several of one name are variants, the fastest counts. elsewhere: seconds that other processes have computed for it.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def work(self) -> float: ...
    @property
    def elsewhere(self) -> float: ...

    def seconds(self, times: int) -> float: ...


@dataclass(frozen=True)
class Contestant:
    """One way of doing the work of a case.

    name: its part in the goals ("ours", "copy", "torch"); several of one name are variants, the fastest counts.
    label: what to print for the variant. work: time is divided by it. mkldnn, grad: the modes it runs under.
    """

    name: str
    call: Callable[[], object]
    label: str = ""
    work: float = 1.0
    mkldnn: bool = True
    grad: bool = True
    elsewhere: ClassVar[float] = 0.0

    def seconds(self, times: int) -> float:
        """Several calls follow one that is not timed: it brings back what the others drove from the caches."""
        mkldnn = torch.backends.mkldnn.flags(enabled=self.mkldnn, allow_tf32=False)
        with mkldnn, torch.set_grad_enabled(self.grad):
            if times > 1:
                self.call()
            start = time.perf_counter()
            for _ in range(times):
                self.call()
            return (time.perf_counter() - start) / times / self.work


@dataclass(frozen=True)
class Measured:
    """Per name the fastest variant's time; other: other processes' share of one core meanwhile, None where unknown.

    ready: seconds from nothing to the first result, where that was measured. differences: the largest relative one, by
    name or variant. missing: by name, why a rival was not there.
    """

    times: dict[str, Time]
    rounds: int = 1
    other: float | None = None
    ready: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def label(self, name: str) -> str | None:
        """Of the fastest variant; None where nobody of this name was timed."""
        return self.times[name].label if name in self.times else None


@dataclass(frozen=True)
class Effort:
    """How long to time one case: seconds of rounds, fewest and most rounds, repeats while others use the machine."""

    seconds: float = 1.0
    fewest: int = 5
    most: int = 60
    repeats: int = 1


QUICK = Effort(seconds=0.25, fewest=3, repeats=0)


def machine_seconds() -> float | None:
    """Processor seconds used by everybody since boot, from /proc/stat; None where there is none."""
    try:
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq, steal = (int(word) for word in stat.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / 100


def measure(contestants: Sequence[Runner], effort: Effort) -> Measured:
    """The quietest of up to 1 + effort.repeats measurements."""
    runners = warm(contestants)
    best = once(runners, effort)
    for _ in range(effort.repeats):
        if best.other is None or best.other <= QUIET:
            break
        again = once(runners, effort)
        if again.other is not None and again.other < best.other:
            best = again
    return best


def warm(contestants: Sequence[Runner]) -> list[tuple[Runner, int]]:
    """Runs everyone, drops hopeless variants, and says how many calls fill a slice."""
    first = {id(each): min(each.seconds(1) for _ in range(2)) for each in contestants}
    runners = []
    for each in contestants:
        rivals = [first[id(other)] for other in contestants if other.name == each.name]
        if first[id(each)] <= HOPELESS * min(rivals):
            runners.append((each, max(1, int(SLICE / (first[id(each)] * each.work)))))
    return runners


def spent(runners: Sequence[tuple[Runner, int]]) -> float:
    """Processor seconds of this process and of those that work for it."""
    return time.process_time() + sum(each.elsewhere for each, _ in runners)


def once(runners: Sequence[tuple[Runner, int]], effort: Effort) -> Measured:
    seconds: list[list[float]] = [[] for _ in runners]
    gc.collect()
    gc.disable()
    all_before, own_before, start = machine_seconds(), spent(runners), time.perf_counter()
    try:
        while len(seconds[0]) < effort.most:
            for (contestant, times), taken in zip(runners, seconds, strict=True):
                taken.append(contestant.seconds(times))
            if len(seconds[0]) >= effort.fewest and time.perf_counter() - start > effort.seconds:
                break
    finally:
        gc.enable()
    wall, own, all_after = time.perf_counter() - start, spent(runners) - own_before, machine_seconds()
    other = None if all_before is None or all_after is None else max(0.0, all_after - all_before - own) / wall
    times_of: dict[str, Time] = {}
    for (contestant, _), taken in zip(runners, seconds, strict=True):
        found = Time(statistics.median(taken), min(taken), contestant.label)
        known = times_of.get(contestant.name)
        times_of[contestant.name] = found if known is None or found.median < known.median else known
    return Measured(times_of, len(seconds[0]), other)

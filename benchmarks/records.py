"""What the measuring processes and the one that judges tell each other. Light: imports neither torch nor recurra."""

import msgspec

from benchmarks.goals import Shape


class Setting(msgspec.Struct, frozen=True):
    """What a measuring process is asked to do: the cases of the goals with these ids, on so many threads."""

    ids: list[str]
    threads: int
    quick: bool = False


class Time(msgspec.Struct, frozen=True):
    """Seconds a call and unit of work: median and minimum over the rounds, of the variant called label."""

    median: float
    least: float
    label: str = ""


class Result(msgspec.Struct, frozen=True):
    """One case, measured once.

    times: seconds per name, of the fastest variant of each. worst: the largest relative difference from the reference.
    other: other processes' share of one core meanwhile, None where unknown.
    multiply_adds: of the case's products, rate: those the processor can do in a second; 0 where unknown.
    error: why there is nothing.
    """

    kind: str
    cell: str
    shape: Shape
    times: dict[str, Time] = {}
    worst: float = 0.0
    rounds: int = 0
    other: float | None = None
    multiply_adds: float = 0.0
    rate: float = 0.0
    error: str = ""

    @property
    def case(self) -> tuple[str, str, Shape]:
        return self.kind, self.cell, self.shape


class Run(msgspec.Struct, frozen=True):
    """One result and the setting it was measured in."""

    threads: int
    malloc: str
    number: int
    result: Result

"""What the measuring processes and the one that judges tell each other. Light: imports neither torch nor recurra."""

import msgspec

from benchmarks.goals import Shape


class Setting(msgspec.Struct, frozen=True):
    """What a measuring process is asked to do: the cases of the goals with these ids, on so many threads."""

    ids: list[str]
    threads: int
    quick: bool = False


class Task(msgspec.Struct, frozen=True):
    """What a rival's process is asked to prepare: this cell in this shape, on so many threads."""

    rival: str
    cell: str
    shape: Shape
    threads: int


class Turn(msgspec.Struct, frozen=True):
    """A rival's turn: the variant of this label, so many times."""

    label: str
    times: int


class Answer(msgspec.Struct, frozen=True):
    """A rival's: first, seconds until each variant gave its first result; after a turn, seconds a call.

    processor: its processor seconds during the turn. error: why there is nothing.
    """

    ready: dict[str, float] = {}
    seconds: float = 0.0
    processor: float = 0.0
    error: str = ""


class Time(msgspec.Struct, frozen=True):
    """Seconds a call and unit of work: median and minimum over the rounds, of the variant called label."""

    median: float
    least: float
    label: str = ""


class Result(msgspec.Struct, frozen=True):
    """One case, measured once.

    times: seconds per name, of the fastest variant of each. differences: the largest relative ones from the reference,
    by name or variant. ready: seconds from nothing to the first result, by name. missing: by name, why it is not here.
    other: other processes' share of one core meanwhile, None where unknown.
    multiply_adds: of the case's products, rate: those the processor can do in a second; 0 where unknown.
    error: why it is wrong. lost: why it was not measured.
    """

    kind: str
    cell: str
    shape: Shape
    times: dict[str, Time] = {}
    differences: dict[str, float] = {}
    ready: dict[str, float] = {}
    missing: dict[str, str] = {}
    rounds: int = 0
    other: float | None = None
    multiply_adds: float = 0.0
    rate: float = 0.0
    error: str = ""
    lost: str = ""

    @property
    def case(self) -> tuple[str, str, Shape]:
        return self.kind, self.cell, self.shape


class Run(msgspec.Struct, frozen=True):
    """One result and the setting it was measured in."""

    threads: int
    malloc: str
    number: int
    result: Result

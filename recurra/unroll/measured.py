"""How long a call takes, and how far that is from what the machine can do: measured when `explain` is asked to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from recurra.machine.peak import multiply_rate, read_rate
from recurra.machine.shape import Shape
from recurra.unroll.notes import Replay, Visit

_LEAST, _MOST, _SECONDS = 3, 15, 0.5  # calls, and how long they may take
_EMPTY = 30


@dataclass(frozen=True, slots=True)
class Against:
    """One direction of a call against the peak of the threads that ran it.

    seconds      the shortest of several calls
    arithmetic   seconds that its multiply-adds would take at the measured rate
    reading      seconds that the reads of weights in the loop would take at the measured rate, from where they lie
    rate, read   those rates: multiply-adds and bytes a second
    """

    seconds: float
    arithmetic: float
    reading: float
    rate: float
    read: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A call made again and again. `itself`: seconds of one without a step; None where there is none such."""

    forward: Against
    backward: Against | None
    itself: float | None


def measure(visit: Visit, shapes: Sequence[Shape], precision: str) -> Measured | None:
    """Makes the call of a visit several times; None where it cannot be made again, or not by the native machine."""
    replay = visit.replay
    if replay is None or not shapes:
        return None
    ahead, back = _timed(replay)
    itself = None if replay.empty is None else min(_seconds(replay.empty) for _ in range(_EMPTY))
    backward = None if back is None or len(shapes) < 2 else _against(back, shapes[1], precision)
    return Measured(_against(ahead, shapes[0], precision), backward, itself)


def _timed(replay: Replay) -> tuple[float, float | None]:
    """The shortest forward and backward."""
    ahead: list[float] = []
    back: list[float] = []
    end = perf_counter() + _SECONDS
    while len(ahead) < _LEAST or (len(ahead) < _MOST and perf_counter() < end):
        with torch.set_grad_enabled(bool(replay.wanted)):
            begun = perf_counter()
            outputs = replay.again()
            ahead.append(perf_counter() - begun)
        if made := [y for y in outputs if y.requires_grad]:
            ones = [torch.ones_like(y) for y in made]
            begun = perf_counter()
            torch.autograd.grad(made, replay.wanted, ones, allow_unused=True)
            back.append(perf_counter() - begun)
    return min(ahead), min(back, default=None)


def _seconds(function: Callable[[], Any]) -> float:
    begun = perf_counter()
    function()
    return perf_counter() - begun


def _against(seconds: float, shape: Shape, precision: str) -> Against:
    rate = multiply_rate(precision, shape.threads)
    read = read_rate(shape.own, shape.threads) if shape.own else 0.0
    return Against(seconds, shape.arithmetic / rate, shape.read / read if read else 0.0, rate, read)

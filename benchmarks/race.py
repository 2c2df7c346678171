"""A race: who runs, and whose values and gradients must agree before anybody is timed."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

import recurra
from benchmarks.cells import GATES, Weighted, weights
from benchmarks.goals import Shape
from benchmarks.remote import Remote, Rival
from benchmarks.timing import Absent, Contestant, Effort, Measured, Runner, measure

TOLERANCE = 1e-5  # max |difference| / max |reference| of every tensor, float32

Forward = Callable[[Tensor], tuple[Tensor, Tensor | tuple[Tensor, ...]]]
Values = Mapping[str, Tensor]


class Mismatch(Exception):
    """A contestant computes something else than its rival."""


@dataclass(frozen=True)
class Check:
    """`who` (of its variants the one called label) must give what the reference gives.

    tolerance: infinity where the difference is only told.
    """

    who: str
    values: Callable[[], Values]
    reference: Callable[[], Values]
    tolerance: float = TOLERANCE
    label: str = ""

    def run(self) -> float:
        """The largest relative difference; raises Mismatch above the tolerance, StrictError when ours falls back."""
        reference = self.reference()
        with recurra.strict():
            found = self.values()
        worst = 0.0
        for name, wanted in reference.items():
            scale = wanted.abs().max().item() or 1.0
            difference = (found[name].flatten() - wanted.flatten()).abs().max().item() / scale
            if not difference <= self.tolerance:  # also when it is not a number
                size = f"{difference:.1e} of its largest value"
                raise Mismatch(f"{self.who}: {name} differs from the reference by {size}, allowed are {self.tolerance}")
            worst = max(worst, difference)
        return worst


@dataclass(frozen=True)
class Race:
    """Contestants whose values were compared; run gives times and the largest differences seen.

    multiply_adds: of the products alone, for one call and unit of work: nobody can be faster than they take.
    """

    contestants: Sequence[Runner]
    checks: Sequence[Check]
    multiply_adds: float = 0.0

    def only(self, names: set[str]) -> "Race":
        """The same among the contestants of these names."""
        contestants = [each for each in self.contestants if each.name in names]
        return replace(self, contestants=contestants, checks=[each for each in self.checks if each.who in names])

    def run(self, effort: Effort) -> Measured:
        """Checks, then times; rivals that cannot be had are left out, with the reason."""
        remote = [each for each in self.contestants if isinstance(each, Remote)]
        ours = [each for each in self.contestants if each.name == "ours"]
        try:
            ready = {each.name: each.seconds(1) for each in ours if remote}  # its first call: trace, passes, packing
            differences = self.differences()
            found = self._measured(effort)
            ready |= {each.name: each.ready for each in remote if found.label(each.name) == each.label}
            missing = {each.name: why for each in remote if (why := reason(each))}
            return replace(found, ready=ready, differences=differences, missing=missing)
        finally:
            for each in remote:
                each.rival.close()

    def differences(self) -> dict[str, float]:
        """The largest relative difference of each contestant, or of its variants, that could be had."""
        found: dict[str, float] = {}
        for check in self.checks:
            with contextlib.suppress(Absent):
                key = check.label or check.who
                found[key] = max(check.run(), found.get(key, 0.0))
        return found

    def _measured(self, effort: Effort) -> Measured:
        """Again without a rival that is lost on the way."""
        while True:
            with contextlib.suppress(Absent):
                return measure([each for each in self.contestants if not reason(each)], effort)


@dataclass(frozen=True)
class Whole:
    """A case that is measured as a whole: nobody of it can be left out, and its products are not counted."""

    cell: str
    shape: Shape
    multiply_adds: float = 0.0

    def only(self, names: set[str]) -> Self:
        return self


def reason(contestant: Runner) -> str:
    """Why a contestant cannot be had; nothing when it can."""
    return contestant.rival.reason if isinstance(contestant, Remote) else ""


def either(name: str, call: Callable[[], object], work: float = 1.0, grad: bool = True) -> list[Contestant]:
    """A rival twice, with mkldnn and without: the faster one counts."""
    return [Contestant(name, call, f"mkldnn {'on' if on else 'off'}", work, on, grad) for on in (True, False)]


def abroad(name: str, rival: Rival, reference: Callable[[], Values]) -> tuple[list[Remote], list[Check]]:
    """A rival in a process of its own: its variants, each held against the reference."""
    checks = [Check(name, partial(rival.values, label), reference, label=label) for label in rival.labels]
    return [Remote(name, rival, label) for label in rival.labels], checks


def gradients(forward: Forward, layer: Weighted, x: Tensor, dy: Tensor) -> Callable[[], object]:
    """One training step without the optimiser: outputs, then the gradients of the input and of every weight."""
    leaves = [x, *weights(layer).values()]
    return lambda: torch.autograd.grad(forward(x)[0], leaves, dy)


def flat(found: tuple[Tensor, Tensor | tuple[Tensor, ...]]) -> list[Tensor]:
    """Outputs and last states in one list."""
    y, state = found
    return [y, *(state if isinstance(state, tuple) else (state,))]


def cotangents(rows: Sequence[Tensor]) -> list[Tensor]:
    """The same for everybody, whatever the shapes that their numbers come in."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(row.numel(), generator=generator).to(row).view_as(row) for row in rows]


def named(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    return {("outputs" if n == 0 else f"last state {n}"): row.detach() for n, row in enumerate(rows)}


def values(forward: Forward, layer: Weighted | None, x: Tensor) -> Callable[[], Values]:
    """Outputs and last states, and with a layer their gradients, drawn with the same cotangents for everybody."""

    def compute() -> Values:
        rows = flat(forward(x))
        found = named(rows)
        if layer is not None:
            leaves = {"input": x, **weights(layer)}
            grads = torch.autograd.grad(rows, list(leaves.values()), cotangents(rows))
            found |= {f"gradient of {name}": grad for name, grad in zip(leaves, grads, strict=True)}
        return found

    return compute


def given(forward: Forward, layer: nn.Module, x: Tensor) -> Callable[[], Values]:
    """What a rival in another process needs to compute the same: input, cotangents, weights by name."""

    def compute() -> Values:
        drawn = {f"cotangent {n}": each for n, each in enumerate(cotangents(flat(forward(x))))}
        return {"input": x, **drawn, **weights(layer)}

    return compute


def rows(shape: Shape, grad: bool) -> tuple[Tensor, Tensor]:
    """Input and cotangent of the output."""
    batch, time, width = shape
    return torch.randn(time, batch, width, requires_grad=grad), torch.randn(time, batch, width)


def multiply_adds(cell: str, steps: int, width: int, passes: int) -> float:
    """Of the two products of a cell over so many steps of one row; 3 passes with gradients, 1 without."""
    return 2.0 * GATES[cell] * width**2 * steps * passes

"""Cells of the package torchrecurrent as equations (benchmarks.equations), against the package's own layers."""

import importlib.util
import statistics
from functools import cache

import torch
from torch import Tensor

from benchmarks.equations import PUBLISHED, Published
from benchmarks.goals import Shape
from benchmarks.race import Check, Race, Whole, either, gradients, rows, values
from benchmarks.records import Time
from benchmarks.timing import Contestant, Effort, Measured

RIVAL = "torchrecurrent"


def race(published: Published, shape: Shape) -> Race:
    theirs, ours = published.pair(shape[2], shape[2])
    x, dy = rows(shape, grad=True)
    own, others = published.weights(ours), published.weights(theirs)
    others = {name: others[name] for name in own}

    def of_package(x: Tensor) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        y, state = theirs(x)
        return y, state[0] if isinstance(state, Tensor) else tuple(s[0] for s in state)

    return Race(
        [Contestant("ours", gradients(ours, own, x, dy)), *either(RIVAL, gradients(of_package, others, x, dy))],
        [Check("ours", values(ours, own, x), values(of_package, others, x))],
    )


@cache
def measured(published: Published, shape: Shape, effort: Effort, threads: int) -> Measured:
    """Once a process: a row of its own, and the median, are of the same measurement."""
    return race(published, shape).run(effort)


class Package(Whole):
    """One cell; or "ten cells", the ratio in the middle of all, as the times of somebody who takes one second."""

    def run(self, effort: Effort) -> Measured:
        if importlib.util.find_spec(RIVAL) is None:
            return Measured({}, missing={RIVAL: f"{RIVAL} not installed (pip install -c constraints.txt {RIVAL})"})
        chosen = [each for each in PUBLISHED if self.cell in (each.name, "ten cells")]
        found = [measured(each, self.shape, effort, torch.get_num_threads()) for each in chosen]
        if len(found) == 1:
            return found[0]
        ratio = statistics.median(each.times[RIVAL].median / each.times["ours"].median for each in found)
        worst = max(each.differences["ours"] for each in found)
        return Measured({"ours": Time(1.0, 1.0), RIVAL: Time(ratio, ratio)}, differences={"ours": worst})

"""What is raced: for every kind of goal, who runs, and whose values and gradients must agree before any is timed."""

import json
import subprocess
import sys
from collections.abc import Callable

import torch

from benchmarks import cuda, features, layers, linear, own, parts, precision, trainer
from benchmarks.goals import Shape
from benchmarks.memory import Memory, Thrift
from benchmarks.package import Package
from benchmarks.race import Check, Race, Whole
from benchmarks.records import Time
from benchmarks.timing import Contestant, Effort, Measured


class Preparation(Whole):
    """Trace, passes and packing of cells never seen before, in a process of its own (benchmarks.prepare)."""

    def run(self, effort: Effort) -> Measured:
        numbers = [str(torch.get_num_threads()), str(self.shape[2])]
        command = [sys.executable, "-m", "benchmarks.prepare", *numbers]
        first, *later = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = {"1 s": 1.0, "first cell": first, "0.1 s": 0.1, "later cells": max(later)}
        return Measured({name: Time(each, each) for name, each in seconds.items()})


def product(cell: str, shape: Shape) -> Race:
    """The machine's recurrent product against the multiply-adds a second that the processor can do at all."""
    return Race(parts.product(cell, shape), [])


def pointwise(cell: str, shape: Shape) -> Race:
    """The interpreted pointwise part of an LSTM step on one tile of H numbers, against the same as one loop."""
    assert (cell, shape[1]) == ("lstm", parts.Pointwise.STEPS)
    tile = parts.Pointwise(shape[2])
    return Race(
        [Contestant("ours", tile.interpreted), Contestant("fused loop", tile.fused)],
        [Check("ours", tile.interpreted, tile.fused)],
    )


CASES: dict[str, Callable[[str, Shape], Race | Package | Preparation | Memory | trainer.Reading]] = {
    "train": layers.train,
    "directions": layers.directions,
    "infer": layers.infer,
    "call": layers.infer,
    "lengths": layers.lengths,
    "stream": layers.stream,
    "width": layers.width,
    "second": layers.second,
    "steps": layers.steps,
    "steps forward": layers.steps_forward,
    "own": own.own,
    "linear": linear.linear,
    "resets": features.resets,
    "record": features.record,
    "thrift": features.thrift,
    "regularised": features.regularised,
    "decaying": features.decaying,
    "decaying forward": features.decaying_forward,
    "memory": Memory,
    "thrift memory": Thrift,
    "package": Package,
    "product": product,
    "pointwise": pointwise,
    "prepare": Preparation,
    "loop": trainer.loop,
    "reading": trainer.Reading,
    "cuda": cuda.cuda,
    **precision.KINDS,
}

"""A user's own cell in a Python loop, under torch.compile."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from benchmarks.cells import weights
from benchmarks.own import CELLS, unbound
from benchmarks.race import cotangents, flat, gradients, named
from benchmarks.records import Task

Arrays = Mapping[str, np.ndarray]


def variants(task: Task, given: Arrays) -> Mapping[str, Callable[[], "Loop"]]:
    torch.set_num_threads(task.threads)
    return {"torch.compile": lambda: Loop(task, given)}


class Loop:
    """What its author would write, compiled as one graph: pieces of it would be ready sooner, and slower."""

    def __init__(self, task: Task, given: Arrays) -> None:
        self.layer = CELLS[task.cell](task.shape[2])
        self.leaves = weights(self.layer)
        with torch.no_grad():
            for name, weight in self.leaves.items():
                weight.copy_(torch.from_numpy(given[name]))
        self.x = torch.from_numpy(given["input"]).requires_grad_()
        self.forward = torch.compile(unbound(self.layer), fullgraph=True)
        self.train = gradients(self.forward, self.layer, self.x, torch.from_numpy(given["cotangent 0"]))

    def call(self) -> None:
        self.train()

    def values(self) -> Arrays:
        rows = flat(self.forward(self.x))
        grads = torch.autograd.grad(rows, [self.x, *self.leaves.values()], cotangents(rows))
        found = dict(zip(["input", *self.leaves], grads, strict=True))
        return {
            name: each.numpy()
            for name, each in (named(rows) | {f"gradient of {n}": g for n, g in found.items()}).items()
        }

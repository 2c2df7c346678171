"""One update of the weights: loss, gradient, clipping, AdamW. Every process of a run does the same ones."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recurra.data.keys import key
from recurra.tasks.task import State, Task
from recurra.training.finite import first_broken_gradient, first_broken_layer
from recurra.training.optimiser import optimiser
from recurra.training.schedule import learning_rate
from recurra.training.settings import Settings


class NotFinite(Exception):
    """The loss or the gradient is no longer a number; the message says of which layer or weight."""


class Reading(Protocol):
    """Who reads a batch: this process alone, or several that share it."""

    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State | None]:
        """What the gradient is taken of, and what the next batch starts from."""

    def mean(self, loss: float) -> float:
        """The mean loss of the whole batch."""

    def forward(self, epoch: int, index: int, state: State | None) -> None:
        """The forward pass of this process alone."""


class Alone:
    """This process reads every batch."""

    def __init__(self, task: Task) -> None:
        self.loss, self.forward = task.loss, task.forward

    def mean(self, loss: float) -> float:
        return loss


@dataclass(frozen=True)
class Update:
    """What one update was: the mean loss of its batch, the norm of the gradient before clipping, the learning rate."""

    loss: float
    norm: float
    rate: float


class Updates:
    """The weights in training, what AdamW remembers of them, and the state carried from batch to batch."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings
        self.optimiser = optimiser(task.network, settings)
        self.state: State | None = None
        self.reading: Reading = Alone(task)

    def step(self, number: int) -> Update:
        """The update that follows `number` updates. Raises NotFinite before any weight has changed."""
        epoch, index = divmod(number, self.task.batches)
        before = self.state if index else None
        rate = learning_rate(self.settings, number)
        self.task.network.train()
        self._seed(number)
        loss, after = self.reading.loss(epoch, index, before)
        value = self.reading.mean(float(loss.detach()))
        if not math.isfinite(value):
            where = self._where(number, epoch, index, before)
            raise NotFinite(f"The loss became {value} at step {number + 1}: {where}")
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clip(number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.state = after
        return Update(value, norm, rate)

    def _seed(self, number: int) -> None:
        torch.manual_seed(key(self.settings.seed, "step", number))

    def _clip(self, number: int) -> float:
        """Scales a long gradient down to `clip` (Pascanu et al. 2013, arXiv:1211.5063); gives its norm before."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.task.network.parameters(), self.settings.clip or math.inf))
        if not math.isfinite(norm):
            where = first_broken_gradient(self.task.network) or "the norm of the whole gradient"
            raise NotFinite(f"The gradient became {norm} at step {number + 1}, first in {where}")
        return norm

    def _where(self, number: int, epoch: int, index: int, before: State | None) -> str:
        self._seed(number)
        layer = first_broken_layer(self.task.network, lambda: self.reading.forward(epoch, index, before))
        if layer:
            return f"the first such value leaves {layer}"
        if self.task.share.of > 1:
            return "the rows that the first process reads are finite, those of another are not"
        return "every layer is finite, only the loss is not"

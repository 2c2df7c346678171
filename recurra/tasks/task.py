"""What the training loop asks of a task: batches, loss, validation, baselines, and the model to save."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.data.share import Share
from recurra.data.symbols import Vocabulary
from recurra.report.blocks import Section
from recurra.tasks.measure import Measure
from recurra.tasks.model import Model

State = tuple[Tensor, ...]


class Task(ABC):
    """A problem in training: its data, its network, and the model that the network belongs to.

    All that it gives is a function of its arguments and of PyTorch's default generator, which the trainer seeds before
    every step: so a run that is resumed is the run that was not stopped.
    """

    model: Model
    network: nn.Module
    baselines: dict[str, float]  # figures of the models to be beaten, on the validation data; {} until measured
    vocabulary: Vocabulary | None = None  # what its texts are read as
    notes: tuple[str, ...] = ()  # what was found in the data, a sentence each
    share: Share = Share()  # the rows of every batch that `loss` and `forward` read

    @property
    def measure(self) -> Measure:
        """What `validate` gives."""
        return self.model.measure

    @property
    @abstractmethod
    def batches(self) -> int:
        """Batches of one epoch."""

    @abstractmethod
    def work(self, epoch: int, index: int) -> int:
        """How much a batch holds, in the model's unit."""

    @abstractmethod
    def weights(self, epoch: int, index: int) -> NDArray[np.float64]:
        """How much each row of the whole batch counts in its mean loss, (B,): that is Σ_b w_b loss_b / Σ_b w_b."""

    @abstractmethod
    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State | None]:
        """Mean loss in nats of the rows that `share` reads, and what the next batch of the epoch starts from.

        The first batch of an epoch gets None. A state is tensors (n, B, …), B the rows that were read.
        """

    @abstractmethod
    def forward(self, epoch: int, index: int, state: State | None) -> None:
        """The forward pass of a batch alone, for hooks that look for a value that is not finite."""

    @abstractmethod
    def validate(self) -> float:
        """The measure on the data kept for validation."""

    @abstractmethod
    def measure_baselines(self, share: float = 1.0) -> dict[str, float]:
        """The same of the models to be beaten. share: of what they learn from, to see how long all of it takes."""

    def sample(self, length: int, temperature: float, seed: int) -> str:
        """What the model writes now, from the tasks that write."""
        return self.model.generate("", length, temperature, seed=seed)

    def sections(self, model: Model) -> list[Section]:
        """What the report shows of `model`, the best one of the run, on the validation data: a few seconds' work at
        most, and the same in every rerun but for what is `Measured`."""
        return []

    @abstractmethod
    def note(self, step: int, value: float | None) -> None:
        """Writes into the model what training has reached."""

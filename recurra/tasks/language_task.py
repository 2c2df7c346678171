"""What the training loop asks of language modelling: batches, loss, validation, samples, and the model to save."""

import math

import numpy as np
import torch
from torch import Tensor

from recurra.data.keys import key
from recurra.data.text import Stream, Text, Vocabulary
from recurra.tasks.language import LanguageNetwork, Sizes, State, measure
from recurra.tasks.language_model import DataCard, LanguageModel, Result, Settings, baseline_models
from recurra.tasks.task import Task

_VALIDATION_CHARACTERS = 100_000  # validations while training read at most so many characters of the validation text


class LanguageTask(Task):
    """A text to learn, split into a part to train on and, at its end, a part kept for validation.

    Truncated backpropagation through time: windows of one epoch follow one another along the text and each starts from
    the state the last one ended with, cut from its gradient. An epoch starts from zeros.
    """

    model: LanguageModel
    network: LanguageNetwork

    def __init__(
        self,
        text: Text,
        sizes: Sizes,
        dropout: float,
        batch: int,
        window: int,
        validation: float,
        seed: int,
        settings: Settings,
    ) -> None:
        part, kept = text.split(validation)
        self._kept = kept.content[:_VALIDATION_CHARACTERS]
        vocabulary = Vocabulary(part.content)
        self._stream = Stream(vocabulary.encode(part.content), batch, window, seed)
        self._numbers = vocabulary.encode(self._kept)
        self._training_text = part.content
        torch.manual_seed(key(seed, "weights"))
        self.network = LanguageNetwork(sizes, len(vocabulary), dropout)
        self.network.compute_in(str(settings.get("precision", "fp32")))
        self.network.start_from(torch.from_numpy(np.bincount(self._stream.numbers, minlength=len(vocabulary))))
        card = DataCard(text.name, text.sha256, len(text), validation)
        self.model = LanguageModel(self.network, sizes, vocabulary, settings, card)
        self.baselines: dict[str, float] = {}
        self.unknown = vocabulary.unknown(self._kept)

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return self._stream.windows

    def work(self, epoch: int, index: int) -> int:
        """Characters of a batch."""
        return self._stream.batch * self._stream.window

    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State]:
        """Loss (nats per character) of a batch, and the state that the next batch of the epoch starts from."""
        return self.network.loss(*self._stream(epoch, index), state)

    def forward(self, epoch: int, index: int, state: State | None) -> None:
        """The forward pass of a batch alone, for hooks that look for a value that is not finite."""
        self.network(self._stream(epoch, index)[0], state)

    def validate(self) -> float:
        """Bits per character on the validation text."""
        return measure(self.network, self._numbers) / math.log(2)

    def measure_baselines(self) -> dict[str, float]:
        """Bits per character of the n-gram models on the same text."""
        models = baseline_models(self._training_text, self.model.vocabulary)
        self.baselines = {name: model.bits_per_character(self._kept) for name, model in models.items()}
        return self.baselines

    def note(self, step: int, value: float | None) -> None:
        self.model.result = Result(step, value, self.baselines)

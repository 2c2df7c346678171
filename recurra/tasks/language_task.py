"""What the training loop asks of language modelling: batches, loss, validation, samples, and the model to save."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.corpus import Corpus
from recurra.data.keys import key
from recurra.data.numbers import encoded
from recurra.data.stream import Stream
from recurra.data.symbols import Vocabulary
from recurra.report.blocks import Section
from recurra.tasks.causal import State
from recurra.tasks.language import LanguageNetwork, Regularisation, Sizes, measure
from recurra.tasks.language_model import DataCard, LanguageModel, Result, Settings, baseline_models
from recurra.tasks.language_sections import sections
from recurra.tasks.model import Model
from recurra.tasks.task import Task

_VALIDATION_CHARACTERS = 100_000  # validations while training read at most so many characters of the end of a text,
_VALIDATION_OF_PART = 500_000  # or so many of a part that is there for it


class LanguageTask(Task):
    """A text to learn, split into a part to train on and a part kept for validation.

    Truncated backpropagation through time: windows of one epoch follow one another along the text and each starts from
    the state the last one ended with, cut from its gradient. An epoch starts from zeros.
    """

    model: LanguageModel
    network: LanguageNetwork

    def __init__(
        self,
        corpus: Corpus,
        vocabulary: Vocabulary,
        sizes: Sizes,
        regularisation: Regularisation,
        batch: int,
        window: int,
        validation: float,
        seed: int,
        settings: Settings,
    ) -> None:
        part, kept = corpus.split(validation)
        self._kept = kept.first(_VALIDATION_CHARACTERS if corpus.whole else _VALIDATION_OF_PART)
        numbers, counts = encoded(vocabulary, part)
        self._numbers = vocabulary.encode(self._kept)
        self._training_text = part
        torch.manual_seed(key(seed, "weights"))
        self.network = LanguageNetwork(sizes, len(vocabulary), regularisation)
        self.network.compute_in(str(settings.get("precision", "fp32")))
        self.network.start_from(torch.from_numpy(counts))
        parts = {} if corpus.whole else {part: len(text) for part, text in corpus.texts.items()}
        card = DataCard(corpus.name, corpus.sha256, len(corpus), validation, parts)
        self.model = LanguageModel(self.network, sizes, vocabulary, settings, card)
        self.vocabulary = vocabulary
        self._stream = Stream(numbers, batch, window, seed, self.model.unit)
        self.baselines: dict[str, float] = {}
        self.unknown = vocabulary.unknown(self._kept)
        self.notes = (*corpus.notes, *_notes(self.model, self.unknown))

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return self._stream.windows

    def work(self, epoch: int, index: int) -> int:
        """Symbols of a batch."""
        return self._stream.batch * self._stream.window

    def weights(self, epoch: int, index: int) -> NDArray[np.float64]:
        """One for each lane."""
        return np.ones(self._stream.batch)

    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State]:
        """Loss (nats per symbol) of a batch, and the state that the next batch of the epoch starts from."""
        return self.network.loss(*self._stream(epoch, index, self._lanes), state)

    def forward(self, epoch: int, index: int, state: State | None) -> None:
        """The forward pass of a batch alone, for hooks that look for a value that is not finite."""
        self.network(self._stream(epoch, index, self._lanes)[0], state)

    @property
    def _lanes(self) -> slice:
        return self.share.read(self._stream.batch)

    def validate(self) -> float:
        """Bits per character, or perplexity, on the validation text."""
        return self._figure(measure(self.network, self._numbers))

    def measure_baselines(self, share: float = 1.0) -> dict[str, float]:
        """The same of the n-gram models on the same text."""
        models = baseline_models(self._training_text, self.model.vocabulary, share)
        self.baselines = {name: self._figure(model.loss(self._kept)) for name, model in models.items()}
        return self.baselines

    def sections(self, model: Model) -> list[Section]:
        assert isinstance(model, LanguageModel)
        return sections(model, self._kept, torch.get_num_threads())

    def _figure(self, nats: float) -> float:
        return self.measure.of(nats) or 0.0

    def note(self, step: int, value: float | None) -> None:
        self.model.result = Result.of(self.model.vocabulary.kind, step, value, self.baselines)


def _notes(model: LanguageModel, unknown: dict[str, int]) -> tuple[str, ...]:
    """How many symbols there are, where they are not the characters, and how many of validation are unknown."""
    if model.vocabulary.kind == "characters":
        return ()
    missing = sum(unknown.values())
    are = "is" if missing == 1 else "are"
    more = f"; {missing:,} of the validation text {are} not among them" if missing else ""
    large = " So many are told apart by an adaptive softmax." if model.sizes.cutoffs else ""
    return (f"{len(model.vocabulary.symbols):,} different {model.unit} are known{more}.{large}",)

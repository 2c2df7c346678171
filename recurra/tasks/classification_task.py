"""What the training loop asks of classification: batches of like length, loss, accuracy, and the model to save."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.data.buckets import Buckets
from recurra.data.columns import Labelled
from recurra.data.keys import key
from recurra.data.split import Splits
from recurra.data.subwords import Reader, inputs, lexicon_of
from recurra.data.symbols import Lexicon
from recurra.data.vectors import Vectors
from recurra.report.blocks import Section
from recurra.tasks.classification import (
    Beginning,
    ClassificationNetwork,
    Sizes,
    balancing,
    fitted_temperature,
    fitted_threshold,
    loss_of,
    scores_of,
)
from recurra.tasks.classifier import Classifier, DataCard, Result, Settings
from recurra.tasks.classifier_sections import sections
from recurra.tasks.label_report import baseline_figures, encoded, micro_f1
from recurra.tasks.model import Model
from recurra.tasks.task import State, Task


class ClassificationTask(Task):
    """Labelled texts to learn. Nothing is carried from batch to batch."""

    model: Classifier
    network: ClassificationNetwork

    def __init__(
        self,
        splits: Splits,
        reader: Reader,
        buckets: Buckets,
        sizes: Sizes,
        beginning: Beginning,
        balanced: bool,
        seed: int,
        settings: Settings,
        card: DataCard,
        vectors: Vectors | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._splits, self._reader, self._buckets = splits, reader, buckets
        lexicon, subwords = lexicon_of(reader), None if isinstance(reader, Lexicon) else reader.subwords
        lessons = splits.lessons
        labels = sorted({label for row in lessons.sets for label in row})
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._targets = self._encoded(lessons)
        self._kept = [reader.encode(text) for text in splits.validation.texts]
        self._kept_targets = self._encoded(splits.validation)
        self._weights = balancing(self._targets, len(labels)) if balanced else None
        torch.manual_seed(key(seed, "weights"))
        self.network = ClassificationNetwork(
            sizes, len(lexicon), len(labels), beginning, None if subwords is None else len(subwords)
        )
        if vectors is not None:
            self.network.embedding.begin_with([vectors.rows.get(word) for word in lexicon.symbols])
        self.network.compute_in(str(settings.get("precision", "fp32")))
        self.model = Classifier(
            self.network, sizes, lexicon, labels, settings=settings, data=card, subwords=subwords, way=lessons.way
        )
        self.vocabulary = lexicon
        self.baselines = {}
        padding = f"{100 * buckets.padding(0):.1f} % of a step is padding."
        self.notes = (*splits.notes, *notes, f"{len(labels)} labels, {self.model.known}; {padding}")

    def _encoded(self, rows: Labelled) -> Tensor:
        return encoded(rows, self._numbers)

    @property
    def batches(self) -> int:
        return self._buckets.batches

    def work(self, epoch: int, index: int) -> int:
        """Symbols of a batch, padding left out."""
        return int(self._buckets.lengths[self._buckets.rows(epoch, index)].sum())

    def weights(self, epoch: int, index: int) -> NDArray[np.float64]:
        """Those of the labels of the rows; rows of several labels count the same."""
        rows = self._buckets.rows(epoch, index)
        if self._weights is None or self._targets.ndim > 1:
            return np.ones(len(rows))
        return self._weights[self._targets[torch.from_numpy(rows)]].double().numpy()

    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State | None]:
        rows = self._read(epoch, index)
        return loss_of(self._scores(rows), self._targets[torch.from_numpy(rows)], self._weights), None

    def forward(self, epoch: int, index: int, state: State | None) -> None:
        self._scores(self._read(epoch, index))

    def _read(self, epoch: int, index: int) -> NDArray[np.int64]:
        """The rows of a batch that are of the share."""
        rows = self._buckets.rows(epoch, index)
        return rows[self.share.read(len(rows))]

    def _scores(self, rows: NDArray[np.int64]) -> Tensor:
        scores: Tensor = self.network(*inputs(self._reader, [self._buckets.sequences[row] for row in rows]))
        return scores

    def validate(self) -> float:
        """Accuracy on the validation rows, or micro F1 where a row may have several labels.

        By these rows the temperature of the probabilities, and the threshold of several labels, are fitted anew.
        """
        scores, targets = scores_of(self.network, self._reader, self._kept), self._kept_targets
        if not scores.isfinite().all():
            return float("nan") if self.model.several else float((scores.argmax(1) == targets).double().mean())
        self.model.temperature = fitted_temperature(scores, targets)
        if not self.model.several:
            return float((scores.argmax(1) == targets).double().mean())
        probabilities = (scores / self.model.temperature).sigmoid()
        self.model.threshold = fitted_threshold(probabilities, targets)
        return micro_f1(probabilities >= self.model.threshold, targets)

    def measure_baselines(self, share: float = 1.0) -> dict[str, float]:
        self.baselines = baseline_figures(self._splits.lessons, self._splits.validation, share)
        return self.baselines

    def sections(self, model: Model) -> list[Section]:
        assert isinstance(model, Classifier)
        return sections(model, self._splits.validation, self._kept_targets, torch.get_num_threads())

    def note(self, step: int, value: float | None) -> None:
        several = self.model.several
        self.model.result = Result(step, None if several else value, self.baselines, value if several else None)

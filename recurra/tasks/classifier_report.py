"""The result of measuring a classifier: accuracy, F1 of each label, their mean, and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recurra.tasks.measure import Measure, verdict

ACCURACY = Measure("accuracy", "accuracy", lower_is_better=False, share=True)
_BINS = 15  # of the calibration error


@dataclass(frozen=True)
class LabelScore:
    """How well one label was told from all others: F1 = 2 P R / (P + R)."""

    precision: float
    recall: float
    f1: float
    rows: int  # that have the label


@dataclass(frozen=True)
class Classification:
    """How well the labels of a table were predicted."""

    data: str  # the name of the table, or of the part of it that was measured
    rows: int
    accuracy: float
    macro_f1: float  # mean of F1 over the labels, each label as much as any other
    loss: float  # mean of -ln p of the true label, nats
    calibration_error: float  # mean distance of the probability of the predicted label from how often it is right
    labels: dict[str, LabelScore]
    confusion: dict[str, dict[str, int]]  # true label: predicted label: rows
    baselines: dict[str, float] = field(default_factory=dict)  # accuracy of the models to be beaten on the same rows
    notes: tuple[str, ...] = ()  # what a reader must know to take the numbers rightly

    @property
    def verdict(self) -> str:
        """One line that says plainly who is ahead."""
        return verdict(self.accuracy, self.baselines, ACCURACY)

    def __str__(self) -> str:
        width = max(5, *map(len, self.labels))
        lines = [
            f"{self.data}: {ACCURACY.say(self.accuracy)} over {self.rows:,} row{'' if self.rows == 1 else 's'}, macro "
            f"F1 {100 * self.macro_f1:.2f} %, loss {self.loss:.3f}, calibration error "
            f"{100 * self.calibration_error:.1f} %.",
            f"{'label':<{width}}  precision  recall     F1    rows",
            *(
                f"{name:<{width}}  {100 * s.precision:9.2f}  {100 * s.recall:6.2f}  {100 * s.f1:5.2f}  {s.rows:6}"
                for name, s in self.labels.items()
            ),
        ]
        return "\n".join([*lines, self.verdict, *self.notes])


def accuracy(predicted: Sequence[str], labels: Sequence[str]) -> float:
    """The share of labels that were predicted rightly."""
    return sum(a == b for a, b in zip(predicted, labels, strict=True)) / len(labels)


def label_scores(confusion: Tensor, names: Sequence[str]) -> dict[str, LabelScore]:
    """Precision, recall and F1 from the counts (true, predicted); 0 where there is nothing to divide by.

    Labels that are neither among the rows nor predicted are left out.
    """
    right, true, guessed = confusion.diagonal().double(), confusion.sum(1).double(), confusion.sum(0).double()
    precision, recall = right / guessed.clamp(min=1), right / true.clamp(min=1)
    f1 = 2 * right / (true + guessed).clamp(min=1)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), [int(n) for n in true.tolist()])
    rows = (LabelScore(*row) for row in zip(*columns))
    met = (true + guessed > 0).tolist()
    return {name: score for name, score, there in zip(names, rows, met, strict=True) if there}


def report(
    data: str, probabilities: Tensor, targets: Tensor, names: Sequence[str], baselines: dict[str, float],
    notes: Sequence[str],
) -> Classification:  # fmt: skip
    """The report of probabilities (N, K) for the true labels (N,)."""
    predicted = probabilities.argmax(1)
    confusion = torch.bincount(targets * len(names) + predicted, minlength=len(names) ** 2).view(len(names), -1)
    scores = label_scores(confusion, names)
    return Classification(
        data=data,
        rows=len(targets),
        accuracy=float((predicted == targets).double().mean()),
        macro_f1=sum(s.f1 for s in scores.values()) / len(scores),
        loss=float(-probabilities.gather(1, targets[:, None]).clamp(min=1e-45).log().double().mean()),
        calibration_error=calibration_error(probabilities, targets),
        labels=scores,
        confusion={
            name: {names[k]: int(n) for k, n in enumerate(row) if n} for name, row in zip(names, confusion.tolist())
        },
        baselines=baselines,
        notes=tuple(notes),
    )


def calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    """Σ_b n_b / N |accuracy_b - mean confidence_b| over 15 bins of confidence. Guo et al. 2017, arXiv:1706.04599."""
    sure, predicted = probabilities.double().max(1)
    right = (predicted == targets).double()
    bins = (sure * _BINS).ceil().long().clamp(1, _BINS) - 1
    gaps = torch.zeros(_BINS, dtype=torch.double).index_add(0, bins, right - sure)
    return float(gaps.abs().sum() / len(targets))

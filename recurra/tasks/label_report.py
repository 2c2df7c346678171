"""The result of measuring a classifier whose texts may have several labels; the simple models beside any classifier."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recurra.data.columns import Labelled
from recurra.errors import DataError
from recurra.tasks.classification import loss_of
from recurra.tasks.classifier_report import LabelScore, accuracy
from recurra.tasks.linear import LinearModel, majority
from recurra.tasks.measure import Measure, verdict

MICRO_F1 = Measure("micro F1", "micro F1", lower_is_better=False, share=True)
_BASELINE_ROWS = 20_000  # the linear model reads at most so many of the first training rows


@dataclass(frozen=True)
class SeveralLabels:
    """How well the labels of texts were predicted, where each may have several, or none."""

    data: str  # the name of the table, or of the part of it that was measured
    rows: int
    micro_f1: float  # F1 of all decisions together, label by label and row by row
    macro_f1: float  # mean of F1 over the labels, each label as much as any other
    exact: float  # share of rows whose labels are all right, and no other
    loss: float  # mean over rows and labels of -ln p of what is true, nats
    threshold: float  # probability from which on a label is given, fitted on the validation rows
    labels: dict[str, LabelScore]
    baselines: dict[str, float] = field(default_factory=dict)  # micro F1 of the models to be beaten on the same rows
    notes: tuple[str, ...] = ()  # what a reader must know to take the numbers rightly

    @property
    def verdict(self) -> str:
        """One line that says plainly who is ahead."""
        return verdict(self.micro_f1, self.baselines, MICRO_F1)

    def __str__(self) -> str:
        width = max(5, *map(len, self.labels))
        lines = [
            f"{self.data}: {MICRO_F1.say(self.micro_f1)} over {self.rows:,} row{'' if self.rows == 1 else 's'}, macro "
            f"F1 {100 * self.macro_f1:.2f} %, all labels right in {100 * self.exact:.2f} %, loss {self.loss:.3f}; a "
            f"label is given from a probability of {self.threshold:.2f} on.",
            f"{'label':<{width}}  precision  recall     F1    rows",
            *(
                f"{name:<{width}}  {100 * s.precision:9.2f}  {100 * s.recall:6.2f}  {100 * s.f1:5.2f}  {s.rows:6}"
                for name, s in self.labels.items()
            ),
        ]
        return "\n".join([*lines, self.verdict, *self.notes])


def encoded(rows: Labelled, numbers: Mapping[str, int]) -> Tensor:
    """The labels of rows as numbers (N,), or where a row may have several as ones and zeros (N, K).

    Raises DataError for a label that has no number.
    """
    for line, labels in zip(rows.lines, rows.sets):
        for label in labels:
            if label not in numbers:
                raise DataError(
                    f"Line {line} of {rows.name} has the label {label!r}, which the model does not know; it knows "
                    f"{', '.join(numbers)}."
                )
    if not rows.several:
        return torch.tensor([numbers[label] for label in rows.labels])
    targets = torch.zeros(len(rows), len(numbers))
    for row, labels in enumerate(rows.sets):
        targets[row, [numbers[label] for label in labels]] = 1
    return targets


def micro_f1(given: Tensor, targets: Tensor) -> float:
    """2 hits / (given + true), over all rows and labels (N, K); 1 where there is nothing to give and nothing was."""
    hits, all_ = float((given & (targets > 0)).sum()), float(given.sum() + targets.sum())
    return 2 * hits / all_ if all_ else 1.0


def several_report(
    data: str, probabilities: Tensor, targets: Tensor, names: Sequence[str], threshold: float,
    baselines: dict[str, float], notes: Sequence[str],
) -> SeveralLabels:  # fmt: skip
    """The report of probabilities (N, K) for the labels (N, K)."""
    given, true = probabilities >= threshold, targets > 0
    hits, guessed, there = (each.sum(0).double() for each in (given & true, given, true))
    precision, recall = hits / guessed.clamp(min=1), hits / there.clamp(min=1)
    f1 = 2 * hits / (guessed + there).clamp(min=1)
    rows = zip(precision.tolist(), recall.tolist(), f1.tolist(), [int(n) for n in there.tolist()])
    met = (guessed + there > 0).tolist()
    scores = {name: LabelScore(*row) for name, row, some in zip(names, rows, met) if some}
    return SeveralLabels(
        data=data,
        rows=len(targets),
        micro_f1=micro_f1(given, targets),
        macro_f1=sum(s.f1 for s in scores.values()) / max(1, len(scores)),
        exact=float((given == true).all(1).double().mean()),
        loss=float(loss_of(probabilities.double().clamp(1e-12, 1 - 1e-12).logit(), targets)),
        threshold=threshold,
        labels=scores,
        baselines=baselines,
        notes=tuple(notes),
    )


def baseline_figures(train: Labelled, rows: Labelled, share: float = 1.0) -> dict[str, float]:
    """The figure on `rows` of the most frequent training labels, and of the linear model on character n-grams.

    It is the accuracy, or where a row may have several labels micro F1; the most frequent ones are then those that at
    least half the training rows have, or the one that most have. share: of the rows that the linear model would learn
    from.
    """
    most = min(len(train), _BASELINE_ROWS)
    few = train.take(range(math.ceil(most * share)))
    suffix = f" of the first {_BASELINE_ROWS:,} rows" if most < len(train) else ""
    linear = LinearModel(few.texts, few.sets)
    if not rows.several:
        return {
            "majority class": accuracy([majority(train.labels)] * len(rows), rows.labels),
            "linear model on character n-grams" + suffix: accuracy(linear.predict(rows.texts), rows.labels),
        }
    names = sorted({label for labels in (*train.sets, *rows.sets) for label in labels})
    numbers = {name: number for number, name in enumerate(names)}
    targets = encoded(rows, numbers)
    counts = Counter(label for labels in train.sets for label in labels)
    often = [label for label, count in counts.items() if 2 * count >= len(train)] or [majority(list(counts.elements()))]
    always = torch.zeros_like(targets, dtype=torch.bool)
    always[:, [numbers[label] for label in often]] = True
    given = torch.zeros_like(always)
    for row, labels in enumerate(linear.predict_several(rows.texts)):
        given[row, [numbers[label] for label in labels]] = True
    return {
        "majority class": micro_f1(always, targets),
        "linear model on character n-grams" + suffix: micro_f1(given, targets),
    }

"""The result of measuring a tagger: F1 of spans as conlleval counts it, or accuracy; the worst sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recurra.data.schemes import Span, spans
from recurra.data.tagged import Tagged
from recurra.tasks.classifier_report import ACCURACY, LabelScore
from recurra.tasks.classifier_report import accuracy as share_of
from recurra.tasks.measure import Measure, verdict

F1 = Measure("span F1", "F1", lower_is_better=False, share=True)
WORST = 50  # sentences of a report


def measure_of(scheme: str | None) -> Measure:
    """What tags of a scheme are measured by; of tags that say no spans the share that is right."""
    return ACCURACY if scheme is None else F1


def figure(scheme: str | None, predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """The same as a number."""
    return _together(scores_of(scheme, predicted, true)).f1  # of single tags F1 is the share that is right


@dataclass(frozen=True)
class WrongSentence:
    """A sentence whose tags were not all right."""

    words: list[str]
    tags: list[str]  # the true ones
    predicted: list[str]
    loss: float  # -ln p of the true tags, nats
    place: str  # where it is in the data
    label: str | None = None  # of the sentence, where it has one
    predicted_label: str | None = None


@dataclass(frozen=True)
class Tagging:
    """How well the tags of sentences were predicted."""

    data: str  # the name of the file, or of the part of it that was measured
    sentences: int
    words: int
    f1: float | None  # of all spans together (micro average), as conlleval and seqeval have it; None without spans
    precision: float | None
    recall: float | None
    accuracy: float  # share of the words whose tag is right
    whole: float  # share of the sentences whose tags, and label, are all right
    label_accuracy: float | None  # share of the sentences whose label is right; None where they have none
    labels: dict[str, LabelScore]  # of each kind of span, or each tag; their field `rows` counts spans, or words
    sentence_labels: dict[str, LabelScore] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)  # the same figure of the models to be beaten
    label_baselines: dict[str, float] = field(default_factory=dict)  # accuracy of the labels
    worst: list[WrongSentence] = field(default_factory=list)  # the least likely first
    notes: tuple[str, ...] = ()  # what a reader must know to take the numbers rightly

    @property
    def value(self) -> float:
        """The figure that models are compared by: F1, or accuracy."""
        return self.accuracy if self.f1 is None else self.f1

    @property
    def verdict(self) -> str:
        """One line that says plainly who is ahead."""
        return verdict(self.value, self.baselines, ACCURACY if self.f1 is None else F1)

    def __str__(self) -> str:
        figures = [f"{ACCURACY.say(self.accuracy)} of words"]
        if self.f1 is not None and self.precision is not None and self.recall is not None:
            spans_of = f"precision {100 * self.precision:.2f}, recall {100 * self.recall:.2f}"
            figures.insert(0, f"{F1.say(self.f1)} ({spans_of})")
        if self.label_accuracy is not None:
            figures.append(f"{ACCURACY.say(self.label_accuracy)} of sentence labels")
        lines = [f"{self.data}: {', '.join(figures)}, over {self.sentences:,} sentences of {self.words:,} words."]
        for what, scores in (("tag" if self.f1 is None else "span", self.labels), ("label", self.sentence_labels)):
            lines += _table(what, scores)
        lines.append(self.verdict)
        if self.label_accuracy is not None and self.label_baselines:
            lines.append(f"Sentence labels: {verdict(self.label_accuracy, self.label_baselines, ACCURACY)}")
        return "\n".join([*lines, *self.notes])


def _table(what: str, scores: dict[str, LabelScore]) -> list[str]:
    if not scores:
        return []
    width = max(5, *map(len, scores))
    rows = (
        f"{name:<{width}}  {100 * s.precision:9.2f}  {100 * s.recall:6.2f}  {100 * s.f1:5.2f}  {s.rows:6}"
        for name, s in scores.items()
    )
    return [f"{what:<{width}}  precision  recall     F1  number", *rows]


Counts = tuple[int, int, int]  # right, predicted, true


def scores_of(
    scheme: str | None, predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]
) -> dict[str, Counts]:
    """What was right, predicted and true of each kind of span, or of each tag; by name."""
    right, guessed, there = Counter[str](), Counter[str](), Counter[str]()
    for guess, tags in zip(predicted, true, strict=True):
        found, wanted = _things(scheme, guess), _things(scheme, tags)
        right.update(thing.kind for thing in found & wanted)
        guessed.update(thing.kind for thing in found)
        there.update(thing.kind for thing in wanted)
    return {name: (right[name], guessed[name], there[name]) for name in sorted({*guessed, *there})}


def _things(scheme: str | None, tags: Sequence[str]) -> set[Span]:
    return {Span(tag, n, n + 1) for n, tag in enumerate(tags)} if scheme is None else set(spans(tags))


def _score(right: int, guessed: int, there: int) -> LabelScore:
    """0 where there is nothing to divide by, as seqeval has it."""
    f1 = 2 * right / (guessed + there) if guessed + there else 0.0
    return LabelScore(right / guessed if guessed else 0.0, right / there if there else 0.0, f1, there)


def _together(counts: dict[str, Counts]) -> LabelScore:
    """Of all names together: the micro average."""
    return _score(*(sum(each[n] for each in counts.values()) for n in range(3)))


def report(
    rows: Tagged, scheme: str | None, predicted: list[list[str]], predicted_labels: list[str] | None,
    losses: Sequence[float], baselines: dict[str, float], label_baselines: dict[str, float], notes: Sequence[str],
) -> Tagging:  # fmt: skip
    """The report of predicted tags, and labels, for tagged sentences."""
    counts = scores_of(scheme, predicted, rows.tags)
    together = _together(counts)
    labelled = rows.labels is not None and predicted_labels is not None
    true_labels, said = (rows.labels or []) if labelled else [], predicted_labels or []
    wrong = [
        n for n in range(len(rows))
        if predicted[n] != rows.tags[n] or (labelled and said[n] != true_labels[n])
    ]  # fmt: skip
    sentence_counts = scores_of(None, [said], [true_labels]) if labelled else {}
    return Tagging(
        data=rows.name,
        sentences=len(rows),
        words=rows.count,
        f1=None if scheme is None else together.f1,
        precision=None if scheme is None else together.precision,
        recall=None if scheme is None else together.recall,
        accuracy=figure(None, predicted, rows.tags),
        whole=1 - len(wrong) / len(rows),
        label_accuracy=share_of(said, true_labels) if labelled else None,
        labels={name: _score(*each) for name, each in counts.items()},
        sentence_labels={name: _score(*each) for name, each in sentence_counts.items()},
        baselines=baselines,
        label_baselines=label_baselines,
        worst=[_wrong(rows, n, predicted, losses, said) for n in sorted(wrong, key=lambda n: -losses[n])[:WORST]],
        notes=tuple(notes),
    )


def _wrong(
    rows: Tagged, n: int, predicted: list[list[str]], losses: Sequence[float], labels: list[str]
) -> WrongSentence:
    both: dict[str, Any] = {"label": rows.labels[n], "predicted_label": labels[n]} if rows.labels and labels else {}
    return WrongSentence(rows.words[n], rows.tags[n], predicted[n], losses[n], rows.place(n, 0), **both)

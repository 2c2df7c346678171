"""A trained tagger of words: it predicts, it is measured beside simple models, it is a folder of plain data."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch

from recurra import files
from recurra.data.columns import Labelled
from recurra.data.schemes import SCHEMES, Span, spans, tags_of, written
from recurra.data.spelling import SPLITS, Spelling
from recurra.data.tagged import Tagged
from recurra.data.tagged_split import TaggedSplits, check_known, read_tagged_rows, read_tagged_splits
from recurra.errors import DataError, FileError, InputError, kind_of
from recurra.tasks.averaged_perceptron import AveragedPerceptron, FrequentTags
from recurra.tasks.encoders import described
from recurra.tasks.label_report import baseline_figures
from recurra.tasks.measure import Measure, verdict
from recurra.tasks.model import Model, rounding_said, trained_precision
from recurra.tasks.tagger_report import Tagging, figure, measure_of, report
from recurra.tasks.tagging import Read, Sizes, TaggingNetwork, allowed, read
from recurra.unroll.precision import check_here

Settings = dict[str, str | int | float | bool | None]
_BASELINE_WORDS = 250_000  # the perceptron reads at most so many of the first training words


class DataCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sentences a model was trained on: how they are found and split again, and what their columns are."""

    name: str
    path: str  # "" where they came from no file
    sha256: str
    sentences: dict[str, int]  # part: its sentences
    text: str | None
    label: str | None
    validation: float
    test: float
    seed: int


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training reached on the validation sentences: F1 of spans, or accuracy of tags that say none."""

    step: int
    value: float | None
    baselines: dict[str, float]


class _Record(msgspec.Struct, frozen=True):
    """The fields of `model.json` that this task writes and reads."""

    task: str
    sizes: Sizes
    split: str
    units: list[str]
    parts: list[str]
    tags: list[str]
    scheme: str | None
    data_scheme: str | None
    labels: list[str]
    settings: Settings
    data: DataCard | None
    result: Result | None


@dataclass(frozen=True)
class TaggedSentence:
    """What a model says of a sentence."""

    words: list[str]
    tags: list[str]
    spans: list[Span]  # kind, begin, end: words begin to end - 1; none where tags say none
    label: str | None = None  # of the sentence, from models that have labels
    probabilities: list[dict[str, float]] | None = None  # of the tags of each word, likeliest first, where asked for
    label_probabilities: dict[str, float] | None = None

    def __str__(self) -> str:
        """A word and its tag a line, as in a file of such words; the label before them."""
        head = [f"# label = {self.label}"] if self.label is not None else []
        return "\n".join([*head, *(f"{word}\t{tag}" for word, tag in zip(self.words, self.tags)), ""])


class Tagger(Model):
    """A tagger of words: `predict`, `evaluate`, `save`."""

    task: ClassVar[str] = "tagging"
    unit: ClassVar[str] = "words"
    unit_short: ClassVar[str] = "words"
    network: TaggingNetwork
    result: Result | None

    def __init__(
        self, network: TaggingNetwork, sizes: Sizes, spelling: Spelling, tags: list[str], scheme: str | None,
        data_scheme: str | None, labels: list[str], settings: Settings | None = None, data: DataCard | None = None,
        result: Result | None = None,
    ) -> None:  # fmt: skip
        self.network, self.sizes, self.spelling, self.tags, self.labels = network, sizes, spelling, tags, labels
        self.scheme, self.data_scheme = scheme, data_scheme  # of the network's tags, and of those that are written
        self.settings, self.data, self.result = settings or {}, data, result
        self.measure: Measure = measure_of(data_scheme)

    @property
    def description(self) -> str:
        what = "characters" if self.spelling.of_characters else "words"
        chain = "conditional random field" if self.sizes.output == "crf" else "softmax"
        return f"{described(self.sizes)}, {chain}, {len(self.spelling.units.symbols):,} {what}"

    def compute_in(self, precision: str) -> None:
        self.network.compute_in(precision)
        check_here(precision)

    @property
    def rounding(self) -> str:
        if self.network.encoder.precision != "int8":
            return ""
        return rounding_said(self.network.rounding_error(self.spelling.batch([["a"]])))

    # ---------------------------------------------------------------------------------------------------- predicting

    def predict(
        self, sentences: str | Iterable[str | Sequence[str]], probabilities: bool = False
    ) -> list[TaggedSentence]:
        """The tags of each sentence: a text, which is split as the training data was, or a list of words.

        probabilities: also those of every tag at every word, which take another pass. InputError for what is neither
        text nor words, or holds none.
        """
        rows = _sentences(sentences, self.spelling)
        found = read(self.network, self.spelling, rows, probabilities)
        return [self._sentence(words, tags, each) for words, tags, each in zip(rows, self.named(found), found)]

    def named(self, found: Sequence[Read]) -> list[list[str]]:
        """The tags of sentences by name, in the scheme of the training data."""
        names = [[self.tags[n] for n in each.tags.tolist()] for each in found]
        if self.data_scheme is None or self.scheme == self.data_scheme:
            return names
        return [written(spans(tags), len(tags), self.data_scheme) for tags in names]

    def _sentence(self, words: list[str], tags: list[str], found: Read) -> TaggedSentence:
        marginals = None
        if found.marginals is not None:
            marginals = [_ranked(dict(zip(self.tags, row))) for row in found.marginals.tolist()]
        labels = None
        if found.label is not None:
            labels = _ranked(dict(zip(self.labels, found.label.softmax(0).tolist())))
        label = None if labels is None else next(iter(labels))
        those = [] if self.data_scheme is None else spans(tags)
        return TaggedSentence(words, tags, those, label, marginals, labels)

    # ----------------------------------------------------------------------------------------------------- measuring

    def evaluate(self, data: Any) -> Tagging:
        """Measures the model on tagged sentences (a path, rows in memory) beside the simple models.

        Of the data it was trained on only the test part is measured (the validation part where there is none), and the
        result says so. The simple models learn the training sentences again; when those are no longer where they were,
        the result says that they are missing.
        """
        splits = self._splits(data)
        if splits is not None:
            part, what = (splits.test, "test") if splits.test else (splits.validation, "validation")
            return self._measured(
                part, splits.train, [f"The model was trained on this data; only its {what} part was measured."]
            )
        text, label = (self.data.text, self.data.label) if self.data else (None, None)
        rows, notes = read_tagged_rows(data, text, label, self.data_scheme)
        again = self._splits(self.data.path) if self.data and self.data.path else None
        return self._measured(rows, again.train if again else None, notes)

    def _splits(self, data: Any) -> TaggedSplits | None:
        """The parts of `data` if it is what the model was trained on; None if it is not, or cannot be read."""
        card = self.data
        if card is None or (isinstance(data, str | os.PathLike) and not Path(data).exists()):
            return None
        try:
            splits = read_tagged_splits(data, card.text, card.label, card.validation, card.test, card.seed)
        except (DataError, InputError):
            return None
        return splits if splits.sha256 == card.sha256 else None

    def _measured(self, rows: Tagged, train: Tagged | None, notes: list[str]) -> Tagging:
        kinds = set(self.tags) if self.scheme is None else {tag[2:] for tag in self.tags if tag != "O"}
        labels = set(self.labels) if self.labels else set(rows.labels or [])
        check_known(rows, kinds, labels, self.data_scheme, "the model does not know")
        baselines = baselines_of(train, rows, self) if train else {}
        label_baselines = label_baselines_of(train, rows) if train else {}
        if train is None:
            name = self.data.name if self.data else "the training data"
            notes.append(
                f"The simple models are missing, because they need the training data ({name}), which is not there."
            )
        notes += [self.rounding] if self.rounding else []
        found = read(self.network, self.spelling, rows.words, targets=self.encoded(rows.tags))
        said = [self.labels[int(each.label.argmax())] for each in found if each.label is not None] or None
        losses = [each.loss or 0.0 for each in found]
        return report(rows, self.data_scheme, self.named(found), said, losses, baselines, label_baselines, notes)

    def encoded(self, tags: Sequence[Sequence[str]]) -> list["np.ndarray[tuple[int], np.dtype[np.int64]]"]:
        """Tags of the data's scheme as the network's numbers."""
        numbers = {tag: number for number, tag in enumerate(self.tags)}
        mine = tags if self.scheme is None else [written(spans(each), len(each), self.scheme) for each in tags]
        return [np.array([numbers[tag] for tag in each], np.int64) for each in mine]

    # -------------------------------------------------------------------------------------------------------- folder

    def folder(self) -> tuple[dict[str, object], dict[str, bytes]]:
        record = _Record(
            self.task, self.sizes, self.spelling.split, self.spelling.units.symbols, self.spelling.parts.symbols,
            self.tags, self.scheme, self.data_scheme, self.labels, self.settings, self.data, self.result,
        )  # fmt: skip
        return msgspec.to_builtins(record), {
            "model.safetensors": files.pack(self.network.state_dict()),
            "README.md": self.card().encode(),
        }

    @classmethod
    def from_folder(cls, folder: files.Folder) -> "Tagger":
        record = files.typed(folder, _Record)
        _check(folder, record)
        spelling = Spelling(record.split, record.units, record.parts)
        tensors = files.unpack(folder, "model.safetensors")
        network = _empty(folder, record, spelling)
        files.check_shapes(folder, network.state_dict(), tensors, "'sizes', 'units', 'parts', 'tags' and 'labels'")
        network = _built(record, spelling)
        network.load_state_dict(tensors)
        network.eval()
        network.compute_in(trained_precision(folder, record.settings))
        return cls(
            network, record.sizes, spelling, record.tags, record.scheme, record.data_scheme, record.labels,
            record.settings, record.data, record.result,
        )  # fmt: skip

    def card(self) -> str:
        """The model card, Markdown."""
        names = self.tags if self.scheme is None else sorted({tag[2:] for tag in self.tags if tag != "O"})
        listed = ", ".join(name or "word" for name in names[:20]) + (" …" if len(names) > 20 else "")
        what = "Tags" if self.scheme is None else "Kinds of spans"
        lines = [
            "# Tagger",
            "",
            f"{self.description}, {self.parameters:,} parameters. {what}: {listed}. Written by Recurra; load it with "
            "`recurra.load(folder)`.",
        ]
        if self.labels:
            lines += ["", f"Labels of sentences: {', '.join(self.labels)}."]
        if self.data:
            rows = ", ".join(f"{count:,} for {part}" for part, count in self.data.sentences.items())
            about = f"{self.data.name}: sentences {rows}; sha256 of words, tags and labels `{self.data.sha256}`."
            lines += ["", "## Data", "", about]
        if self.result and self.result.value is not None:
            line = verdict(self.result.value, self.result.baselines, self.measure)
            lines += ["", "## Result", "", f"After {self.result.step} steps, on the validation sentences: {line}"]
        return "\n".join([*lines, "", "## Limits", "", _LIMITS, ""])


_LIMITS = (
    "It knows the tags above and always answers with some of them. Words that training did not have are known by their "
    "letters only. The validation sentences chose the best checkpoint, so their figures are slightly on the good side."
)


def baselines_of(train: Tagged, rows: Tagged, model: Tagger, share: float = 1.0) -> dict[str, float]:
    """F1, or accuracy, on `rows` of the most frequent tag of each word, and of the averaged perceptron.

    share: of the sentences that the perceptron would learn from.
    """
    count, words = 0, 0
    while count < len(train) and words < _BASELINE_WORDS:
        words, count = words + len(train.words[count]), count + 1
    few = train.take(range(math.ceil(count * share)))
    suffix = f" of the first {count:,} sentences" if count < len(train) else ""
    free = np.ones((len(model.tags) + 1,) * 2, np.bool_) if model.scheme is None else allowed(model.tags, model.scheme)
    forbidden = np.where(free, 0.0, -np.inf).astype(np.float32)
    perceptron = AveragedPerceptron(
        few.words, model.encoded(few.tags), len(model.tags), forbidden, model.spelling.of_characters
    )
    scheme = model.data_scheme
    guesses = model.named([Read(tags) for tags in perceptron.predict(rows.words)])
    return {
        "most frequent tag of each word": figure(
            scheme, FrequentTags(train.words, train.tags).predict(rows.words), rows.tags
        ),
        "averaged perceptron" + suffix: figure(scheme, guesses, rows.tags),
    }


def label_baselines_of(train: Tagged, rows: Tagged) -> dict[str, float]:
    """Accuracy on `rows` of the most frequent label of a sentence, and of a linear model; none without labels."""
    if train.labels is None or rows.labels is None:
        return {}
    learned, measured = (
        Labelled(each.name, [" ".join(words) for words in each.words], each.labels or [], [0] * len(each), "", "")
        for each in (train, rows)
    )
    return baseline_figures(learned, measured)


def _ranked(probabilities: dict[str, float]) -> dict[str, float]:
    return dict(sorted(probabilities.items(), key=lambda item: -item[1]))


def _sentences(sentences: Any, spelling: Spelling) -> list[list[str]]:
    listed = [sentences] if isinstance(sentences, str) else list(sentences)
    rows = []
    for place, each in enumerate(listed):
        if isinstance(each, str):
            words = spelling.words(each)
        elif isinstance(each, (list, tuple)) and all(isinstance(word, str) and word for word in each):
            words = list(each)
        else:
            raise InputError(
                f"sentences[{place}] is {kind_of(each)}; give a text, or a list of words that are not empty."
            )
        if not words:
            raise InputError(f"sentences[{place}] holds no word; leave it out.")
        rows.append(words)
    if not rows:
        raise InputError("sentences is empty; give at least one text, or list of words.")
    return rows


def _check(folder: files.Folder, record: _Record) -> None:
    for name, values in (("units", record.units), ("parts", record.parts), ("tags", record.tags),
                         ("labels", record.labels)):  # fmt: skip
        if len(set(values)) != len(values) or (name == "tags" and len(values) < 2):
            raise FileError(f"{folder.manifest}: field '{name}' has a value twice, or fewer values than are needed.")
    if record.split not in SPLITS:
        raise FileError(f"{folder.manifest}: field 'split' is {record.split!r}, and there are {', '.join(SPLITS)}.")
    for name, scheme in (("scheme", record.scheme), ("data_scheme", record.data_scheme)):
        if scheme is not None and scheme not in SCHEMES:
            raise FileError(f"{folder.manifest}: field '{name}' is {scheme!r}, and there are {', '.join(SCHEMES)}.")
    if (record.scheme is None) != (record.data_scheme is None):
        raise FileError(f"{folder.manifest}: of fields 'scheme' and 'data_scheme' only one is there.")
    if record.scheme is not None:
        kinds = dict.fromkeys(tag[2:] for tag in record.tags if tag != "O")
        if record.tags != tags_of(kinds, record.scheme):
            raise FileError(f"{folder.manifest}: field 'tags' does not hold all tags of the scheme {record.scheme}.")


def _built(record: _Record, spelling: Spelling) -> TaggingNetwork:
    return TaggingNetwork(record.sizes, spelling, record.tags, record.scheme, len(record.labels))


def _empty(folder: files.Folder, record: _Record, spelling: Spelling) -> TaggingNetwork:
    """A network of these sizes without memory for its weights: a wrong size in a file must not fill the memory."""
    try:
        with torch.device("meta"):
            return _built(record, spelling)
    except (ValueError, RuntimeError, TypeError, OverflowError, KeyError, AssertionError) as error:
        raise FileError(f"{folder.manifest}: field 'sizes' names no network that can be built: {error}.") from None

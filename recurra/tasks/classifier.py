"""A trained classifier of texts: it predicts, it is measured beside the simple models, it is a folder of plain data."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from recurra import files
from recurra.cells.by_name import check_named
from recurra.data.columns import Labelled
from recurra.data.label_sets import ONE
from recurra.data.memory import items
from recurra.data.parts import parts_of
from recurra.data.split import Splits, read_rows, read_splits
from recurra.data.subwords import Dictionary, Subwords
from recurra.data.symbols import KINDS, Lexicon
from recurra.errors import DataError, FileError, InputError, kind_of
from recurra.report.blocks import About
from recurra.tasks.classification import ClassificationNetwork, Sizes, scores_of
from recurra.tasks.classifier_report import ACCURACY, Classification, report
from recurra.tasks.classifier_sections import about
from recurra.tasks.encoders import described
from recurra.tasks.label_report import MICRO_F1, SeveralLabels, baseline_figures, encoded, several_report
from recurra.tasks.measure import Measure, verdict
from recurra.tasks.model import Model, rounding_said, trained_precision
from recurra.unroll.precision import check_here

Settings = dict[str, str | int | float | bool | None]


class DataCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table a model was trained on: how it is found and split again, and what its columns are."""

    name: str
    path: str  # "" where it came from no file
    sha256: str
    rows: dict[str, int]  # part: its rows
    text: str
    label: str
    validation: float
    test: float
    seed: int
    extra: str = ""  # the path of more rows to train on


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training reached on the validation rows: accuracies, or micro F1."""

    step: int
    accuracy: float | None
    baselines: dict[str, float]
    micro_f1: float | None = None  # where a text may have several labels

    @property
    def value(self) -> float | None:
        """The figure."""
        return self.accuracy if self.micro_f1 is None else self.micro_f1


class _Record(msgspec.Struct, frozen=True):
    """The fields of `model.json` that this task writes and reads."""

    task: str
    sizes: Sizes
    symbol_kind: str
    symbols: list[str]
    labels: list[str]
    temperature: float
    settings: Settings
    data: DataCard | None
    result: Result | None
    subwords: list[str] | None = None
    several: str = ONE  # how several labels a row are written
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5


class Classifier(Model):
    """A classifier of texts: `predict`, `probabilities`, `evaluate`, `save`."""

    task: ClassVar[str] = "classification"
    unit: ClassVar[str] = "symbols"
    unit_short: ClassVar[str] = "symbols"
    network: ClassificationNetwork
    result: Result | None

    def __init__(
        self,
        network: ClassificationNetwork,
        sizes: Sizes,
        lexicon: Lexicon,
        labels: list[str],
        temperature: float = 1.0,
        settings: Settings | None = None,
        data: DataCard | None = None,
        result: Result | None = None,
        subwords: Subwords | None = None,
        way: str = ONE,
        threshold: float = 0.5,
    ) -> None:
        self.network, self.sizes, self.lexicon, self.labels = network, sizes, lexicon, labels
        self.subwords = subwords  # n-grams of words; None where words are read whole, or characters
        self.way = way  # how its tables write several labels a row; see `recurra.data.label_sets`
        self.threshold = threshold  # probability from which on one of several labels is given
        self.temperature = temperature  # of the probabilities; fitted on the validation rows
        self.settings, self.data, self.result = settings or {}, data, result

    @property
    def measure(self) -> Measure:  # type: ignore[override]
        """Accuracy, or micro F1 where a text may have several labels."""
        return MICRO_F1 if self.several else ACCURACY

    @property
    def several(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.way != ONE

    @property
    def description(self) -> str:
        return f"{described(self.sizes)}, {self.sizes.pooling} pooling, {self.known}"

    @property
    def known(self) -> str:
        """How many symbols it knows: "7,203 words and 12,034 n-grams of them"."""
        grams = f" and {len(self.subwords):,} n-grams of them" if self.subwords is not None else ""
        return f"{len(self.lexicon.symbols):,} {self.lexicon.kind}{grams}"

    def about(self) -> About:
        return about(self)

    def compute_in(self, precision: str) -> None:
        self.network.compute_in(precision)
        check_here(precision)

    @property
    def rounding(self) -> str:
        if self.network.encoder.precision != "int8":
            return ""
        return rounding_said(self.network.rounding_error())

    # ---------------------------------------------------------------------------------------------------- predicting

    def predict(self, texts: str | Iterable[str]) -> list[Any]:
        """The likeliest label of each text, or the set of its labels where a text may have several.

        Raises InputError for what is no text, or an empty one.
        """
        probabilities = self.distribution(texts)
        if self.several:
            return [{self.labels[n] for n in row.nonzero()[:, 0].tolist()} for row in probabilities >= self.threshold]
        return [self.labels[n] for n in probabilities.argmax(1).tolist()]

    def probabilities(self, texts: str | Iterable[str]) -> list[dict[str, float]]:
        """The probability of every label for each text, calibrated on the validation rows; likeliest first."""
        rows = [dict(zip(self.labels, row)) for row in self.distribution(texts).tolist()]
        return [dict(sorted(row.items(), key=lambda item: -item[1])) for row in rows]

    def unknown(self, texts: str | Iterable[str]) -> dict[str, int]:
        """Symbols of texts that are not known from training, with how often each occurs, most frequent first."""
        found: Counter[str] = Counter()
        for text in _texts(texts):
            found.update(self.lexicon.unknown(text))
        return dict(found.most_common())

    def distribution(self, texts: str | Iterable[str]) -> Tensor:
        """The same as a tensor (N, K), in the order of `labels`."""
        checked = _texts(texts)
        reader = Dictionary(self.lexicon, self.subwords) if self.subwords is not None else self.lexicon
        scores = scores_of(self.network, reader, [reader.encode(text) for text in checked])
        scores = scores / self.temperature
        return scores.sigmoid() if self.several else scores.softmax(1)

    # ----------------------------------------------------------------------------------------------------- measuring

    def evaluate(self, data: Any) -> Classification | SeveralLabels:
        """Measures the model on a table (a path, rows in memory) beside the majority class and a linear model.

        Of the data it was trained on only the test part is measured (the validation part where there is none), and the
        result says so. Both simple models learn the training rows again; when those are no longer where they were, the
        result says that they are missing.
        """
        splits = self._splits(data)
        if splits is not None:
            part, what = (splits.test, "test") if splits.test else (splits.validation, "validation")
            rows, notes = part, [f"The model was trained on this data; only its {what} part was measured."]
            return self._measured(rows, splits.lessons, notes)
        rows, notes = read_rows(_table_of(data), *self._columns(), known=self.labels, way=self.way)
        again = self._splits(self.data.path) if self.data and self.data.path else None
        return self._measured(rows, again.lessons if again else None, notes)

    def _columns(self) -> tuple[str | None, str | None]:
        return (self.data.text, self.data.label) if self.data else (None, None)

    def _splits(self, data: Any) -> Splits | None:
        """The parts of `data` if it is what the model was trained on; None if it is not, or cannot be read."""
        card = self.data
        if card is None or (isinstance(data, str | os.PathLike) and not Path(data).exists()):
            return None
        try:
            splits = read_splits(
                data, card.text, card.label, card.validation, card.test, card.seed, card.extra or None, self.several
            )
        except (DataError, InputError):
            return None
        return splits if splits.sha256 == card.sha256 else None

    def _measured(self, rows: Labelled, train: Labelled | None, notes: list[str]) -> Classification | SeveralLabels:
        targets = encoded(rows, {label: number for number, label in enumerate(self.labels)})
        baselines = baseline_figures(train, rows) if train else {}
        if train is None:
            name = self.data.name if self.data else "the training data"
            notes.append(
                f"The simple models are missing, because they need the training data ({name}), which is not there."
            )
        notes += [self.rounding] if self.rounding else []
        probabilities = self.distribution(rows.texts)
        if self.several:
            return several_report(rows.name, probabilities, targets, self.labels, self.threshold, baselines, notes)
        return report(rows.name, probabilities, targets, self.labels, baselines, notes)

    # -------------------------------------------------------------------------------------------------------- folder

    def folder(self) -> tuple[dict[str, object], dict[str, bytes]]:
        record = _Record(
            self.task, self.sizes, self.lexicon.kind, self.lexicon.symbols, self.labels, self.temperature,
            self.settings, self.data, self.result, self.subwords.grams if self.subwords is not None else None,
            self.way, self.threshold,
        )  # fmt: skip
        return msgspec.to_builtins(record), {
            "model.safetensors": files.pack(self.network.state_dict()),
            "README.md": self.card().encode(),
        }

    @classmethod
    def from_folder(cls, folder: files.Folder) -> "Classifier":
        record = files.typed(folder, _Record)
        _check_lists(folder, record)
        lexicon = Lexicon(record.symbol_kind, record.symbols)
        tensors = files.unpack(folder, "model.safetensors")
        network = _empty(folder, record)
        files.check_shapes(folder, network.state_dict(), tensors, "'sizes', 'symbols', 'subwords' and 'labels'")
        network.load_state_dict(tensors, assign=True)
        network.eval()
        network.compute_in(trained_precision(folder, record.settings))
        return cls(
            network, record.sizes, lexicon, record.labels, record.temperature, record.settings, record.data,
            record.result, subwords=None if record.subwords is None else Subwords(record.subwords),
            way=record.several, threshold=record.threshold,
        )  # fmt: skip

    def card(self) -> str:
        """The model card, Markdown."""
        labels = ", ".join(self.labels[:20]) + (" …" if len(self.labels) > 20 else "")
        lines = [
            "# Text classifier",
            "",
            f"{self.description}, {self.parameters:,} parameters. Labels: {labels}. Written by Recurra; load it with "
            "`recurra.load(folder)`.",
        ]
        if self.data:
            rows = ", ".join(f"{count:,} for {part}" for part, count in self.data.rows.items())
            lines += [
                "",
                "## Data",
                "",
                f"{self.data.name}: rows {rows}; sha256 of texts and labels `{self.data.sha256}`.",
            ]
        if self.result and self.result.value is not None:
            line = verdict(self.result.value, self.result.baselines, self.measure)
            lines += ["", "## Result", "", f"After {self.result.step} steps, on the validation rows: {line}"]
        return "\n".join([*lines, "", "## Limits", "", _LIMITS, ""])


_LIMITS = (
    "It knows the labels above and always answers with one of them, also for a text that has nothing to do with any. "
    "Symbols that training had fewer than `min_count` times are read as one reserved symbol. The validation rows chose "
    "the best checkpoint and the temperature of the probabilities, so their figures are slightly on the good side."
)


def _table_of(data: Any) -> Any:
    """Of a folder its test table, else that for validation; all else as it is."""
    if not isinstance(data, str | os.PathLike) or not Path(data).is_dir():
        return data
    parts = parts_of(data)
    if found := parts.get("test", parts.get("validation")):
        return found
    raise DataError(f"{os.fspath(data)} has no table for a test; name it test, as in {Path(data) / 'test.csv'}.")


def _texts(texts: str | Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        texts = [texts]
    listed = list(texts) if isinstance(texts, Iterator) else items(texts, "texts", "a string, or a list of strings")
    for place, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"texts[{place}] is {kind_of(text)}; give a string, or a list of strings.")
        if not text.strip():
            raise InputError(f"texts[{place}] is empty, and an empty text has no class; leave it out.")
    if not listed:
        raise InputError("texts is empty; give at least one text.")
    return listed


def _check_lists(folder: files.Folder, record: _Record) -> None:
    for name, values, least in (
        ("symbols", record.symbols, 0),
        ("labels", record.labels, 2),
        ("subwords", record.subwords or [], 0),
    ):
        if len(set(values)) != len(values) or len(values) < least:
            raise FileError(f"{folder.manifest}: field '{name}' has a value twice, or fewer than {least} values.")
    if record.symbol_kind not in KINDS:
        raise FileError(f"{folder.manifest}: field 'symbol_kind' is {record.symbol_kind!r}, not {' or '.join(KINDS)}.")
    if not record.temperature > 0:
        raise FileError(f"{folder.manifest}: field 'temperature' is {record.temperature!r}, not above 0.")


def _empty(folder: files.Folder, record: _Record) -> ClassificationNetwork:
    """A network of these sizes without memory for its weights: a wrong size in a file must not fill the memory."""
    subwords = None if record.subwords is None else len(record.subwords)
    if record.sizes.cell is not None:
        check_named(record.sizes.cell)
    try:
        with torch.device("meta"):
            return ClassificationNetwork(record.sizes, 1 + len(record.symbols), len(record.labels), subwords=subwords)
    except (ValueError, RuntimeError, TypeError, OverflowError, KeyError, AssertionError) as error:
        raise FileError(f"{folder.manifest}: field 'sizes' names no network that can be built: {error}.") from None

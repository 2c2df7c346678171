"""A trained language model: it writes, it is measured beside n-gram models, and it is a folder of plain data."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from recurra import files
from recurra.data import vocabulary as vocabularies
from recurra.data.corpus import Corpus, corpus_of, read_corpus
from recurra.data.demo import DEMO, demo_text
from recurra.data.documents import documents_of_memory
from recurra.data.memory import in_memory
from recurra.data.symbols import END, UNKNOWN, Kind, Vocabulary
from recurra.data.text import Source, Text
from recurra.errors import DataError, FileError
from recurra.report.blocks import About
from recurra.tasks.causal import State
from recurra.tasks.decoding import Decoder, check_length, check_prompt
from recurra.tasks.evaluation import MEASURES, NOUNS, Evaluation, bits_per_character, counted, verdict
from recurra.tasks.language import LanguageNetwork, Sizes
from recurra.tasks.language import measure as measure_loss
from recurra.tasks.language_sections import about
from recurra.tasks.measure import Measure
from recurra.tasks.model import Model, rounding_said, trained_precision
from recurra.tasks.ngram import NGram
from recurra.tasks.reading import NetworkReader, Reader
from recurra.tasks.scorer import Scorer
from recurra.unroll.precision import check_here

Settings = dict[str, str | int | float | bool | None]
BASELINES = (1, 3, 5)  # orders of the n-gram models that are always shown
_BASELINE_CHARACTERS = 5_000_000  # n-grams are counted on at most so many of the last characters,
_BASELINE_OF_LARGE = 1_000_000  # or so many of a text that is not held in memory
_MEASURED = 5_000_000  # characters of a text that are measured at most


class DataCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text a model was trained on; its last `validation` share was kept out, or the parts named so."""

    name: str
    sha256: str
    characters: int
    validation: float
    parts: dict[str, int] = {}  # of a folder: the characters of each part


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training reached on the validation text, by the measure of its symbols."""

    step: int
    bits_per_character: float | None  # of characters
    baselines: dict[str, float]
    perplexity: float | None = None  # of words and of pieces

    @classmethod
    def of(cls, kind: Kind, step: int, value: float | None, baselines: dict[str, float]) -> "Result":
        """A figure of validation."""
        if kind == "characters":
            return cls(step, value, baselines)
        return cls(step, None, baselines, value)

    @property
    def value(self) -> float | None:
        """The figure."""
        return self.bits_per_character if self.perplexity is None else self.perplexity


class _Record(msgspec.Struct, frozen=True):
    """The fields of `model.json` that this task writes and reads."""

    task: str
    sizes: Sizes
    vocabulary: str | list[str]
    settings: Settings
    data: DataCard | None
    result: Result | None
    symbol_kind: Kind = "characters"


class LanguageModel(Scorer, Model):
    """A model of a text: `generate`, `stream`, `score`, `fill`, `rank`, `evaluate`, `bits_per_character`, `save`."""

    task: ClassVar[str] = "language"
    network: LanguageNetwork
    result: Result | None

    def __init__(
        self,
        network: LanguageNetwork,
        sizes: Sizes,
        vocabulary: Vocabulary,
        settings: Settings | None = None,
        data: DataCard | None = None,
        result: Result | None = None,
    ) -> None:
        self.network, self.sizes, self.vocabulary = network, sizes, vocabulary
        self.settings, self.data, self.result = settings or {}, data, result

    @property
    def measure(self) -> Measure:  # type: ignore[override]
        """Bits per character, or the perplexity of words or pieces."""
        return MEASURES[self.vocabulary.kind]

    @property
    def unit(self) -> str:  # type: ignore[override]
        """What its work is counted in: characters, words, pieces."""
        return NOUNS[self.vocabulary.kind] + "s"

    @property
    def unit_short(self) -> str:  # type: ignore[override]
        return "chars" if self.vocabulary.kind == "characters" else self.unit

    @property
    def description(self) -> str:
        sizes = self.sizes
        kinds = {"cnn": "causal convolution", "transformer": "causal Transformer", "recurrent": str(sizes.cell).upper()}
        plural = "s" if sizes.layers > 1 else ""
        return f"{sizes.layers} {kinds[sizes.encoder]} layer{plural} of {sizes.hidden} units"

    def about(self) -> About:
        return about(self)

    def compute_in(self, precision: str) -> None:
        self.network.compute_in(precision)
        check_here(precision)

    @property
    def rounding(self) -> str:
        """In int8, the measured error in a sentence; else ""."""
        if self.network.precision != "int8" or (error := self.network.rounding_error()) is None:
            return ""
        return rounding_said(error)

    def reader(self) -> Reader:
        return NetworkReader(self.network)

    # ------------------------------------------------------------------------------------------------------- writing

    def stream(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Symbols that go on from the prompt, as text, one after another as they are drawn; `length`: how many at most.

        See `Decoder` for the other settings. An empty prompt begins after a line break, with a symbol that is no blank.
        A model of documents begins one with the prompt, and ends where it ends the document. Symbols of the prompt
        that the vocabulary does not know are read as the reserved unknown symbol, with a warning that names them; that
        symbol is never written.
        """
        return self._write(prompt, length, Decoder(temperature, top_k, top_p, seed))

    def _write(self, prompt: str, length: int, decoder: Decoder) -> Iterator[str]:
        check_prompt(prompt)
        if unknown := self.vocabulary.unknown(prompt):
            names = " ".join(map(repr, unknown))
            warnings.warn(f"The prompt has {names}, which the model does not know: read as unknown.", stacklevel=3)
        check_length(length)
        known = self.vocabulary.symbols
        read = (END if END in known else "") + prompt
        if prompt:
            return self._stream(self.vocabulary.encode(read), length, decoder, [])
        return self._stream(self.vocabulary.encode(read or self._before_a_text()), length, decoder, self._blanks())

    def _before_a_text(self) -> str:
        """What is read before an empty prompt: a line break, or in a text without any a symbol that it has."""
        known = self.vocabulary.symbols
        return next((c for c in "\n " if c in known), known[0] if known else "\n")

    def _blanks(self) -> list[int]:
        """The blanks of the vocabulary: a text that begins with indentation may at temperature 0 never leave it."""
        found = [number for number, s in enumerate(self.vocabulary.symbols, 1) if s.isspace() or s == END]
        return found if len(found) < len(self.vocabulary.symbols) else []

    @torch.no_grad()
    def _stream(self, read: NDArray[np.int64], length: int, decoder: Decoder, never_first: list[int]) -> Iterator[str]:
        self.network.eval()
        state: State | None = None
        symbols = torch.from_numpy(read)[:, None]
        before = int(read[-1])
        for place in range(length):
            scores, state = self.network(symbols, state)
            last = scores[-1, 0]
            last[UNKNOWN] = -torch.inf
            if place == 0:
                last[never_first] = -torch.inf
            drawn = decoder(last)
            symbols = torch.tensor([[drawn]])
            if self.vocabulary.text(drawn) == END:
                return
            yield self.vocabulary.after(before, drawn)
            before = drawn

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The same symbols as one string, without the prompt."""
        return "".join(self._write(prompt, length, Decoder(temperature, top_k, top_p, seed)))

    # ----------------------------------------------------------------------------------------------------- measuring

    def loss(self, text: str) -> float:
        """Mean of -ln p(s_t | s_{<t}) over all symbols of `text` but the first."""
        return measure_loss(self.network, self.vocabulary.encode(text))

    def bits_per_character(self, text: str) -> float:
        """The same in bits, all together, over its characters after that symbol."""
        return bits_per_character(self.loss(text), *counted(self.vocabulary, text))

    def evaluate(self, data: Any) -> Evaluation:
        """Measures the model on a text (a path, a folder, `demo`, a Text, documents) beside three n-gram models.

        Of a folder its test part is measured. Of the text it was trained on only the part kept for the test, or for
        validation where there is none, is measured, and the result says so. The n-gram models count the training text;
        when that is no longer where it was, the result says that they are missing.
        """
        corpus = as_corpus(data, self._column)
        training = self._training_text(corpus)
        part, notes = self._part_to_measure(corpus)
        content = part.first(_MEASURED)
        if len(content) < len(part):
            notes.append(f"Only its first {_MEASURED:,} characters were measured.")
        symbols, characters = counted(self.vocabulary, content)
        if symbols < 1:
            noun = NOUNS[self.vocabulary.kind]
            raise DataError(
                f"{part.name} has {symbols + 1} {noun} but at least 2 are needed to predict one; give a longer text."
            )
        baselines = baseline_models(training, self.vocabulary) if training else {}
        if not baselines:
            name = self.data.name if self.data else "the training text"
            notes.append(
                f"Unigram, 3-gram and 5-gram are missing, because they need the training text ({name}), which is not "
                "there."
            )
        return Evaluation(
            loss=self.loss(content),
            characters=characters,
            text=part.name,
            unknown=self.vocabulary.unknown(content),
            baselines={name: self.measure.of(model.loss(content)) or 0.0 for name, model in baselines.items()},
            note=" ".join([*notes, *([self.rounding] if self.rounding else [])]),
            symbols=symbols,
            kind=self.vocabulary.kind,
        )

    @property
    def _column(self) -> str | None:
        """The field of documents that it was trained on."""
        column = self.settings.get("text")
        return None if column is None else str(column)

    def _part_to_measure(self, corpus: Corpus) -> tuple[Source, list[str]]:
        """The test part, or what is kept for validation of the text that it was trained on; and what to say of it."""
        if self.data is not None and corpus.sha256 == self.data.sha256:
            if corpus.test is not None:
                return corpus.test, ["The model was trained on this data; only its test part was measured."]
            note = "The model was trained on this text; only the part that it has not seen was measured."
            return corpus.split(self.data.validation)[1], [note]
        if corpus.whole is not None:
            return corpus.whole, []
        if corpus.test is None:
            raise DataError(f"{corpus.name} has no text for the test; name one test.txt, or give a file.")
        return corpus.test, ["Only the test part was measured."]

    def _training_text(self, given: Corpus) -> Source | None:
        """The text that was trained on, from `given` or from where it was; None when it is gone or changed."""
        if self.data is None:
            return None
        if given.sha256 == self.data.sha256:
            return given.split(self.data.validation)[0]
        try:
            again = as_corpus(self.data.name, self._column)
        except DataError:
            return None
        return again.split(self.data.validation)[0] if again.sha256 == self.data.sha256 else None

    # -------------------------------------------------------------------------------------------------------- folder

    def folder(self) -> tuple[dict[str, object], dict[str, bytes]]:
        symbols, more = vocabularies.record(self.vocabulary)
        kind = self.vocabulary.kind
        record = _Record(self.task, self.sizes, symbols, self.settings, self.data, self.result, kind)
        return msgspec.to_builtins(record), {
            "model.safetensors": files.pack(self.network.state_dict()),
            "README.md": self.card().encode(),
            **more,
        }

    @classmethod
    def from_folder(cls, folder: files.Folder) -> "LanguageModel":
        record = files.typed(folder, _Record)
        vocabulary = vocabularies.restored(folder, record.symbol_kind, record.vocabulary)
        tensors = files.unpack(folder, "model.safetensors")
        network = _empty(folder, record.sizes, len(vocabulary))
        files.check_shapes(folder, network.state_dict(), tensors, "'sizes' and 'vocabulary'")
        network.load_state_dict(tensors, assign=True)
        network.eval()
        network.compute_in(trained_precision(folder, record.settings))
        return cls(network, record.sizes, vocabulary, record.settings, record.data, record.result)

    def card(self) -> str:
        """The model card, Markdown."""
        lines = [
            "# Language model",
            "",
            f"{self.description}, {self.parameters:,} parameters, {len(self.vocabulary.symbols):,} {self.unit}. "
            "Written by Recurra; load it with `recurra.load(folder)`.",
        ]
        if (precision := self.network.precision) != "fp32":
            lines += ["", f"Its recurrent layers compute in {precision}; the weights are kept in fp32."]
        if self.data:
            lines += ["", "## Data", "", _said(self.data)]
        if self.result and self.result.value is not None:
            line = verdict(self.result.value, self.result.baselines, self.measure)
            lines += ["", "## Result", "", f"After {self.result.step} steps, on the validation text: {line}"]
        return "\n".join([*lines, "", "## Limits", "", _LIMITS, ""])


_LIMITS = (
    "It predicts the next symbol from those before it and knows nothing but the text named above: what it writes "
    "has that text's form, not its truth. Symbols outside its vocabulary are read as one reserved symbol and never "
    "written. The validation text chose the best checkpoint, so its figure is slightly on the good side."
)


def as_corpus(data: Any, column: str | None = None) -> Corpus:
    """From what a person gave: a path of a text, of documents or of a folder of them, the word `demo` (when no file has
    that name), a Text, or documents in memory."""
    if isinstance(data, Corpus):
        return data
    if isinstance(data, Text):
        return corpus_of(data)
    if isinstance(data, str) and data == DEMO and not Path(DEMO).exists():
        return corpus_of(demo_text())
    if in_memory(data):
        return corpus_of(*documents_of_memory(data, column))
    return read_corpus(data, column)


def baseline_models(text: Source, vocabulary: Vocabulary, share: float = 1.0) -> dict[str, NGram]:
    """The n-gram models that are always shown, counted on the training text; of a very long one on its end, by name.

    share: of what they would count.
    """
    most = _BASELINE_CHARACTERS if isinstance(text, Text) else _BASELINE_OF_LARGE
    end = text.last(math.ceil(min(most, len(text)) * share))
    suffix = f" of the last {most:,} characters" if len(text) > most else ""
    return {model.name + suffix: model for model in (NGram(end, order, vocabulary) for order in BASELINES)}


def _said(data: DataCard) -> str:
    """The data in a sentence or two."""
    of = "its UTF-8 bytes" if not data.parts else "its parts' sha256"
    kept = f"The last {data.validation:.0%} were kept for validation."
    if data.parts:
        kept = "In parts: " + ", ".join(f"{part} {count:,}" for part, count in data.parts.items()) + "."
    return f"{data.name}: {data.characters:,} characters, sha256 of {of} `{data.sha256}`. {kept}"


def _empty(folder: files.Folder, sizes: Sizes, symbols: int) -> LanguageNetwork:
    """A network of these sizes without memory for its weights: a wrong size in a file must not fill the memory."""
    try:
        return LanguageNetwork(sizes, symbols, device="meta")
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise FileError(f"{folder.manifest}: field 'sizes' names no network that can be built: {error}.") from None

"""A trained character model: it writes, it is measured beside n-gram models, and it is a folder of plain data."""

import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from recurra import files
from recurra.data.demo import DEMO, demo_text
from recurra.data.text import UNKNOWN, Text, Vocabulary, read_text
from recurra.errors import DataError, FileError, InputError, kind_of
from recurra.tasks.decoding import Decoder, check_length, check_prompt
from recurra.tasks.evaluation import BITS, Evaluation, verdict
from recurra.tasks.language import LanguageNetwork, Sizes, State
from recurra.tasks.language import measure as measure_loss
from recurra.tasks.measure import Measure
from recurra.tasks.model import Model, trained_precision
from recurra.tasks.ngram import NGram
from recurra.unroll.precision import check_here

Settings = dict[str, str | int | float | bool | None]
BASELINES = (1, 3, 5)  # orders of the n-gram models that are always shown
_BASELINE_CHARACTERS = 5_000_000  # n-grams are counted on at most so many of the last characters


class DataCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text a model was trained on; its last `validation` share was kept out."""

    name: str
    sha256: str
    characters: int
    validation: float


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What training reached on the validation text, in bits per character."""

    step: int
    bits_per_character: float | None
    baselines: dict[str, float]


class _Record(msgspec.Struct, frozen=True):
    """The fields of `model.json` that this task writes and reads."""

    task: str
    sizes: Sizes
    vocabulary: str
    settings: Settings
    data: DataCard | None
    result: Result | None


class LanguageModel(Model):
    """A character model of a text: `generate`, `stream`, `evaluate`, `bits_per_character`, `save`."""

    task: ClassVar[str] = "language"
    measure: ClassVar[Measure] = BITS
    unit: ClassVar[str] = "characters"
    unit_short: ClassVar[str] = "chars"
    network: LanguageNetwork

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
    def description(self) -> str:
        sizes = self.sizes
        return f"{sizes.layers} {sizes.cell.upper()} layer{'s' if sizes.layers > 1 else ''} of {sizes.hidden} units"

    def compute_in(self, precision: str) -> None:
        self.network.compute_in(precision)
        check_here(precision)

    @property
    def rounding(self) -> str:
        """In int8, the measured error in a sentence; else ""."""
        if self.network.precision != "int8" or (error := self.network.rounding_error()) is None:
            return ""
        return f"The recurrent layers compute in int8: their outputs are up to {error:.2g} of the largest off fp32."

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
        """Characters that go on from the prompt, one after another as they are drawn; see `Decoder` for the settings.

        An empty prompt begins after a line break, with a character that is no blank. Characters of the prompt that the
        vocabulary does not know are read as the reserved unknown symbol, with a warning that names them; that symbol is
        never written.
        """
        return self._write(prompt, length, Decoder(temperature, top_k, top_p, seed))

    def _write(self, prompt: str, length: int, decoder: Decoder) -> Iterator[str]:
        check_prompt(prompt)
        if unknown := self.vocabulary.unknown(prompt):
            names = " ".join(map(repr, unknown))
            warnings.warn(f"The prompt has {names}, which the model does not know: read as unknown.", stacklevel=3)
        check_length(length)
        if prompt:
            return self._stream(self.vocabulary.encode(prompt), length, decoder, [])
        return self._stream(self.vocabulary.encode(self._before_a_text()), length, decoder, self._blanks())

    def _before_a_text(self) -> str:
        """What is read before an empty prompt: a line break, or in a text without any a character that it has."""
        known = self.vocabulary.characters
        return next((c for c in "\n " if c in known), known[:1] or "\n")

    def _blanks(self) -> list[int]:
        """The blanks of the vocabulary: a text that begins with indentation may at temperature 0 never leave it."""
        found = [number for number, c in enumerate(self.vocabulary.characters, 1) if c.isspace()]
        return found if len(found) < len(self.vocabulary.characters) else []

    @torch.no_grad()
    def _stream(self, read: NDArray[np.int64], length: int, decoder: Decoder, never_first: list[int]) -> Iterator[str]:
        self.network.eval()
        state: State | None = None
        characters = torch.from_numpy(read)[:, None]
        for place in range(length):
            scores, state = self.network(characters, state)
            last = scores[-1, 0]
            last[UNKNOWN] = -torch.inf
            if place == 0:
                last[never_first] = -torch.inf
            drawn = decoder(last)
            characters = torch.tensor([[drawn]])
            yield self.vocabulary.decode([drawn])

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """The same characters as one string, without the prompt."""
        return "".join(self._write(prompt, length, Decoder(temperature, top_k, top_p, seed)))

    # ----------------------------------------------------------------------------------------------------- measuring

    def bits_per_character(self, text: str) -> float:
        """Mean of -log2 p(c_t | c_{<t}) over all characters of `text` but the first."""
        return measure_loss(self.network, self.vocabulary.encode(text)) / math.log(2)

    def evaluate(self, data: str | os.PathLike[str] | Text) -> Evaluation:
        """Measures the model on a text (a path, `demo`, or a Text) beside unigram, 3-gram and 5-gram models.

        Of the text it was trained on only the part kept for validation is measured, and the result says so. The n-gram
        models count the training text; when that is no longer where it was, the result says that they are missing.
        """
        text = as_text(data)
        source, notes = self._training_text(text), []
        part = text
        if self.data is not None and text.sha256 == self.data.sha256:
            part = text.split(self.data.validation)[1]
            notes.append("The model was trained on this text; only the part that it has not seen was measured.")
        if len(part) < 2:
            raise DataError(
                f"{part.name} has {len(part)} character but at least 2 are needed to predict one; give a longer text."
            )
        baselines = baseline_models(source, self.vocabulary) if source else {}
        if not baselines:
            name = self.data.name if self.data else "the training text"
            notes.append(
                f"Unigram, 3-gram and 5-gram are missing, because they need the training text ({name}), which is not "
                "there."
            )
        return Evaluation(
            loss=measure_loss(self.network, self.vocabulary.encode(part.content)),
            characters=len(part) - 1,
            text=part.name,
            unknown=self.vocabulary.unknown(part.content),
            baselines={name: model.bits_per_character(part.content) for name, model in baselines.items()},
            note=" ".join([*notes, *([self.rounding] if self.rounding else [])]),
        )

    def _training_text(self, given: Text) -> str | None:
        """The text that was trained on, from `given` or from where it was; None when it is gone or changed."""
        if self.data is None:
            return None
        if given.sha256 == self.data.sha256:
            return given.split(self.data.validation)[0].content
        try:
            again = as_text(self.data.name)
        except DataError:
            return None
        return again.split(self.data.validation)[0].content if again.sha256 == self.data.sha256 else None

    # -------------------------------------------------------------------------------------------------------- folder

    def folder(self) -> tuple[dict[str, object], dict[str, bytes]]:
        record = _Record(self.task, self.sizes, self.vocabulary.characters, self.settings, self.data, self.result)
        return msgspec.to_builtins(record), {
            "model.safetensors": files.pack(self.network.state_dict()),
            "README.md": self.card().encode(),
        }

    @classmethod
    def from_folder(cls, folder: files.Folder) -> "LanguageModel":
        record = files.typed(folder, _Record)
        vocabulary = Vocabulary(record.vocabulary)
        if vocabulary.characters != record.vocabulary:
            raise FileError(f"{folder.manifest}: field 'vocabulary' is not in code point order without repetition.")
        tensors = files.unpack(folder, "model.safetensors")
        network = _empty(folder, record.sizes, len(vocabulary))
        files.check_shapes(folder, network.state_dict(), tensors, "'sizes' and 'vocabulary'")
        network.load_state_dict(tensors, assign=True)
        network.eval()
        network.compute_in(trained_precision(folder, record.settings))
        return cls(network, record.sizes, vocabulary, record.settings, record.data, record.result)

    def card(self) -> str:
        """The model card, Markdown."""
        sizes = self.sizes
        lines = [
            "# Character language model",
            "",
            f"{sizes.layers} {sizes.cell.upper()} layer(s) of {sizes.hidden} units, {self.parameters:,} parameters, "
            f"{len(self.vocabulary.characters)} characters. Written by Recurra; load it with `recurra.load(folder)`.",
        ]
        if (precision := self.network.precision) != "fp32":
            lines += ["", f"Its recurrent layers compute in {precision}; the weights are kept in fp32."]
        if self.data:
            lines += [
                "",
                "## Data",
                "",
                f"{self.data.name}: {self.data.characters:,} characters, sha256 of its UTF-8 bytes "
                f"`{self.data.sha256}`. "
                f"The last {self.data.validation:.0%} were kept for validation.",
            ]
        if self.result and self.result.bits_per_character is not None:
            line = verdict(self.result.bits_per_character, self.result.baselines)
            lines += ["", "## Result", "", f"After {self.result.step} steps, on the validation text: {line}"]
        return "\n".join([*lines, "", "## Limits", "", _LIMITS, ""])


_LIMITS = (
    "It predicts the next character from those before it and knows nothing but the text named above: what it writes "
    "has that text's form, not its truth. Characters outside its vocabulary are read as one reserved symbol and never "
    "written. The validation text chose the best checkpoint, so its figure is slightly on the good side."
)


def as_text(data: str | os.PathLike[str] | Text) -> Text:
    """A text from what a person gave: a path, the word `demo` (when no file has that name), or a Text."""
    if isinstance(data, Text):
        return data
    if data == DEMO and not Path(DEMO).exists():
        return demo_text()
    if not isinstance(data, (str, os.PathLike)):
        raise InputError(f"data is {kind_of(data)}; give the path of a text file, the word {DEMO}, or a Text.")
    return read_text(data)


def baseline_models(text: str, vocabulary: Vocabulary) -> dict[str, NGram]:
    """The n-gram models that are always shown, counted on the training text; of a very long one on its end, by name."""
    models = (NGram(text[-_BASELINE_CHARACTERS:], order, vocabulary) for order in BASELINES)
    suffix = f" of the last {_BASELINE_CHARACTERS:,} characters" if len(text) > _BASELINE_CHARACTERS else ""
    return {model.name + suffix: model for model in models}


def _empty(folder: files.Folder, sizes: Sizes, symbols: int) -> LanguageNetwork:
    """A network of these sizes without memory for its weights: a wrong size in a file must not fill the memory."""
    try:
        return LanguageNetwork(sizes, symbols, device="meta")
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise FileError(f"{folder.manifest}: field 'sizes' names no network that can be built: {error}.") from None

"""How a run of the task `language` begins: its text, and the settings found from it."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from recurra import files
from recurra.data.corpus import Corpus
from recurra.data.demo import DEMO
from recurra.data.memory import in_memory
from recurra.data.symbols import Vocabulary
from recurra.data.texts import Texts, lines_of
from recurra.data.vocabulary import BPE_SYMBOLS, learned
from recurra.errors import DataError, InputError
from recurra.tasks.language import LanguageNetwork, Regularisation, Sizes
from recurra.tasks.language_model import as_corpus
from recurra.tasks.language_task import LanguageTask
from recurra.training.classification import check_encoder
from recurra.training.config import Config, Data
from recurra.training.settings import Settings, filled
from recurra.training.setup import Setup, check_memory, check_unchanged

DENSE = ("lstm", "gru", "rnn")  # torch.nn's layers
_LARGE = 20_000  # symbols from which the softmax is adaptive
_WORDS = 100_000  # of a text with more different words the most frequent
_LOOKED_AT = 20_000_000  # characters that are looked at one by one, of each part
_COPY = "data.txt"  # in the run folder, when the text came from no file


class LanguageSetup(Setup):
    """A text, or texts in parts, and the path they came from; None for a text of the caller's own."""

    def __init__(self, corpus: Corpus, path: str | None) -> None:
        self.corpus, self.path, self.name = corpus, path, corpus.name
        self._learned: tuple[tuple[Any, ...], tuple[Vocabulary, int]] | None = None  # and what it was learned by

    @classmethod
    def of(cls, data: Any, wanted: Settings) -> "LanguageSetup":
        corpus = as_corpus(data, wanted.text)
        train = corpus.split(wanted.validation)[0]
        if all(piece.isspace() for piece in train.pieces()):
            raise DataError(
                f"{corpus.name} holds nothing but white space; give a text of at least some thousand characters."
            )
        if corpus.whole is None and "validation" in corpus.texts and wanted.validation != Settings().validation:
            raise InputError(
                f"validation={wanted.validation:g} says nothing to {corpus.name}, which has a text for validation; "
                "leave it out."
            )
        if in_memory(data):
            return cls(corpus, None)
        return cls(corpus, DEMO if corpus.name == DEMO else str(Path(os.fspath(data)).absolute()))

    @classmethod
    def again(cls, folder: Path, config: Config) -> "LanguageSetup":
        path = config.data.path
        corpus = as_corpus(folder / _COPY if path == _COPY else path, config.settings.text)
        check_unchanged(path, corpus.sha256, folder, config)
        return cls(dataclasses.replace(corpus, name=config.data.name), path)

    def complete(self, wanted: Settings) -> Settings:
        _check_network(wanted)
        kind = wanted.symbols or "characters"
        if kind == "bpe" and wanted.min_count is not None:
            raise InputError(f"min_count={wanted.min_count} says nothing to symbols='bpe'; leave one of them out.")
        full = filled(
            wanted,
            symbols=kind,
            min_count=1 if kind != "bpe" else None,
            vocabulary={"characters": None, "words": _WORDS, "bpe": BPE_SYMBOLS}[kind],
        )
        vocabulary, length = self._read(full)
        full = complete(full, length, len(vocabulary))
        network = LanguageNetwork(_sizes(full, vocabulary), len(vocabulary), _regularisation(full), device="meta")
        check_memory(network, f"hidden={full.hidden}, layers={full.layers} and embedding={full.embedding}")
        return full

    def _read(self, full: Settings) -> tuple[Vocabulary, int]:
        """The vocabulary of the training text, and how many symbols that has."""
        by = full.symbols, full.min_count, full.vocabulary, full.validation
        if self._learned is None or self._learned[0] != by:
            self._learned = by, self._learn(full)
        return self._learned[1]

    def _learn(self, full: Settings) -> tuple[Vocabulary, int]:
        train = self.corpus.split(full.validation)[0]
        kind = full.symbols or "characters"  # runs of earlier releases do not say
        vocabulary = learned(kind, train.pieces, full.min_count or 1, full.vocabulary)
        if kind == "characters":
            return vocabulary, len(train)
        return vocabulary, sum(len(vocabulary.split(piece)) for piece in train.pieces())

    def task(self, full: Settings) -> LanguageTask:
        assert full.batch and full.window  # complete() has set them
        record = msgspec.to_builtins(full)
        vocabulary = self._read(full)[0]
        sizes, held = _sizes(full, vocabulary), _regularisation(full)
        batch, window = full.batch, full.window
        return LanguageTask(self.corpus, vocabulary, sizes, held, batch, window, full.validation, full.seed, record)

    def parts(self, full: Settings) -> dict[str, Texts]:
        train, kept = self.corpus.split(full.validation)
        whole = self.corpus.whole
        first = lines_of(train, _LOOKED_AT, whole.name if whole else train.name)
        parts = {"training": first}
        if whole is None:
            parts["validation"] = lines_of(kept, _LOOKED_AT, kept.name)
        else:  # it goes on in the line that training ends in
            line = 1 + train.content.count("\n") if first.whole else None
            parts["validation"] = lines_of(kept, _LOOKED_AT, whole.name, line)
        if self.corpus.test:
            parts["test"] = lines_of(self.corpus.test, _LOOKED_AT, self.corpus.test.name)
        return parts

    def record(self, folder: Path) -> Data:
        if self.path is None and self.corpus.whole is not None:
            files.replace_file(folder / _COPY, self.corpus.whole.content.encode())
        return Data(self.path or _COPY, self.corpus.name, self.corpus.sha256, characters=len(self.corpus))


def complete(given: Settings, characters: int, symbols: int) -> Settings:
    """Fills what was left open from the training text: how many symbols it has, and how many different ones.

    The number of steps never depends on the speed of the machine, so that a seed means the same run everywhere.
    """
    window = given.window or max(1, min(64, (characters - 1) // 2))
    batch = given.batch or max(1, min(16, characters // (4 * window)))
    per_epoch = max(1, characters // (batch * window))
    steps = given.steps or (per_epoch * given.epochs if given.epochs else _seen(characters) // (batch * window))
    eval_interval = given.eval_interval or max(1, min(2000, -(-steps // 6)))
    encoder = given.encoder or "recurrent"
    hidden = given.hidden or (128 if characters < 50_000 else 256 if characters < 150_000 else 512)
    found = {
        "encoder": encoder,
        "cell": "lstm" if encoder == "recurrent" else None,
        "tied": False,
        "variational": False,
        "embedding_dropout": 0.0,
        "weight_drop": 0.0 if encoder == "recurrent" else None,
        "activation_penalty": 0.0,
        "slowness_penalty": 0.0,
        "learning_rate": 0.004 if encoder != "transformer" else 0.001,
        "sample_length": 200,
        "temperature": 0.8,
        "hidden": hidden,
        "embedding": hidden if given.tied else min(64, symbols) if symbols < 1000 else 256,
        "dropout": 0.2 if given.variational or steps >= 10 * per_epoch else 0.0,
        "window": window,
        "batch": batch,
        "steps": steps,
        "warmup": min(50, steps // 10),
        "eval_interval": eval_interval,
        "log_interval": max(1, min(eval_interval, steps // 200)),
    }
    return msgspec.structs.replace(filled(given, **found), epochs=None)


def _seen(characters: int) -> int:
    """Characters to learn from: about a minute of them, three passes over a longer text, one over a very long one."""
    return max(characters, min(200 * characters, max(_A_MINUTE, 3 * min(characters, 1_000_000))))


_A_MINUTE = 1_050_000  # what an LSTM of 512 units learns from in somewhat less than a minute on two cores


def _check_network(wanted: Settings) -> None:
    """Raises InputError for settings that the chosen encoder has no use for."""
    if wanted.encoder in ("bag", "mlp"):
        raise InputError(
            f"encoder={wanted.encoder!r} knows nothing of the order of symbols, which a language model predicts; give "
            "recurrent, cnn or transformer."
        )
    check_encoder(wanted)
    if wanted.variational and wanted.dropout == 0:
        raise InputError("variational=True says nothing to dropout=0; give a dropout above 0, or leave it out.")
    if wanted.weight_drop is not None and wanted.encoder not in (None, "recurrent"):
        raise InputError(
            f"weight_drop={wanted.weight_drop:g} says nothing to encoder={wanted.encoder!r}; leave one of them out."
        )


def _sizes(full: Settings, vocabulary: Vocabulary) -> Sizes:
    assert full.hidden and full.embedding is not None  # complete() has set them
    encoder = cast(Literal["recurrent", "cnn", "transformer"], full.encoder or "recurrent")
    between = full.variational and full.layers > 1  # torch.nn's layers draw masks of every value
    cells = encoder == "recurrent" and (full.cell not in DENSE or bool(full.weight_drop) or bool(between))
    large = len(vocabulary) > _LARGE and vocabulary.by_frequency and not full.tied
    cutoffs = [len(vocabulary) // 20, len(vocabulary) // 4] if large else []
    return Sizes(full.cell, full.layers, full.hidden, full.embedding, encoder, cells, bool(full.tied), cutoffs)


def _regularisation(full: Settings) -> Regularisation:
    return Regularisation(
        full.dropout or 0.0,
        bool(full.variational),
        full.embedding_dropout or 0.0,
        full.weight_drop or 0.0,
        full.activation_penalty or 0.0,
        full.slowness_penalty or 0.0,
    )

"""How a run of the task `classification` begins: its table, and the settings found from it."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec
import torch

from recurra import files
from recurra.cells.by_name import NAMES, takes
from recurra.cells.elman import NONLINEARITIES
from recurra.data.parts import parts_of
from recurra.data.split import Splits, check_shares, read_splits
from recurra.data.subwords import lexicon_of
from recurra.data.symbols import found_kind
from recurra.data.table import Table, table_of_memory
from recurra.data.texts import Texts, rows_of
from recurra.errors import FileError, InputError
from recurra.tasks.classification import Beginning, ClassificationNetwork, Sizes
from recurra.tasks.classification_task import ClassificationTask
from recurra.tasks.classifier import DataCard
from recurra.tasks.encoders import USES
from recurra.training.config import CONFIG, Config, Data
from recurra.training.reading import Reading, absolute, reading
from recurra.training.settings import Settings, filled
from recurra.training.setup import Setup, check_memory, check_unchanged, of_length

_COPY = "data.jsonl"  # in the run folder, when the rows came from no file
_EPOCHS, _FEWEST = 8, 3
_ENOUGH = 250_000  # rows to learn from, of all epochs together
_LARGE = 50_000  # rows, above which batches are twice as large
_TEST = 0.1


class ClassificationSetup(Setup):
    """Labelled texts in three parts, and the path they came from; None for rows of the caller's own."""

    def __init__(self, splits: Splits, path: str | None, table: Table | None) -> None:
        self.splits, self.path, self.table, self.name = splits, path, table, splits.name
        self._read: tuple[object, Reading] | None = None

    @classmethod
    def of(cls, data: Any, wanted: Settings) -> "ClassificationSetup":
        test = _TEST if wanted.test is None else wanted.test
        check_shares(wanted.validation, test)
        if _is_folder(data):
            _check_parts(data, wanted)
        from_file = isinstance(data, str | os.PathLike)
        table = None if from_file else table_of_memory(data)
        splits = read_splits(
            table or data,
            wanted.text,
            wanted.label,
            wanted.validation,
            test,
            wanted.seed,
            wanted.extra,
            wanted.several,
        )
        return cls(splits, str(Path(data).absolute()) if from_file else None, table)

    @classmethod
    def again(cls, folder: Path, config: Config) -> "ClassificationSetup":
        path, full = config.data.path, config.settings
        place = folder / _COPY if path == _COPY else Path(path)
        splits = read_splits(
            place, full.text, full.label, full.validation, full.test or 0.0, full.seed, full.extra, full.several
        )
        check_unchanged(path, splits.sha256, folder, config)
        name = config.data.name
        notes = tuple(note.replace(splits.name, name, 1) for note in splits.notes)  # a copy goes by its data's name
        setup = cls(dataclasses.replace(splits, name=name, notes=notes), path, None)
        vectors = setup._reading(full).vectors
        if vectors is not None and vectors.sha256 != config.data.vectors:
            raise FileError(
                f"{vectors.name} has changed since the run began: its sha256 is {vectors.sha256[:16]}… but field "
                f"'data.vectors' of {folder / CONFIG} says {(config.data.vectors or 'nothing')[:16]}…; put it back or "
                "train again."
            )
        return setup

    def complete(self, wanted: Settings) -> Settings:
        train = self.splits.train
        if wanted.symbols == "bpe":
            raise InputError("symbols='bpe' is of language models; give characters or words, or leave it out.")
        check_encoder(wanted)
        encoder, kind = wanted.encoder or "recurrent", wanted.symbols or found_kind(train.texts)
        _check_subwords(wanted, kind)
        rows = len(self.splits.lessons)
        with_symbols = filled(
            msgspec.structs.replace(wanted, extra=absolute(wanted.extra), vectors=absolute(wanted.vectors)),
            symbols=kind,
            min_count=2,
            subwords=kind == "words" and wanted.embedding != 0 and wanted.vectors is None,
            batch=32 if rows < _LARGE else 64,
        )
        read = self._reading(with_symbols)
        full = filled(
            with_symbols,
            encoder=encoder,
            cell="lstm" if encoder == "recurrent" else None,
            bidirectional=True if encoder == "recurrent" else None,
            residual=False if encoder == "recurrent" else None,
            normalisation="none" if encoder in USES["normalisation"] else None,
            initialiser="default",
            forget_bias=1.0 if encoder == "recurrent" and takes(wanted.cell or "lstm", "forget_bias") else None,
            word_dropout=0.1 if kind == "words" else 0.0,
            pooling="max" if encoder != "bag" else None,
            class_weights="equal",
            text=train.text,
            label=train.label,
            several=train.several,
            test=None if self.path is not None and _is_folder(self.path) else _TEST,
            hidden=128,
            embedding=128 if read.vectors is None else read.vectors.width,
            dropout=0.5 if encoder != "transformer" else 0.2,
            learning_rate=0.002 if encoder != "transformer" else 0.001,
        )
        full = of_length(full, read.buckets.batches, max(_FEWEST, min(_EPOCHS, _ENOUGH // rows)))
        with torch.device("meta"):
            network = ClassificationNetwork(
                _sizes(full), len(lexicon_of(read.reader)), len({label for labels in train.sets for label in labels})
            )
        check_memory(network, f"hidden={full.hidden}, layers={full.layers} and embedding={full.embedding}")
        return full

    def _reading(self, full: Settings) -> Reading:
        """Made once for the same settings."""
        wanted = (full.symbols, full.min_count, full.subwords, full.vectors, full.batch, full.seed)
        if self._read is None or self._read[0] != wanted:
            self._read = (wanted, reading(self.splits.lessons.texts, full))
        return self._read[1]

    def task(self, full: Settings) -> ClassificationTask:
        read, splits = self._reading(full), self.splits
        parts = {
            "training": splits.train,
            "training beside": splits.extra,
            "validation": splits.validation,
            "test": splits.test,
        }
        rows = {part: len(each) for part, each in parts.items() if each}
        path = "" if self.path is None or self.path == _COPY else self.path
        names = (splits.train.text, splits.train.label)
        shares = (full.validation, full.test or 0.0)
        card = DataCard(splits.name, path, splits.sha256, rows, *names, *shares, full.seed, full.extra or "")
        balanced = full.class_weights == "balanced"
        record = msgspec.to_builtins(full)
        return ClassificationTask(
            splits, read.reader, read.buckets, _sizes(full), _beginning(full), balanced, full.seed, record, card,
            read.vectors, read.notes,
        )  # fmt: skip

    def parts(self, full: Settings) -> dict[str, Texts]:
        splits, from_file = self.splits, self.table is None
        parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
        return {part: rows_of(each, from_file) for part, each in parts.items() if each}

    def record(self, folder: Path) -> Data:
        if self.table is not None:
            files.replace_file(folder / _COPY, _lines(self.table))
        splits = self.splits
        rows = sum(len(part) for part in (splits.train, splits.extra, splits.validation, splits.test) if part)
        vectors = self._read[1].vectors if self._read else None
        digest = vectors.sha256 if vectors else None
        return Data(self.path or _COPY, splits.name, splits.sha256, rows=rows, vectors=digest)


def _is_folder(data: Any) -> bool:
    return isinstance(data, str | os.PathLike) and Path(data).is_dir()


def _check_parts(folder: str | os.PathLike[str], wanted: Settings) -> None:
    """Raises InputError for shares of what a folder has tables for."""
    if wanted.test is not None:
        raise InputError(
            f"test={wanted.test:g} says nothing to {os.fspath(folder)}: of a folder the test is the table that is "
            "named so; leave it out."
        )
    table = parts_of(folder).get("validation")
    if table is not None and wanted.validation != Settings().validation:
        raise InputError(
            f"validation={wanted.validation:g} says nothing to {os.fspath(folder)}, whose table for validation is "
            f"{table.name}; leave it out."
        )


def _check_subwords(given: Settings, kind: str) -> None:
    """Raises InputError for subwords of what has none."""
    if given.subwords and kind == "characters":
        raise InputError("subwords=True says nothing to symbols='characters'; leave it out, or choose symbols='words'.")
    if given.subwords and given.embedding == 0:
        raise InputError("subwords=True says nothing to embedding=0, one-hot vectors; leave one of them out.")


def check_encoder(given: Settings) -> None:
    """Raises InputError for settings that the chosen encoder, or its cell, has no use for."""
    encoder = given.encoder or "recurrent"
    useless = [name for name, users in USES.items() if encoder not in users]
    if encoder == "bag":
        useless.append("pooling")
    if encoder != "recurrent" and given.precision != "fp32":
        useless.append("precision")
    for name in useless:
        if (value := getattr(given, name)) is not None:
            raise InputError(f"{name}={value!r} says nothing to encoder={encoder!r}; leave one of them out.")
    if encoder == "recurrent":
        _check_cell(given)


def _check_cell(given: Settings) -> None:
    cell, activation = given.cell or "lstm", given.activation
    for name, argument in (("forget_bias", "forget_bias"), ("activation", "nonlinearity")):
        value = getattr(given, name)
        if value is not None and not takes(cell, argument):
            raise InputError(f"{name}={value!r} says nothing to cell={cell!r}; leave one of them out.")
    if activation is not None and cell in NAMES and activation not in NONLINEARITIES:
        raise InputError(
            f"activation={activation!r} is none that cell={cell!r} has; give {' or '.join(NONLINEARITIES)}."
        )
    if given.residual and given.layers == 1:
        raise InputError("residual=True says nothing to layers=1, for it joins layers; give layers=2 or more.")


def _sizes(full: Settings) -> Sizes:
    assert full.hidden and full.embedding is not None and full.encoder  # complete() has set them
    return Sizes(
        encoder=full.encoder,
        cell=full.cell,
        bidirectional=bool(full.bidirectional),
        layers=full.layers,
        hidden=full.hidden,
        residual=bool(full.residual),
        activation=full.activation,
        normalisation=full.normalisation or "none",
        embedding=full.embedding,
        pooling=full.pooling or "mean",  # a bag is one step long
    )


def _beginning(full: Settings) -> Beginning:
    assert full.dropout is not None  # complete() has set it
    forget_bias = 1.0 if full.forget_bias is None else full.forget_bias
    return Beginning(full.dropout, full.word_dropout or 0.0, full.initialiser or "default", forget_bias)


def _lines(table: Table) -> bytes:
    rows = (dict(zip(table.columns or [], row)) for row in table.rows)
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)

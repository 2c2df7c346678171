"""How a run of the task `tagging` begins: its sentences, and the settings found from them."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from recurra import files
from recurra.cells.by_name import takes
from recurra.data.buckets import Buckets
from recurra.data.conll import is_line_folder
from recurra.data.schemes import spans, tags_of
from recurra.data.spelling import Spelling
from recurra.data.split import check_shares
from recurra.data.tagged import Tagged, object_lines, tagged_of_memory
from recurra.data.tagged_split import TaggedSplits, read_tagged_splits, tagged_parts
from recurra.data.texts import Texts, sentences_of
from recurra.errors import InputError
from recurra.tasks.encoders import USES
from recurra.tasks.tagger import DataCard
from recurra.tasks.tagging import Sizes, TaggingNetwork
from recurra.tasks.tagging_task import TaggingTask
from recurra.training.classification import check_encoder
from recurra.training.config import Config, Data
from recurra.training.settings import Settings, filled
from recurra.training.setup import Setup, check_memory, check_unchanged, of_length

_COPY = "data.jsonl"  # in the run folder, when the sentences came from no file
_EPOCHS = 15
_TEST = 0.1
_PARTS = 32  # width of a letter's vector, and of each direction over the letters of a word
_PAIRS = 128  # width of the vector of a pair of characters


class TaggingSetup(Setup):
    """Tagged sentences in three parts, and the path they came from; None for rows of the caller's own."""

    def __init__(self, splits: TaggedSplits, path: str | None, rows: Tagged | None) -> None:
        self.splits, self.path, self.rows, self.name = splits, path, rows, splits.name

    @classmethod
    def of(cls, data: Any, wanted: Settings) -> "TaggingSetup":
        test = _TEST if wanted.test is None else wanted.test
        check_shares(wanted.validation, test)
        if _has_parts(data):
            _check_parts(data, wanted)
        from_file = isinstance(data, str | os.PathLike)
        if from_file or not isinstance(data, list | tuple):
            splits = read_tagged_splits(data, wanted.text, wanted.label, wanted.validation, test, wanted.seed)
            return cls(splits, str(Path(data).absolute()), None)
        rows, notes = tagged_of_memory(data)
        splits = read_tagged_splits(rows, None, None, wanted.validation, test, wanted.seed)
        return cls(dataclasses.replace(splits, notes=(*notes, *splits.notes)), None, rows)

    @classmethod
    def again(cls, folder: Path, config: Config) -> "TaggingSetup":
        path, full = config.data.path, config.settings
        place = folder / _COPY if path == _COPY else Path(path)
        splits = read_tagged_splits(place, full.text, full.label, full.validation, full.test or 0.0, full.seed)
        check_unchanged(path, splits.sha256, folder, config)
        return cls(dataclasses.replace(splits, name=config.data.name), path, None)

    def complete(self, wanted: Settings) -> Settings:
        self._check(wanted)
        encoder = wanted.encoder or "recurrent"
        recurrent = encoder == "recurrent"
        full = filled(
            wanted,
            encoder=encoder,
            cell="lstm" if recurrent else None,
            bidirectional=True if recurrent else None,
            residual=False if recurrent else None,
            normalisation="none" if encoder in USES["normalisation"] else None,
            forget_bias=1.0 if recurrent and takes(wanted.cell or "lstm", "forget_bias") else None,
            pooling="max" if self.splits.train.labels is not None else None,
            scheme=self.splits.scheme,
            output="crf",
            min_count=1,
            test=None if self.path is not None and _has_parts(self.path) else _TEST,
            hidden=200,
            embedding=128,
            dropout=0.5 if encoder != "transformer" else 0.2,
            batch=32,
            learning_rate=0.002 if encoder != "transformer" else 0.001,
        )
        spelling, buckets = self._prepared(full)
        full = of_length(full, buckets.batches, _EPOCHS)
        with torch.device("meta"):
            labels = len(set(self.splits.train.labels or []))
            network = TaggingNetwork(_sizes(full, spelling), spelling, self._tags(full), full.scheme, labels)
        check_memory(network, f"hidden={full.hidden}, layers={full.layers} and embedding={full.embedding}")
        return full

    def _check(self, wanted: Settings) -> None:
        """Raises InputError for settings that the data or the encoder has no use for."""
        check_encoder(wanted)
        if wanted.encoder == "bag":
            raise InputError("encoder='bag' has one vector for all words; of tagging give recurrent, mlp, cnn, …")
        if wanted.embedding == 0:
            raise InputError("embedding=0 feeds one-hot vectors, which tagging does not have; give a width.")
        if wanted.pooling is not None and self.splits.train.labels is None:
            raise InputError(
                f"pooling={wanted.pooling!r} says nothing to {self.name}, whose sentences have no labels; leave it out."
            )
        if wanted.scheme is not None and self.splits.scheme is None:
            raise InputError(
                f"scheme={wanted.scheme!r} says nothing to {self.name}, whose tags say no spans; leave it out."
            )

    def _prepared(self, full: Settings) -> tuple[Spelling, Buckets]:
        assert full.min_count and full.batch  # complete() has set them
        sentences = self.splits.train.words
        spelling = Spelling.of(sentences, full.min_count)
        return spelling, Buckets([np.empty(len(words), np.int64) for words in sentences], full.batch, full.seed)

    def _tags(self, full: Settings) -> list[str]:
        """All tags of the network: those of training, or all that its scheme has for the kinds of spans of training."""
        tags = self.splits.train.tags
        if full.scheme is None:
            return sorted({tag for each in tags for tag in each})
        return tags_of(sorted({span.kind for each in tags for span in spans(each)}), full.scheme)

    def task(self, full: Settings) -> TaggingTask:
        assert full.dropout is not None  # complete() has set it
        spelling, buckets = self._prepared(full)
        splits = self.splits
        parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
        sentences = {part: len(each) for part, each in parts.items() if each}
        path = "" if self.path is None or self.path == _COPY else self.path
        shares = (full.validation, full.test or 0.0)
        card = DataCard(splits.name, path, splits.sha256, sentences, full.text, full.label, *shares, full.seed)
        forget_bias = 1.0 if full.forget_bias is None else full.forget_bias
        return TaggingTask(
            splits, spelling, buckets, _sizes(full, spelling), self._tags(full), full.scheme, full.dropout,
            forget_bias, full.seed, msgspec.to_builtins(full), card,
        )  # fmt: skip

    def parts(self, full: Settings) -> dict[str, Texts]:
        splits = self.splits
        between = "" if self._prepared(full)[0].of_characters else " "
        parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
        return {part: sentences_of(each, between) for part, each in parts.items() if each}

    def record(self, folder: Path) -> Data:
        if self.rows is not None:
            files.replace_file(folder / _COPY, object_lines(self.rows))
        splits = self.splits
        rows = sum(len(part) for part in (splits.train, splits.validation, splits.test) if part)
        return Data(self.path or _COPY, splits.name, splits.sha256, rows=rows)


def _has_parts(data: Any) -> bool:
    """Whether data is a folder of files for training, validation and test."""
    return isinstance(data, str | os.PathLike) and Path(data).is_dir() and not is_line_folder(Path(data))


def _check_parts(folder: str | os.PathLike[str], wanted: Settings) -> None:
    """Raises InputError for shares of what a folder has files for."""
    if wanted.test is not None:
        raise InputError(
            f"test={wanted.test:g} says nothing to {os.fspath(folder)}: of a folder the test is the file that is "
            "named so; leave it out."
        )
    path = tagged_parts(Path(folder)).get("validation")
    if path is not None and wanted.validation != Settings().validation:
        raise InputError(
            f"validation={wanted.validation:g} says nothing to {os.fspath(folder)}, whose file for validation is "
            f"{path.name}; leave it out."
        )


def _sizes(full: Settings, spelling: Spelling) -> Sizes:
    assert full.hidden and full.embedding and full.encoder and full.output  # complete() has set them
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
        parts=_PAIRS if spelling.of_characters else _PARTS,
        output=full.output,
        pooling=full.pooling or "max",
    )

"""Words read by their n-grams of characters."""

from pathlib import Path

import numpy as np
import pytest
import torch
from generators import sentiment

import recurra
from recurra.data.subwords import Dictionary, Subwords, inputs, split
from recurra.data.symbols import Lexicon
from recurra.errors import FileError, InputError
from recurra.tasks.embedding import SymbolEmbedding

TINY = {"hidden": 8, "embedding": 8, "threads": 1, "batch": 8, "steps": 4, "eval_interval": 4, "log_interval": 2}


def test_the_ngrams_of_a_word() -> None:
    assert split("cat") == ["<ca", "cat", "at>", "<cat", "cat>"] and split("I") == ["<I>"] and split("") == []
    made = Subwords.of(["cat", "cat", "bat", "rat"])
    assert set(made.grams) == {"at>"}  # of two different words at least
    assert made.encode("mat").tolist() == [0] and made.encode("dog").tolist() == []


def test_a_batch_is_numbers_and_spelling() -> None:
    lexicon, subwords = Lexicon("words", ["cat", "bat"]), Subwords(["at>", "<ca"])
    reader = Dictionary(lexicon, subwords)
    sequences = [reader.encode(text) for text in ("cat dog cat", "mat")]
    numbers, lengths, spelling = inputs(reader, sequences)
    assert numbers.t().tolist() == [[1, 0, 1], [0, 0, 0]] and lengths.tolist() == [3, 1] and spelling is not None
    found = [
        [[subwords.grams[g] for g in spelling.grams[begin:end].tolist()] for begin, end in _bounds(spelling, row)]
        for row in spelling.words.t().tolist()
    ]
    assert found == [[["<ca", "at>"], [], ["<ca", "at>"]], [["at>"], [], []]]
    plain, _, none = inputs(lexicon, [lexicon.encode("bat cow")])
    assert plain.t().tolist() == [[2, 0]] and none is None


def _bounds(spelling: object, row: list[int]) -> list[tuple[int, int]]:
    ends = [*spelling.offsets.tolist()[1:], len(spelling.grams)]  # type: ignore[attr-defined]
    return [(spelling.offsets[word], ends[word]) for word in row]  # type: ignore[attr-defined]


def test_a_vector_is_that_of_the_word_and_the_mean_of_its_ngrams() -> None:
    embedding = SymbolEmbedding(3, 4, 2)
    reader = Dictionary(Lexicon("words", ["cat", "bat"]), Subwords(["at>", "<ca"]))
    numbers, _, spelling = inputs(reader, [reader.encode("cat mat dog")])
    assert embedding.symbol is not None and embedding.grams is not None
    words, grams = embedding.symbol.weight, embedding.grams.weight
    wanted = torch.stack([words[1] + (grams[0] + grams[1]) / 2, words[0] + grams[0], words[0]])
    torch.testing.assert_close(embedding(numbers, spelling)[:, 0], wanted)


def test_unknown_words_are_told_apart_by_their_endings(tmp_path: Path) -> None:
    """Words of good sentences end in -lovely, of bad ones in -awful; every word occurs once."""
    draw = np.random.default_rng(0)
    rows = [
        (f"{''.join(draw.choice([*'bcdghkmn'], 6))}{ending} here", label)
        for ending, label in (("ovely", "good"), ("awful", "bad")) * 100
    ]
    given = {**TINY, "steps": 60, "eval_interval": 30, "encoder": "bag", "learning_rate": 0.02, "symbols": "words"}
    whole = recurra.train(rows, out=tmp_path / "whole", subwords=False, **given)
    parts = recurra.train(rows, out=tmp_path / "parts", **given)
    fresh = [("zzovely here", "good"), ("xxawful here", "bad")]
    assert parts.model.evaluate(fresh).accuracy == 1 and whole.model.evaluate(fresh).accuracy == 0.5
    assert "n-grams of them" in parts.model.description and "n-grams" not in whole.model.description
    again = recurra.load(parts.path)
    assert again.probabilities("zzovely here") == parts.model.probabilities("zzovely here")
    record, content = parts.model.folder()
    recurra.files.write_folder(tmp_path / "model", {**record, "subwords": ["a", "a"]}, content)
    with pytest.raises(FileError, match="field 'subwords' has a value twice"):
        recurra.load(tmp_path / "model")


def test_a_model_without_a_recurring_ngram_is_loaded_again(tmp_path: Path) -> None:
    rows = [(f"ab {n}", "good") for n in range(20)] + [(f"ef {n}", "bad") for n in range(20)]
    run = recurra.train(rows, out=tmp_path / "run", encoder="bag", **TINY)
    model = recurra.load(run.path)
    assert model.subwords is not None and len(model.subwords) == 0  # type: ignore[attr-defined]
    assert model.probabilities("ab xy") == run.model.probabilities("ab xy")


def test_what_has_no_subwords(tmp_path: Path) -> None:
    rows = sentiment(40)
    with pytest.raises(InputError, match="subwords=True says nothing to symbols='characters'; leave it out, or choose"):
        recurra.train(rows, out=tmp_path / "a", symbols="characters", subwords=True)
    with pytest.raises(InputError, match="subwords=True says nothing to embedding=0, one-hot vectors; leave one"):
        recurra.train(rows, out=tmp_path / "a", embedding=0, subwords=True)
    run = recurra.train(rows, out=tmp_path / "a", **{**TINY, "embedding": 0})
    assert run.settings.subwords is False

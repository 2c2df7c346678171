"""Word vectors from text files."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generators import sentiment

import recurra
from recurra.data.vectors import read_vectors
from recurra.errors import DataError, FileError, InputError

TINY: dict[str, Any] = {
    "hidden": 4, "threads": 1, "batch": 8, "steps": 4, "eval_interval": 50, "log_interval": 50, "encoder": "bag",
}  # fmt: skip


def fold(word: str) -> str | None:
    return None if " " in word else word.casefold()


@pytest.mark.parametrize("header", ["", "5 2\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_both_forms_are_read(tmp_path: Path, header: str, packed: bool) -> None:
    text = f"{header}The 1 2\nthe 3 4\nnew york 5 6\nA\t7 -8e-1 \nb 9 10\n"
    path = tmp_path / ("v.txt.gz" if packed else "v.txt")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = read_vectors(path, {"the", "b"}, 1, fold)
    assert (found.width, found.words) == (2, 5)
    assert {word: row.tolist() for word, row in found.rows.items()} == {
        "the": [3, 4],  # written so, it goes before The
        "b": [9, 10],
        "a": pytest.approx([7, -0.8]),
    }
    assert list(found.rows) == ["the", "b", "a"]
    assert len(read_vectors(path, {"b"}, 0, fold).rows) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a 1 2\nb 1 2 3\n",
            "Line 2 of .*v.txt has 3 numbers after its word but line 1 has 2; every vector is",
        ),
        ("a 1 2\nb 1\n", "Line 2 of .*v.txt has 1 numbers after its word but line 1 has 2"),
        ("9 3\na 1 2\n", "Line 2 of .*v.txt has 2 numbers after its word but line 1 says 3"),
        ("word\n", r"Line 1 of .*v\.txt has a word and no numbers; give a word and its numbers a line\."),
        ("a 1 x\n", "Line 1 of .*v.txt is no vector: could not convert string to float: 'x'; take the line out"),
        ("a 1 nan\n", "Line 1 of .*v.txt has a number that is not finite; take the line out"),
        ("3 2\n", "v.txt has no vectors; give a text file with a word and its numbers a line"),
        (
            b"a 1 2\n\xff\x00 1 2\n",
            "Line 2 of .*v.txt is not UTF-8: byte 1 of it is 0xff; give vectors as text, not",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_vectors(path, {"a", "b"}, 9, fold)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt does not exist; give the path of a file of word vectors"):
        read_vectors(tmp_path / "none.txt", set(), 9, fold)
    with pytest.raises(DataError, match="is a folder; give the path of a file of word vectors in it"):
        read_vectors(tmp_path, set(), 9, fold)
    (tmp_path / "v.gz").write_bytes(b"a 1 2\n")
    with pytest.raises(DataError, match=r"v\.gz is no whole gzip file: .*; pack it again"):
        read_vectors(tmp_path / "v.gz", set(), 9, fold)


def test_a_model_begins_with_them_and_knows_more_words(tmp_path: Path) -> None:
    """Of two words that no training row has, one stands where the good words are, the other where the bad ones are."""
    good, bad = np.array([2.0, 0, 0]), np.array([0, 2.0, 0])
    places = {"splendid": good, "lovely": good, "awful": bad, "dreadful": bad, "marvellous": good, "ghastly": bad}
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in places.items()]
    path = tmp_path / "v.txt"
    path.write_text("".join(lines))
    rows = sentiment(100)
    given = {**TINY, "hidden": 8, "dropout": 0.0, "steps": 100, "learning_rate": 0.02, "vectors": str(path)}
    run = recurra.train(rows, out=tmp_path / "run", **given)
    assert run.settings.embedding == 3 and run.settings.subwords is False
    note = next(note for note in run.notes if note.startswith(str(path)))
    assert "6 vectors, 3 wide; 4 of the 64 different words of training (6.2 %) have one, the others" in note
    assert note.endswith("random vectors; 2 more words of the file are known too.")
    model = recurra.load(run.path)
    assert model.predict(["marvellous", "ghastly"]) == ["good", "bad"]
    embedding = model.network.embedding.symbol.weight  # type: ignore[union-attr]
    where = model.lexicon.number("ghastly")  # type: ignore[attr-defined]
    torch.testing.assert_close(embedding[where], torch.from_numpy(bad).float())
    assert recurra.resume(run.path, steps=102).step == 102
    path.write_text("".join(reversed(lines)))
    with pytest.raises(FileError, match=r"v\.txt has changed since the run began: .* field 'data\.vectors' of"):
        recurra.resume(run.path, steps=104)
    with pytest.raises(InputError, match=r"embedding=5 but the vectors of .*v\.txt are 3 wide; leave embedding"):
        recurra.train(rows, out=tmp_path / "other", **given, embedding=5)

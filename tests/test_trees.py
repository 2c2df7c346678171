"""Sentences as labelled trees: read, and their phrases learned from as further rows."""

import gzip
from pathlib import Path

import pytest
from generators import sentiment

import recurra
from recurra.data.extra import read_extra
from recurra.data.split import is_labelled, read_splits
from recurra.data.trees import is_trees, read_trees
from recurra.errors import DataError, InputError

TINY = {"hidden": 4, "embedding": 4, "threads": 1, "batch": 8, "steps": 4, "eval_interval": 4, "log_interval": 2}


def tree(words: list[str], label: str, degrees: dict[str, str]) -> str:
    """Words as a tree that leans right, each with its degree, the middle one where it has none."""
    text = f"({degrees.get(words[-1], '2')} {words[-1]})"
    for word in reversed(words[:-1]):
        text = f"({label} ({degrees.get(word, '2')} {word}) {text})"
    return text


def bank(path: Path, rows: list[tuple[str, str]]) -> Path:
    degrees = {"splendid": "4", "lovely": "3", "awful": "0", "dreadful": "1"}
    path.write_text("".join(tree(t.split(), {"good": "4", "bad": "0"}[k], degrees) + "\n" for t, k in rows))
    return path


def test_a_tree_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("\n(3 (2 It) (4 (2 's) (4 good\\/bad)))\n(0 No)\n")
    first, second = read_trees(path)
    assert (first.text, first.label, first.line) == ("It 's good/bad", "3", 2)
    assert first.phrases == [("It", "2"), ("'s", "2"), ("good/bad", "4"), ("'s good/bad", "4")]
    assert (second.text, second.label, second.phrases, second.line) == ("No", "0", [], 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(3 (2 a) (2 b)", "it ends with 1 brackets open."),
        ("(3 (2 a) (2 b)))", r"character 16 stands after its last bracket; give one tree a line\."),
        ("(3 ((2 a)))", r"character 4 opens a phrase without a label; write it as \(3 word\)\."),
        ("(3 (2 a) (2))", r"character 12 closes a phrase without a word; write it as \(2 word\)\."),
        ("a (3 b)", r"character 1 is a word outside of brackets; write it as \(3 word\)\."),
        (")", "character 1 closes a bracket that was not opened."),
    ],
)
def test_a_line_that_is_no_tree(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "trees.txt"
    path.write_text(f"(1 (2 x) (2 y))\n{line}\n")
    with pytest.raises(DataError, match=f"Line 2 of .*trees.txt is no tree: {message}"):
        read_trees(path)


def test_what_is_taken_for_trees(tmp_path: Path) -> None:
    for name, content, wanted in (
        ("a.txt", b"\n (3 (2 It))\n", True),
        ("b.txt", b"(S (NP it))\n", False),
        ("c.txt", b"(2 be or not to be", True),
        ("d.txt", b"(2)", False),
        ("e.txt.gz", gzip.compress(b"(3 (2 It))"), True),
        ("f.txt.gz", b"(3 (2 It))", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_trees(tmp_path / name) == wanted, name
    assert not is_trees(tmp_path) and not is_trees(tmp_path / "none") and not is_trees("")


def test_no_phrase_of_a_sentence_that_is_held_out_is_learned_from(tmp_path: Path) -> None:
    rows = sentiment(60)
    path = bank(tmp_path / "trees.txt", rows)
    splits = read_splits(path, None, None, 0.2, 0.2, 0)
    assert splits.extra is not None and splits.test is not None
    held = [*splits.validation.texts, *splits.test.texts]
    kept = {text for text, _ in rows} - set(held)
    assert all(any(f" {phrase} " in f" {text} " for text in kept) for phrase in splits.extra.texts)
    assert not any(phrase in held for phrase in splits.extra.texts)
    assert len(set(zip(splits.extra.texts, splits.extra.labels))) == len(splits.extra)  # each once
    assert not set(splits.extra.texts) & set(splits.train.texts)
    said = "\n".join(splits.notes)
    assert f"{len(held)} sentences of {path} are held out for validation or test; no phrase of such" in said
    assert f"{len(splits.extra):,} rows of {path} are added to training; " in said
    assert splits.sha256 != read_splits(path, None, None, 0.2, 0.2, 1).sha256


def test_five_degrees_for_two_labels(tmp_path: Path) -> None:
    rows = sentiment(20)
    data = [(text, {"good": "positive", "bad": "Negative"}[label]) for text, label in rows]
    path = bank(tmp_path / "trees.txt", [*rows, *sentiment(2, seed=4)])
    splits = read_splits(data, None, None, 0.2, 0.2, 0, str(path))
    assert splits.extra is not None and set(splits.extra.labels) == {"Negative", "positive"}
    by_text = dict(zip(splits.extra.texts, splits.extra.labels))
    assert (by_text["lovely"], by_text["dreadful"]) == ("positive", "Negative") and "w1" not in by_text
    middle = sum(label == "2" for t in read_trees(path) for _, label in t.phrases
                 if t.text not in [*splits.validation.texts, *(splits.test.texts if splits.test else [])])  # fmt: skip
    said = "\n".join(splits.notes)
    assert f"0 and 1 are taken for Negative, 3 and 4 for positive; the {middle} phrases of degree 2 are left" in said
    with pytest.raises(
        DataError, match=r"Line \d of .*trees.txt has the label '2', which training has not \(bad, good"
    ):
        read_splits(rows, None, None, 0.2, 0.2, 0, str(path))


def test_more_rows_of_a_table(tmp_path: Path) -> None:
    data = sentiment(20)
    splits = read_splits(data, None, None, 0.2, 0.2, 0)
    new = [("w1 splendid", "good"), ("w2 awful", "bad"), ("w1  SPLENDID", "good"), ("w3", "")]
    old = [(splits.train.texts[0], splits.train.labels[0]), (splits.validation.texts[0], "bad")]
    path = tmp_path / "more.csv"
    path.write_text("said,stars\n" + "".join(f"{text},{label}\n" for text, label in [*new, *old]))
    found, notes = read_extra(path, splits.train, [splits.validation])
    assert list(zip(found.texts, found.labels)) == new[:2]
    assert notes == [
        f"1 row of {path} is without a text or a label and left out.",
        f"2 rows of {path} are added to training; 2 more it has already.",
        f"1 row of {path} is left out: the same text is held out for validation or test.",
    ]
    (tmp_path / "text.txt").write_text("no table")
    with pytest.raises(
        DataError, match=r"text\.txt is neither a table nor a file of labelled trees, which extra takes"
    ):
        read_extra(tmp_path / "text.txt", splits.train, [])
    with pytest.raises(DataError, match=r"has no table for training; name it train, as in train\.csv"):
        read_extra(tmp_path, splits.train, [])


def test_a_folder_of_trees_is_classified_and_resumed(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("dev", 1), ("test", 2)):
        bank(tmp_path / f"{part}.txt", sentiment(20, seed=seed))
    assert is_labelled(tmp_path) and is_labelled(tmp_path / "dev.txt")
    (tmp_path / "more.csv").write_text("text,label\nw1 lovely w1,4\nw2 w2,2\n")
    run = recurra.train(tmp_path, out=tmp_path / "run", extra=str(tmp_path / "more.csv"), **TINY)
    said = "\n".join(run.notes)
    assert "more.csv are added to training; 0 more it has already." in said and "train.txt are added" in said
    assert run.model.labels == ["0", "1", "2", "3", "4"]
    assert recurra.resume(run.path, steps=6).step == 6
    result = recurra.load(run.path).evaluate(tmp_path)
    assert result.rows == 20 and "only its test part was measured" in result.notes[0]
    assert recurra.load(run.path).evaluate(tmp_path / "dev.txt").rows == 20
    with pytest.raises(InputError, match="extra='x' is a setting of the task classification, and the task here is lan"):
        recurra.train("demo", out=tmp_path / "text", extra="x")

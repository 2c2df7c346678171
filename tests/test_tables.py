"""From tables to labelled texts: what is read, what is found, and what is said of what is wrong."""

import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from generators import sentiment
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.buckets import Buckets, padded
from recurra.data.columns import Labelled, labelled
from recurra.data.split import is_labelled, read_splits, stratified
from recurra.data.symbols import UNKNOWN, Lexicon, found_kind
from recurra.data.table import Table, read_table, table_of_memory
from recurra.data.words import words
from recurra.errors import DataError, InputError

ROWS = [("a fine day", "1"), ('he said "no", twice', "0"), ("line\nbreak", "1"), ("nothing", "0"), ("much of it", "1")]


def write(path: Path, header: bool = True, rows: list[tuple[str, str]] = ROWS) -> Path:
    lines = [("review", "label"), *rows] if header else rows
    quoted = "".join(f'"{text.replace(chr(34), 2 * chr(34))}",{label}\n' for text, label in lines)
    if path.name.endswith(".jsonl"):
        path.write_text("".join(json.dumps({"review": t, "label": int(n)}) + "\n" for t, n in rows))
    elif ".tsv" in path.name:
        quoted = "".join(f"{label}\t{text.replace(chr(10), ' ')}\n" for text, label in lines)
        path.write_bytes(gzip.compress(quoted.encode()) if path.suffix == ".gz" else quoted.encode())
    else:
        path.write_text(quoted)
    return path


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.tsv.gz", "a.jsonl"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str, header: bool) -> None:
    rows = labelled(read_table(write(tmp_path / name, header)))
    assert rows.labels == ["1", "0", "1", "0", "1"]
    wanted = [text.replace("\n", " ") if "tsv" in name else text for text, _ in ROWS]
    assert rows.texts == wanted
    if header or name == "a.jsonl":
        assert (rows.text, rows.label) == ("review", "label")


def test_rows_in_memory() -> None:
    reviews = ["good", None, "fine", float("nan")]
    frame = pandas.DataFrame({"id": [1, 2, 3, 4], "label": [1, 0, 1, 0], "review": reviews})
    for data in (frame, [{"review": "good", "label": 1}, {"review": None, "label": 0}, {"review": "fine", "label": 1},
                         {"review": float("nan"), "label": 0}]):  # fmt: skip
        rows = labelled(table_of_memory(data))
        assert (rows.texts, rows.labels) == (["good", "", "fine", ""], ["1", "0", "1", "0"])
    assert labelled(table_of_memory([("x", True), ("y", False), ("z z", True), ("w", False)])).labels[:2] == [
        "true", "false",
    ]  # fmt: skip


def test_columns_are_found_without_names_to_go_by() -> None:
    rows = [[str(n), f"the text of row {n}", "spam" if n % 3 else "ham"] for n in range(20)]
    found = labelled(Table("t", [["a", "b", "c"], *rows], list(range(1, 22))))
    assert (found.text, found.label, len(found), found.lines[0]) == ("b", "c", 20, 2)
    assert labelled(Table("t", rows, list(range(1, 21)))).lines[0] == 1  # "spam" names no column: others have it
    chosen = labelled(Table("t", rows, list(range(1, 21))), text="1", label="3")
    assert chosen.texts == [row[0] for row in rows]


WRONG = {
    "a.csv": (b"text,label\nx,1\ny,0,z\n", r"Line 3 of .*a\.csv has 3 fields but line 1 has 2"),
    "b.tsv": (b"text\tlabel\nx\t1\n" + "é\t1\nü\t0\n".encode("latin1"), r"not UTF-8 throughout: 2 lines are "
              r"not, the first is line 3, whose byte 1 is 0xe9; convert it \(iconv"),
    "c.jsonl": (b'{"text": "x", "label": 1}\n{"text": "y"}\n', r"line 2 of .*c\.jsonl has no 'label', which the first"),
    "d.jsonl": (b'{"text": "x", "label": 1}\n[1]\n', r"Line 2 of .*d\.jsonl is no JSON object: Expected `object`"),
    "e.csv": (b"text\nx\ny\n", r"e\.csv has one column"),
    "f.csv": (b"", r"f\.csv is empty \(0 bytes\)"),
    "g.csv": (b"body,kind\nx,1\ny,2\nz,3\nv,4\nw,5\n", r"No column of .*g\.csv looks like labels.*choose one with"),
    "h.tsv.gz": (b"no gzip", r"h\.tsv\.gz is no whole gzip file"),
    "i.txt": (b"x", r"i\.txt is no table by its name; tables end in \.csv, \.tsv"),
    "j.csv": (b"text,label\nx,1\n\ny,1\nz,1\n", r"j\.csv, 1 of 3 rows: all have the label '1'; at least 2 are needed"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_splits(tmp_path / name, None, None, 0.2, 0.2, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data is an int; give a path, a list or"),
        ([], "data has no rows"),
        (["x"], r"data\[0\] is a str; each row is a pair"),
        ([("x", "1"), ("y",)], r"data\[1\] is a tuple of 1; each row is a pair"),
    ],
)
def test_rows_that_are_none(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table_of_memory(data)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"has no column 'stars' \(label\); it has review, label\."):
        labelled(read_table(path), label="stars")
    with pytest.raises(DataError, match="text and label are both column label"):
        labelled(read_table(path), text="label", label="label")


def test_parquet_needs_pyarrow_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"a\.parquet is a Parquet file, and pyarrow, .* is not installed; pip install"):
        read_table(tmp_path / "a.parquet")


def test_parquet_rows(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": ["x", None], "label": [1, 0]})
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert (table.columns, table.rows) == (["text", "label"], [["x", "1"], ["", "0"]])
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"b\.parquet is no Parquet file: "):
        read_table(tmp_path / "b.parquet")


def test_a_split_is_stratified_and_its_own(tmp_path: Path) -> None:
    rows = [(f"text {n}", "rare" if n % 10 == 0 else "common") for n in range(200)]
    made = read_splits(rows, None, None, 0.1, 0.2, 7)
    assert made.test is not None
    assert [Counter(part.labels) for part in (made.train, made.validation, made.test)] == [
        {"rare": 14, "common": 126}, {"rare": 2, "common": 18}, {"rare": 4, "common": 36},
    ]  # fmt: skip
    texts = [set(part.texts) for part in (made.train, made.validation, made.test)]
    assert len(set.union(*texts)) == 200 and sum(map(len, texts)) == 200
    again, other = (read_splits(rows, None, None, 0.1, 0.2, seed) for seed in (7, 8))
    assert again == made and again.sha256 == made.sha256 and other.train.texts != made.train.texts


@given(st.lists(st.tuples(st.integers(0, 9).map(str), st.sampled_from("abc")), min_size=1), st.integers(0, 5))
def test_equal_texts_stay_together_and_no_row_is_lost(pairs: list[tuple[str, str]], seed: int) -> None:
    texts, labels = zip(*pairs, strict=True)
    rows = Labelled("t", list(texts), list(labels), list(range(len(pairs))), "text", "label")
    train, kept = stratified(rows, (0.3, 0.3), seed)
    parts = [train, *kept]
    assert sorted(n for part in parts for n in part) == list(range(len(pairs)))
    found = [{texts[n] for n in part} for part in parts]
    assert sum(map(len, found)) == len(set(texts))


def test_what_is_found_is_counted_and_said(tmp_path: Path) -> None:
    train = [("good good", "1"), ("bad", "0"), ("bad", "1"), (" ", "1"), ("so so", "2"), ("fine day", "1"), ("x", "")]
    for name, rows in (("train.csv", train), ("dev.csv", [("bad", "0"), ("well", "1")]), ("test.tsv", [("hm", "1")])):
        write(tmp_path / name, rows=rows)
    made = read_splits(tmp_path, None, None, 0.1, 0.1, 0)
    assert made.test is not None and (len(made.train), len(made.validation), len(made.test)) == (5, 2, 1)
    said = "\n".join(made.notes)
    for note in (
        "the text is column review, the label column label.",
        "train.csv has an empty text and is left out, the first in line 5.",
        "train.csv has an empty label and is left out, the first in line 8.",
        "2 labels occur once in training ('0', '2')",
        "1 text of",
        "in training too, so that its figures flatter; nothing was left out.",
        "1 text has more than one label in training.",
    ):
        assert note in said
    write(tmp_path / "test.tsv", rows=[("hm", "1"), ("hm", "7")])
    with pytest.raises(DataError, match=r"Line 3 of .*test\.tsv has the label '7', which training has not \(0, 1, 2\)"):
        read_splits(tmp_path, None, None, 0.1, 0.1, 0)
    write(tmp_path / "valid.csv")
    with pytest.raises(DataError, match=r"has dev\.csv and valid\.csv, both for validation; take one away"):
        read_splits(tmp_path, None, None, 0.1, 0.1, 0)


def test_a_folder_without_validation_keeps_some_of_training(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows=sentiment(40))
    made = read_splits(tmp_path, None, None, 0.2, 0.1, 0)
    assert (len(made.train), len(made.validation), made.test) == (32, 8, None)
    assert "has no table for validation: 8 of 40 rows were kept, by seed 0." in made.notes[1]
    assert is_labelled(tmp_path) and is_labelled("x.csv.gz") and is_labelled([]) and not is_labelled("x.txt")


def test_words_and_characters() -> None:
    assert words("Don't stop, it's 3.5 über-nice") == ["don't", "stop", ",", "it's", "3", ".", "5", "über", "-", "nice"]
    assert words("they 's n't") == ["they", "'s", "n't"]
    assert found_kind(["a word and another", "more"]) == "words"
    assert found_kind(["位置实在很好,离佛山的主要景点祖庙也就500米左右", "(()())"]) == "characters"


def test_chinese_words_need_rjieba_and_are_cut_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(InputError, match=r"needs rjieba, .* pip install 'recurra\[text\]', or choose symbols='char"):
        words("酒店很好")
    monkeypatch.undo()
    assert words("酒店很好,位置在中国北京") == ["酒店", "很", "好", ",", "位置", "在", "中国", "北京"]


def test_a_lexicon_knows_what_is_frequent() -> None:
    lexicon = Lexicon.of("words", ["b a b", "a b c"], least=2)
    assert lexicon.symbols == ["b", "a"] and len(lexicon) == 3
    assert lexicon.encode("A c b").tolist() == [2, UNKNOWN, 1]
    assert Lexicon("characters", "xy").encode("yxz").tolist() == [2, 1, UNKNOWN]


def buckets(count: int, batch: int, seed: int = 0, spread: float = 0.8) -> Buckets:
    """Lengths as texts have them: log-normal, the longest some twenty times as long as most."""
    lengths = np.random.default_rng(count).lognormal(4, spread, count).astype(int) + 1
    return Buckets([np.arange(n) for n in lengths], batch, seed)


@pytest.mark.parametrize(("count", "batch"), [(5000, 32), (700, 16), (200, 8)])
def test_little_is_padding_and_each_row_comes_once(count: int, batch: int) -> None:
    made = buckets(count, batch)
    for epoch in (0, 1, 5):
        rows = np.concatenate([made.rows(epoch, n) for n in range(made.batches)])
        assert sorted(rows) == list(range(count))
        assert made.padding(epoch) < 0.1
    assert max(len(made.rows(0, n)) for n in range(made.batches)) == batch


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        made = buckets(300, 16, seed)
        return [int(n) for index in range(made.batches) for n in made.rows(epoch, index)]

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)
    made = buckets(300, 16, 1)
    made.rows(0, 0)
    assert [int(n) for k in range(made.batches) for n in made.rows(3, k)] == order(1, 3)  # from any epoch to any other


def test_sequences_side_by_side() -> None:
    block, lengths = padded([np.array([1, 2, 3]), np.array([], np.int64), np.array([4])])
    assert block.tolist() == [[1, 0, 4], [2, 0, 0], [3, 0, 0]] and lengths.tolist() == [3, 0, 1]

"""check(): what data is, what is wrong with it, and what training on it will take."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from generators import sentiment

import recurra
from recurra import cli
from recurra.check import Check, facts, lines, repeats
from recurra.check.cost import duration
from recurra.check.problems import Problem
from recurra.data.texts import Texts
from recurra.errors import InputError

SMALL: dict[str, Any] = {"hidden": 8, "embedding": 8, "threads": 1, "batch": 8, "steps": 12, "eval_interval": 6}
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in sentiment(40))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Reviews with everything in them that is wrong and can be used all the same."""
    folder = tmp_path_factory.mktemp("rows")
    planted = "".join(f"the {n} room and the view of it,good\n" for n in range(300))
    extra = (
        "<b>bold</b> words here,good\nthe cafÃ© was old,bad\nan invisible\u200b one,bad\na \x07 bell rings,bad\n"
        "the same text twice,good\nthe same text twice,bad\nthe same text twice,bad\nonce upon a time,rare\n"
    )
    (folder / "train.csv").write_text(CSV + planted + extra, encoding="utf-8")
    leaks = "the 1 room and the view of it,good\nThe 2 room -- and the view of it!,good\nzxcv qwer tyui,bad\n"
    (folder / "dev.csv").write_text("text,label\n" + leaks + "a splendid w1,good\n")
    (folder / "test.csv").write_text("text,label\nzxcv qwer tyui,bad\n")
    return recurra.check(folder, **SMALL)


def found(check: Check, *words: str) -> Problem:
    (one,) = [problem for problem in check.problems if all(word in problem.what for word in words)]
    return one


# --------------------------------------------------------------------------------------------------------------- facts


def test_facts_of_a_table(rows: Check) -> None:
    assert rows.usable and rows.task == "classification" and rows.why == "its rows have a text and a label"
    train = rows.parts["training"]
    assert train.texts == 348 and train.labels == {"good": 322, "bad": 25, "rare": 1}
    assert train.lengths is not None and train.lengths.unit == "words" and train.lengths.median == 8
    assert sum(count for _, count in train.lengths.histogram) == 348
    assert train.language.endswith("words between blanks")
    assert rows.parts["validation"].unknown_share > 0 and "zxcv" in rows.parts["validation"].unknown
    assert rows.settings["hidden"] == 8 and rows.settings["steps"] == 12 and rows.settings["text"] == "text"


def test_what_is_wrong_is_told_with_file_line_and_remedy(rows: Check) -> None:
    html = found(rows, "HTML")
    assert "line 342 of" in html.what and "train.csv" in html.what and "take the tags out" in html.what
    assert "line 343" in found(rows, "wrong encoding").what
    assert "line 344" in found(rows, "invisible").what
    assert "line 345" in found(rows, "control").what
    assert found(rows, "there before").count == 2
    assert "line 346" in found(rows, "several labels", "decide").what and "'good'" in found(rows, "several labels").what
    leak = found(rows, "of validation is in training too, so")
    assert leak.count == 1 and "line 2 of" in leak.what and "line 43 of" in leak.what
    near = found(rows, "of validation is in training too but for case")
    assert near.count == 1 and "line 3 of" in near.what
    assert found(rows, "of test is in validation").count == 1
    assert "'good' has 322 rows, 'rare' 1" in found(rows, "unbalanced").what
    assert "once in training" in " ".join(rows.notes)
    assert [p.severity for p in rows.problems] == sorted(
        (p.severity for p in rows.problems), key=["error", "warning", "note"].index
    )


def test_the_cost_has_its_parts(rows: Check) -> None:
    cost = rows.cost
    assert cost is not None and cost.steps == 12 and not cost.broken
    assert set(cost.stages) >= {"reading", "baselines", "training", "validation", "saving", "plot and report"}
    assert cost.seconds == pytest.approx(sum(cost.stages.values())) and cost.bytes > 50 * 2**20
    assert cost.sentence in str(rows) and "█" in str(rows)


def test_a_text_is_checked_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "my.txt"
    text.write_text("The cat sat on the mat, and the dog sat on the log.\n" * 60)
    before, here = os.listdir(tmp_path), Path.cwd()
    os.chdir(tmp_path)
    try:
        small = ["--hidden", "8", "--steps", "4", "--threads", "1", "--json"]
        assert cli.run(["check", "my.txt", *small]) == 0
    finally:
        os.chdir(here)
    told = json.loads(capsys.readouterr().out)
    assert os.listdir(tmp_path) == before
    assert told["task"] == "language" and told["usable"] and told["parts"]["training"]["noun"] == "line"
    assert told["parts"]["training"]["language"] == "English; words between blanks"
    assert told["cost"]["seconds"] > 0 and told["settings"]["hidden"] == 8
    (leak,) = [p for p in told["problems"] if "of validation are in training too" in p["what"]]
    assert "line 55 of my.txt is line 1 of my.txt" in leak["what"]


def test_data_in_memory_is_checked() -> None:
    one = recurra.check(pandas.DataFrame(sentiment(40), columns=["text", "label"]), **SMALL)
    assert one.usable and one.parts["training"].name.startswith("data")


def test_tagged_sentences_are_checked(tmp_path: Path) -> None:
    words = "".join(f"the DET\n{noun} NOUN\nruns VERB\n{n} NUM\n\n" for n in range(30) for noun in ("cat", "dog"))
    (tmp_path / "words.conll").write_text(words)
    one = recurra.check(tmp_path / "words.conll", **SMALL)
    train = one.parts["training"]
    assert one.task == "tagging" and one.why == "its words have tags" and train.noun == "sentence"
    assert set(train.labels) == {"DET", "NOUN", "VERB", "NUM"} and train.lengths is not None
    assert train.lengths.median == 4 and train.lengths.longest_where.startswith("line ")
    assert one.parts["validation"].unknown_share > 0  # numbers
    assert "DET 48 (25%)" in str(one) and not any("class_weights" in p.what for p in one.problems)


def test_a_setting_that_cannot_be_is_no_fault_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(InputError, match="hidden=0 cannot be used"):
        recurra.check(tmp_path / "a.csv", hidden=0)
    with pytest.raises(InputError, match="task='cooking' is unknown"):
        recurra.check(tmp_path / "a.csv", task="cooking")


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["这家酒店的房间很干净", "服务员态度也很好"], "Chinese; no blanks between words"),
        (["The cat is in the house and it is warm"], "English; words between blanks"),
        (["Der Hund liegt unter dem großen Tisch"], "Latin letters, not plain English; words between blanks"),
        (["这家酒店 hotel is 很好 nice", "房间 room"], "mixed: 65% Latin letters, 35% Chinese; words between blanks"),
        (["これはペンです"], "Japanese (100% kana)"),
        (["Собака спит дома"], "Cyrillic letters; words between blanks"),
        (["123 456"], "no letters"),
    ],
)
def test_the_language_is_told_by_script_and_blanks(texts: list[str], language: str) -> None:
    assert facts.language_of(texts) == language


def test_near_duplicates_are_those_that_differ_in_case_width_blanks_and_marks() -> None:
    assert repeats.normalised("Ｔｈｅ  cat, sat!") == repeats.normalised("the CAT sat") == "thecatsat"
    assert repeats.normalised("the cat sat") != repeats.normalised("the cat sits")


def test_clean_text_is_not_suspicious() -> None:
    clean = [
        "a < b and c > d",
        "5 > 3 & 2 < 4",
        "naïve café, Ünïcode — “quoted” …",
        "这家酒店不错。",
        "\tindented",
        "<3",
    ]
    assert not lines.suspicious(Texts("t", clean, None))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_a_duration_is_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# ----------------------------------------------------------------------------------------------------------- bad files


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / name).write_bytes(content)
        return place / name

    return make


def _folder(**contents: bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / "folder").mkdir()
        for name, content in contents.items():
            (place / "folder" / name.replace("_", ".")).write_bytes(content)
        return place / "folder"

    return make


def _pipe(place: Path) -> Path:
    os.mkfifo(place / "pipe.txt")
    return place / "pipe.txt"


def _link(place: Path) -> Path:
    (place / "loop.txt").symlink_to(place / "loop.txt")
    return place / "loop.txt"


MIXED = CSV.encode() + "une soirée d'été,good\n".encode("latin-1") + "这家酒店很好,good\n".encode("gb18030")
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda place: place / "none.txt", "does not exist"),
    "empty text": (_file("a.txt", b""), "is empty"),
    "blanks": (_file("a.txt", b" \n\n \t\n" * 99), "nothing but white space"),
    "one character": (_file("a.txt", b"a"), "give a longer text"),
    "two lines": (_file("a.txt", b"ab\ncd\n"), "longer text"),
    "zeros": (_file("a.txt", bytes(5000)), "binary file"),
    "image": (_file("a.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9), "a.png"),
    "program": (_file("a.txt", b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 9), "binary file"),
    "UTF-16": (_file("a.txt", "hello world\n".encode("utf-16") * 90), "UTF-16"),
    "Latin-1 text": (_file("a.txt", "déjà vu\n".encode("latin-1") * 90), "probably LATIN1: 'déjà vu'"),
    "GB18030 text": (_file("a.txt", "这家酒店很好\n".encode("gb18030") * 90), "probably GB18030: '这家酒店很好'"),
    "mixed encodings": (_file("a.csv", MIXED), "line 42, byte 9: 0xe9, probably LATIN1"),
    "cut in a character": (_file("a.csv", CSV.encode() + "好".encode()[:2]), "line 42, byte 1"),
    "empty table": (_file("a.csv", b""), "is empty"),
    "head alone": (_file("a.csv", b"text,label\n"), "a.csv"),
    "blank lines": (_file("a.csv", b"\n\n\n"), "no rows"),
    "one column": (_file("a.csv", b"text\na\nb\n"), "one column"),
    "ragged": (_file("a.csv", CSV.encode() + b"a,b,c\n"), "Line 42"),
    "open quote": (_file("a.csv", b'text,label\n"a,good\nb,bad\n'), "Line 2"),
    "a field too long": (_file("a.csv", b"text,label\na,good\n" + b"x" * 200_000 + b",bad\n"), "Line 3"),
    "one label": (_file("a.csv", b"text,label\n" + b"a b,good\n" * 9), "label"),
    "labels all different": (_file("a.csv", b"a,b\n" + b"".join(b"t%d,l%d\n" % (n, n) for n in range(9))), "labels"),
    "no text at all": (_file("a.csv", b"text,label\n" + b" ,good\n ,bad\n" * 9), "no row with a text and a label"),
    "too few rows": (_file("a.csv", b"text,label\na,good\nb,bad\n"), "validation"),
    "no JSON": (_file("a.jsonl", b"{\n"), "Line 1"),
    "JSON of lists": (_file("a.jsonl", b"[1]\n[2]\n"), "Line 1"),
    "JSON nested": (_file("a.jsonl", b"[" * 100_000), "Line 1"),
    "JSON with a gap": (_file("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "c"}\n'), "line 2"),
    "no Parquet": (_file("a.parquet", b"PAR1nonsensePAR1"), "no Parquet file"),
    "no gzip": (_file("a.csv.gz", b"text,label\n"), "gzip"),
    "cut gzip": (_file("a.csv.gz", gzip.compress(CSV.encode())[:-9]), "gzip"),
    "no trees": (_file("a.txt", b"(3 (2 It) (4 (2 's) lovely)\n"), "a.txt"),
    "empty folder": (_folder(), "no text for training"),
    "folder without training": (_folder(test_csv=CSV.encode()), "training"),
    "two for training": (_folder(train_csv=CSV.encode(), train_tsv=b"a\tb\n"), "both for train"),
    "unknown label in dev": (
        _folder(train_csv=CSV.encode(), dev_csv=b"text,label\na,good\nc,ugly\n"), "'ugly', which training has not",
    ),
    "pipe": (_pipe, "pipe"),
    "link to itself": (_link, "loop.txt"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_told_and_never_crashes(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = BAD[kind]
    path = make(tmp_path)
    assert cli.run(["check", str(path), "--threads", "1"]) == 2
    told = capsys.readouterr()
    assert "cannot be used" in told.out.splitlines()[0] and message in told.out and not told.err
    assert str(path.name) in told.out

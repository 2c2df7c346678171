"""From files of tagged words to sentences: what is read, which scheme is found, and what is said of what is wrong."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.conll import read_tagged
from recurra.data.schemes import SCHEMES, Span, breaks, found_scheme, is_iob1, may_follow, spans, tags_of, written
from recurra.data.tagged import object_lines, tagged_of_memory
from recurra.data.tagged_split import TaggedSplits, is_tagged, read_tagged_rows, read_tagged_splits
from recurra.errors import DataError, InputError

WORDS = [["Ada", "Lovelace", "was", "in", "London"], ["Nothing"], ["Bath", ",", "Turin"]]
TAGS = [["B-PER", "I-PER", "O", "O", "B-LOC"], ["O"], ["B-LOC", "O", "B-LOC"]]
LABELS = ["where", "none", "where"]


def columns(between: str = " ", end: str = "\n") -> str:
    rows = ("".join(f"{word}{between}{tag}{end}" for word, tag in zip(*each, strict=True)) for each in zip(WORDS, TAGS))
    return end.join(rows)


def conllu() -> str:
    kinds = {"O": "NOUN\tNN"}
    sentences = []
    for number, (words, tags) in enumerate(zip(WORDS, TAGS, strict=True)):
        lines = [f"# sent_id = {number}", "1-2\tof both\t_\t_\t_\t_\t_\t_\t_\t_"]
        lines += [
            f"{n}\t{word}\t{word}\t{kinds.get(tag, 'PROPN' + chr(9) + 'NNP')}\t_\t0\troot\t_\t_"
            for n, (word, tag) in enumerate(zip(words, tags, strict=True), 1)
        ]
        sentences.append("\n".join([*lines, "1.1\tempty\t_\t_\t_\t_\t_\t_\t_\t_"]))
    return "\n\n".join(sentences) + "\n\n"


def line_folder(folder: Path, labels: bool = True) -> Path:
    folder.mkdir(parents=True)
    for name, rows in (("seq.in", WORDS), ("seq.out", TAGS)):
        (folder / name).write_text("".join(" ".join(row) + " \n" for row in rows))
    if labels:
        (folder / "label").write_text("".join(f"{label}\n" for label in LABELS))
    return folder


# -------------------------------------------------------------------------------------------------------------- schemes

# What seqeval 1.2.2 (`get_entities`) gives for these tags, ends included; compared with it on 40,000 random rows too.
CONLLEVAL = [
    ("O I-Y E-Y E-X E-X I-Y", [("Y", 1, 2), ("X", 3, 3), ("X", 4, 4), ("Y", 5, 5)]),
    ("E-Y I-X E-Y I-X I-Y", [("Y", 0, 0), ("X", 1, 1), ("Y", 2, 2), ("X", 3, 3), ("Y", 4, 4)]),
    ("B-X B-X I-X O I-X", [("X", 0, 0), ("X", 1, 2), ("X", 4, 4)]),
    ("S-Y B-X B-Y O O B-Y S-X", [("Y", 0, 0), ("X", 1, 1), ("Y", 2, 2), ("Y", 5, 5), ("X", 6, 6)]),
    ("E-X B-X I-Y I-X I-X E-Y I-Y B-Y O",
     [("X", 0, 0), ("X", 1, 1), ("Y", 2, 2), ("X", 3, 4), ("Y", 5, 5), ("Y", 6, 6), ("Y", 7, 7)]),
    ("B-X I-X S-X S-X", [("X", 0, 1), ("X", 2, 2), ("X", 3, 3)]),
    ("", []),
    ("O I-Y E-Y I-X B-Y I-Y B-X", [("Y", 1, 2), ("X", 3, 3), ("Y", 4, 5), ("X", 6, 6)]),
]  # fmt: skip


@pytest.mark.parametrize(("tags", "wanted"), CONLLEVAL)
def test_spans_are_those_of_conlleval(tags: str, wanted: list[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == [Span(kind, begin, last + 1) for kind, begin, last in wanted]
    middle = tags.replace("I-", "M-")
    assert spans(middle.split()) == spans(tags.split())


@st.composite
def marked(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans that do not overlap, and how many words there are."""
    found, place = [], 0
    for gap, length, kind in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from("XY")))):
        found.append(Span(kind, place + gap, place + gap + length))
        place += gap + length
    return found, place + draw(st.integers(0, 2))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(marked())
def test_spans_are_written_and_read_again(scheme: str, case: tuple[list[Span], int]) -> None:
    given_spans, words = case
    tags = written(given_spans, words, scheme)
    assert spans(tags) == given_spans and not breaks(tags, scheme)
    assert set(tags) <= set(tags_of("XY", scheme))
    if any(span.end - span.begin > 2 for span in given_spans):  # shorter ones are the same in BIOES and in BMES
        assert found_scheme(tags) == scheme


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tag_may_follow_where_reading_and_writing_changes_nothing(scheme: str) -> None:
    """The rule of what may follow what, by its meaning: tags that keep it say spans that are written as they are."""
    tags = tags_of("XY", scheme)
    for first in tags:
        for second in tags:
            for third in tags:
                row = [first, second, third]
                fits = all(may_follow(a, b, scheme) for a, b in zip(["O", *row], [*row, "O"], strict=True))
                assert fits == (written(spans(row), 3, scheme) == row), row
                assert fits == (not breaks(row, scheme))


@pytest.mark.parametrize(
    ("tags", "scheme", "place", "said"),
    [
        ("O I-X", "BIO", 1, "the tag 'I-X' stands after 'O', where B-X was expected"),
        ("B-X I-Y", "BIO", 1, "the tag 'I-Y' stands after 'B-X', where B-Y was expected"),
        ("I-X", "BIO", 0, "the tag 'I-X' stands at the start of the sentence, where B-X was expected"),
        ("B-X O", "BIOES", 1, "the tag 'O' stands after 'B-X', where I-X or E-X was expected"),
        ("O B-X", "BMES", 1, "the sentence ends after 'B-X', where M-X or E-X was expected"),
        ("S-X M-X E-X", "BMES", 1, "the tag 'M-X' stands after 'S-X', where B-X or S-X was expected"),
        ("O Bx", "BIO", 1, "the tag 'Bx' is none of BIO, where O, B-… or I-… was expected"),
    ],
)
def test_what_is_said_of_a_break(tags: str, scheme: str, place: int, said: str) -> None:
    (broken,) = breaks(tags.split(), scheme)
    assert broken[:2] == (place, said)


def test_the_scheme_is_found() -> None:
    assert found_scheme(["NOUN", "VERB", "O", "X", "-LRB-"]) is None
    assert found_scheme("B M E S".split()) == "BMES"  # words of a text, which have no kind
    assert found_scheme("O B-X I-X".split()) == "BIO" and found_scheme("O S-X".split()) == "BIOES"
    assert is_iob1(["I-X I-X O".split(), "I-X B-X".split()])
    assert not is_iob1(["B-X I-X".split()]) and not is_iob1(["O O".split()])


# -------------------------------------------------------------------------------------------------------------- readers


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.conll", columns()),
        ("a.bio.gz", columns("\t")),
        ("a.txt", columns("  ", "\r\n")),
        (
            "a.tsv",
            "-DOCSTART- -X- O O\n\n" + "\n\n".join(part.replace(" ", " NN x ") for part in columns().split("\n\n")),
        ),
        ("a.jsonl", "".join(json.dumps({"tokens": w, "tags": t}) + "\n" for w, t in zip(WORDS, TAGS, strict=True))),
    ],
)
def test_every_kind_of_file_gives_the_same_sentences(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    rows, notes = read_tagged(path, None, None)
    assert is_tagged(path) and (rows.words, rows.tags, rows.labels) == (WORDS, TAGS, None)
    documents = [f"{path}: lines -DOCSTART-, which divide documents: 1; they are no words."]
    assert notes == (documents if name == "a.tsv" else [])


def test_lines_of_a_folder_and_rows_in_memory(tmp_path: Path) -> None:
    rows, notes = read_tagged(line_folder(tmp_path / "data"), None, None)
    again, more = tagged_of_memory(list(zip(WORDS, TAGS, LABELS, strict=True)))
    for found in (rows, again):
        assert (found.words, found.tags, found.labels) == (WORDS, TAGS, LABELS) and not notes + more
    assert rows.place(2, 1) == f"line 3 of {tmp_path / 'data' / 'seq.out'}, word 2"
    assert again.place(2, 1) == "data[2], word 2"
    (tmp_path / "b.jsonl").write_bytes(object_lines(again))
    copied, _ = read_tagged(tmp_path / "b.jsonl", None, None)
    assert copied.digest() == again.digest() == rows.digest()
    assert is_tagged(tmp_path / "b.jsonl") and is_tagged(tmp_path / "data") and is_tagged([(["a"], ["O"])])


def test_conllu_has_named_columns_and_lines_without_a_tag(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conllu", conllu())
    rows, notes = read_tagged(path, None, None)
    assert rows.words == WORDS and rows.tags[0] == ["PROPN", "PROPN", "NOUN", "NOUN", "PROPN"]
    assert rows.place(1, 0) == f"line 12 of {path}"
    assert notes == [
        f"{path}: lines of several words at once or of none, which have no tag of their own: 6; they are left out."
    ]
    for label in ("xpos", "5"):
        assert read_tagged(path, None, label)[0].tags[1] == ["NN"]
    with pytest.raises(DataError, match=r"no column 'pos' \(label\); give form, upos, xpos or a number from 1 to 10"):
        read_tagged(path, None, "pos")
    with pytest.raises(DataError, match=r"Line 3 of .*a\.conllu has no tag in column 6; give one, or choose"):
        read_tagged(path, None, "6")


def test_texts_and_tables_are_no_tagged_words(tmp_path: Path) -> None:
    for name, text in (
        ("a.txt", "To be O\nor not B-\n\n"),
        ("b.tsv", "text\tlabel\nx\tO\ny\tO\n"),
        ("c.jsonl", '{"text": "x"}\n'),
    ):
        assert not is_tagged(write(tmp_path / name, text)), name
    assert not is_tagged(tmp_path) and not is_tagged(tmp_path / "missing") and not is_tagged([("a text", "label")])


WRONG: list[tuple[str, str, str]] = [
    ("a.conll", "x O\ny\n", r"Line 2 of .*a\.conll has 1 column but line 1 has 2; an empty line divides"),
    ("b.conll", "x\n\n", r"Line 1 of .*b\.conll has one column \('x'\), but a word and its tag are needed"),
    ("c.conll", "\n\n", r"c\.conll has no sentence"),
    ("d.jsonl", '{"words": ["a"], "tags": ["O"]}\n{"words": ["a"]}\n', r"Line 2 of .* has no 'tags'; it has words"),
    ("e.jsonl", '{"words": ["a"], "tags": []}\n', r"Line 1 of .* has 1 words but 0 tags; give each word its tag"),
    ("f.jsonl", '{"words": ["a", ""], "tags": ["O", "O"]}\n', r"its words are a list that holds '', but a list of str"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), WRONG)
def test_what_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tagged(write(tmp_path / name, text), None, None)


def test_mixed_encodings_are_told_by_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes("é O\n\n".encode() + "é O\n".encode("latin1"))
    with pytest.raises(
        DataError, match="not UTF-8 throughout: 1 line is not, the first is line 3, whose byte 1 is 0xe9"
    ):
        read_tagged(tmp_path / "a.conll", None, None)


def test_lines_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = line_folder(tmp_path / "data")
    (folder / "seq.out").write_text("O\nO\nO\n")
    with pytest.raises(DataError, match=r"Line 1 of .*seq\.in has 5 words but line 1 of .*seq\.out has 1 tags"):
        read_tagged(folder, None, None)
    (folder / "label").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"label has 2 lines but .*seq\.in has 3; line n of each belongs to sentence n"):
        read_tagged(folder, None, None)
    with pytest.raises(
        DataError, match=r"label='2' says nothing to .*data, whose words are in seq\.in and tags in seq"
    ):
        read_tagged(folder, None, "2")


def test_empty_sentences_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "seq.in").write_text("a b\n\nc\n\n\n")
    (folder / "seq.out").write_text("O O\n\nO\n\n\n")
    rows, notes = read_tagged(folder, None, None)
    assert rows.words == [["a", "b"], ["c"]] and rows.lines == [[1, 1], [3]]
    assert notes == [f"3 sentences of {folder / 'seq.in'} have no word and are left out."]
    assert tagged_of_memory([(["a"], ["O"]), ([], [])])[1] == ["1 sentence of data has no word and is left out."]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(["a"], ["O"]), "x"], r"data\[1\] is a str; each row is \(words, tags\) or \(words, tags, label\)"),
        ([(["a"], ["O"], "l"), (["a"], ["O"])], r"data\[1\] has no label, unlike the first row; give all or none"),
        ([(["a"], "O")], r"data\[0\]: its tags are a str, but a list of strings that are not empty is needed"),
    ],
)
def test_rows_that_are_none(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tagged_of_memory(data)


# --------------------------------------------------------------------------------------------------------------- splits


def split(data: Any) -> TaggedSplits:
    return read_tagged_splits(data, None, None, 0.1, 0.1, 0)


def many(count: int = 60) -> list[tuple[list[str], list[str]]]:
    return [([f"w{n}", "in", f"Town{n}"], ["O", "O", "B-LOC"]) for n in range(count)]


def file_of(rows: list[tuple[list[str], list[str]]]) -> str:
    return "\n".join("".join(f"{w} {t}\n" for w, t in zip(*row, strict=True)) for row in rows)


def test_one_file_is_split_by_the_seed(tmp_path: Path) -> None:
    rows = many() + many(3) * 4  # repeated sentences, which stay together
    found = split(rows)
    parts = [found.train, found.validation, found.test]
    texts = [{tuple(words) for words in part.words} for part in parts if part]
    assert len(texts) == 3 and sum(map(len, texts)) == 60 and found.scheme == "BIO"
    assert split(rows).sha256 == found.sha256 != read_tagged_splits(rows, None, None, 0.1, 0.1, 1).sha256
    assert "equal sentences stay together" in found.notes[-1]


@pytest.mark.parametrize("kind", ["files", "folders"])
def test_a_folder_says_which_part_is_which(tmp_path: Path, kind: str) -> None:
    if kind == "folders":
        for name in ("train", "valid", "test"):
            line_folder(tmp_path / name)
    else:
        for name in ("xx_ud-train.conllu.gz", "xx_ud-dev.conllu", "xx_ud-test.conllu"):
            write(tmp_path / name, conllu())
    assert is_tagged(tmp_path)
    found = split(tmp_path)
    assert found.test is not None and len(found.train) == len(found.validation) == len(found.test) == 3
    assert found.scheme == ("BIO" if kind == "folders" else None)
    assert found.train.labels == (LABELS if kind == "folders" else None)
    twice = [note for note in found.notes if "in training too, so that its figures flatter" in note]
    assert len(twice) == 2 and "3 texts of " in twice[0]
    rows, _ = read_tagged_rows(tmp_path, None, None, found.scheme)
    assert len(rows) == 3


def test_two_files_for_one_part(tmp_path: Path) -> None:
    for name in ("train.conll", "my-train.conll"):
        write(tmp_path / name, columns())
    with pytest.raises(DataError, match=r"has my-train\.conll and train\.conll, both for train; take one away"):
        split(tmp_path)
    (tmp_path / "train.conll").unlink()
    (tmp_path / "my-train.conll").unlink()
    with pytest.raises(DataError, match="has no file of tagged words for training; name the files train, dev and test"):
        split(tmp_path)


def test_a_few_broken_tags_are_said_and_many_are_refused(tmp_path: Path) -> None:
    rows = many(40)
    rows[0] = (["a", "b", "c"], ["O", "I-LOC", "I-LOC"])
    for name, each in (("train.conll", rows), ("dev.conll", many(10))):
        write(tmp_path / name, file_of(each))
    found = split(tmp_path)
    where = f"line 2 of {tmp_path / 'train.conll'}"
    said = f"In {where}, the tag 'I-LOC' stands after 'O', where B-LOC was expected (scheme BIO, 1 such break in "
    assert any(said in note and "read as conlleval reads them" in note for note in found.notes)
    assert found.train.tags[0] == ["O", "B-LOC", "I-LOC"]
    write(tmp_path / "train.conll", file_of([(words, ["B-PER", "I-LOC", tags[2]]) for words, tags in rows]))
    with pytest.raises(DataError, match=r"In line 2 of .*conll, the tag .* 40 such breaks in .*; mend the"):
        split(tmp_path)
    write(tmp_path / "train.conll", file_of([*rows, (["a"], ["Bx"])]))
    with pytest.raises(DataError, match=r"the tag 'Bx' is none of BIO, where O, B-… or I-… was expected "):
        split(tmp_path)


def test_iob1_is_read(tmp_path: Path) -> None:
    rows = [([f"a{n}", "b", "c", "d"], ["I-X", "I-X", "B-X", "O"]) for n in range(30)]
    found = split(rows)
    assert found.train.tags[0] == ["B-X", "I-X", "B-X", "O"]
    assert "has tags of IOB1, which are read and written as BIO" in " ".join(found.notes)


def test_what_training_does_not_know(tmp_path: Path) -> None:
    write(tmp_path / "train.conll", file_of(many()))
    write(tmp_path / "dev.conll", file_of([(["x", "Ada"], ["O", "B-PER"])]))
    with pytest.raises(
        DataError,
        match=r"The kind of span 'PER' \(line 2 of .*dev\.conll\) is one that training has not; such words: 1",
    ):
        split(tmp_path)
    write(tmp_path / "dev.conll", file_of([(["x"], ["NOUN"])]))
    with pytest.raises(DataError, match="the tag 'NOUN' is none of BIO"):
        split(tmp_path)
    with pytest.raises(
        DataError, match=r"has tags that say no spans, and the model gives spans; choose another column"
    ):
        read_tagged_rows(tmp_path / "dev.conll", None, None, "BIO")
    line_folder(tmp_path / "in" / "train")
    (line_folder(tmp_path / "in" / "dev") / "label").write_text("where\nnew\nwhere\n")
    with pytest.raises(
        DataError, match=r"The label 'new' \(line 2 of .*seq\.out, word 1\) is one that training has not"
    ):
        split(tmp_path / "in")
    (tmp_path / "in" / "dev" / "label").unlink()
    with pytest.raises(DataError, match="only one has labels of sentences; give both or none"):
        split(tmp_path / "in")

"""Vocabularies of words and pieces, texts in parts, documents, and texts that are read from their file."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import TINY, contents

import recurra
from recurra import files
from recurra.data import file_text, vocabulary
from recurra.data.corpus import read_corpus
from recurra.data.documents import read_documents
from recurra.data.file_text import FileText, open_text
from recurra.data.numbers import FileNumbers, encoded
from recurra.data.stream import Stream
from recurra.data.symbols import END, UNKNOWN, Kind, Vocabulary
from recurra.data.text import Text, whole_words
from recurra.data.vocabulary import learned
from recurra.errors import DataError, FileError
from recurra.tasks.evaluation import Evaluation, bits_per_character, counted
from recurra.tasks.language import LanguageNetwork, Sizes
from recurra.tasks.language_model import LanguageModel
from recurra.tasks.ngram import NGram

WORDS = " the <unk> company 's N shares rose \n the shares of the company fell \n" * 3
KINDS: Sequence[Kind] = ("characters", "words", "bpe")


def of(kind: Kind, text: str = WORDS, least: int = 1, most: int | None = None) -> Vocabulary:
    return learned(kind, lambda: [text], least, most)


def test_words_are_those_of_the_text_and_a_line_ends_with_one() -> None:
    words = of("words")
    assert words.split(" A <unk> 's\n") == ["A", "<unk>", "'s", "\n"]
    assert words.symbols[:3] == ["the", "\n", "company"]  # by falling frequency, then by themselves
    numbers = words.encode("the company zebra fell \n the")
    assert (numbers == UNKNOWN).tolist() == [False, False, True, False, False, False]
    assert words.decode(numbers.tolist()) == "the company \ufffd fell\nthe"
    assert words.unknown("zebra fell zebra") == {"zebra": 2}
    assert "".join(words.pieces(words.encode("shares fell").tolist(), before=1)) == " shares fell"
    assert len(of("words", least=4)) < len(words) and len(of("words", most=3)) == 4


def test_rare_words_of_a_text_that_has_too_many_are_not_counted_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_DIFFERENT", 6)
    pieces = ["often " * 9 + f"now{n} then{n} once{n}\n" for n in range(20)]
    words = learned("words", lambda: pieces, most=2)
    assert words.symbols == ["often", "\n"]


def test_chinese_words_are_cut_and_stand_beside_one_another() -> None:
    text = "白色的云朵，漂浮在 blue sky\n中。"
    words = of("words", text)
    assert words.split(text)[:4] == ["白色", "的", "云朵", "，"]
    assert words.decode(words.encode(text).tolist()) == "白色的云朵，漂浮在blue sky\n中。"


@given(st.text("ab 白\n\x03.", max_size=60))
def test_pieces_side_by_side_are_the_text(text: str) -> None:
    pieces = of("bpe", "ab ab 白白\n\x03.", most=12)
    assert pieces.decode(pieces.encode(text).tolist()) == text == "".join(pieces.split(text))


def test_pairs_are_merged_by_frequency_and_what_is_not_known_is_said() -> None:
    pieces = of("bpe", "low lower lowest low low", most=11)
    assert pieces.symbols[:2] == [" low", "e"] and pieces.split(" lower") == [" low", "e", "r"]
    assert pieces.encode("é low").tolist() == [UNKNOWN, 1] and pieces.unknown("éé low") == {"é": 2}
    again = of("bpe", "low lower lowest low low", most=11)
    assert again.symbols == pieces.symbols


def model_of(kind: Kind) -> LanguageModel:
    symbols = of(kind, most=14)
    sizes = Sizes("gru", 1, 4, 3)
    return LanguageModel(LanguageNetwork(sizes, len(symbols)), sizes, symbols)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_saved_with_its_model(kind: Kind, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save(tmp_path / "model")
    again = recurra.load(tmp_path / "model")
    assert isinstance(again, LanguageModel) and again.vocabulary.kind == kind
    assert again.vocabulary.encode(WORDS).tolist() == model.vocabulary.encode(WORDS).tolist()
    assert again.generate("the", 7, seed=2) == model.generate("the", 7, seed=2)


@pytest.mark.parametrize(
    ("kind", "symbols", "message"),
    [
        ("words", "abc", "field 'vocabulary' is not as 'symbol_kind' 'words' has it"),
        ("characters", ["a"], "field 'vocabulary' is not as 'symbol_kind' 'characters' has it"),
        ("characters", "ba", "not in code point order without repetition"),
        ("words", ["a", "a"], "holds a symbol twice, or an empty one"),
        (
            "bpe",
            ["a", "b"],
            r"does not fit field 'vocabulary' of model\.json: 'ab', of the merge \('a', 'b'\), is no symbol",
        ),
    ],
)
def test_a_vocabulary_that_was_not_written_so_is_refused(
    kind: Kind, symbols: str | list[str], message: str, tmp_path: Path
) -> None:
    folder = files.Folder(tmp_path, {}, {vocabulary.MERGES: b'[["a","b"]]'})
    with pytest.raises(FileError, match=message):
        vocabulary.restored(folder, kind, symbols)


def test_perplexity_and_bits_are_those_of_their_definition() -> None:
    loss, symbols, characters = 2.0, 10, 40
    result = Evaluation(loss, characters, "t", symbols=symbols, kind="words")
    assert result.perplexity == pytest.approx(np.exp(2))
    assert result.bits_per_character == bits_per_character(loss, 10, 40) == pytest.approx(0.5 / np.log(2))
    assert "perplexity 7.39 per word over 10 words. That is 0.7213 bits per character, 2.0000 nats per word." in str(
        result
    )
    assert "1.4427 bits per character over 9 characters. Perplexity 2.718, 1.0000 nats." in str(Evaluation(1, 9, "t"))
    assert counted(of("words"), " the shares\n") == (2, 8) and counted(of("characters"), "abc") == (2, 2)
    model = NGram(WORDS, 2, of("words"))
    expected = bits_per_character(model.loss(WORDS), *counted(model.vocabulary, WORDS))
    assert model.bits_per_character(WORDS) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------- parts and documents


def test_a_folder_of_texts_in_parts(tmp_path: Path) -> None:
    for part, text in (("ptb.train.txt.gz", "one two\n"), ("ptb.valid.txt.gz", "two\n"), ("ptb.test.txt.gz", "one\n")):
        (tmp_path / part).write_bytes(gzip.compress(text.encode()))
    (tmp_path / "README.md").write_text("train")
    corpus = read_corpus(tmp_path)
    assert [part.content for part in corpus.split(0.1)] == ["one two\n", "two\n"] and len(corpus) == 16
    assert corpus.test is not None and corpus.test.content == "one\n" and corpus.whole is None
    before = corpus.sha256
    (tmp_path / "ptb.test.txt.gz").write_bytes(gzip.compress(b"two\n"))
    assert read_corpus(tmp_path).sha256 != before
    (tmp_path / "train.txt").write_text("x")
    with pytest.raises(DataError, match=r"has ptb\.train\.txt\.gz and train\.txt, both for train; take one away"):
        read_corpus(tmp_path)


def test_documents_end_and_what_is_empty_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "poems.jsonl"
    rows = [{"tune": "a", "lines": ["one,", "two."]}, {"tune": "b", "lines": []}, {"tune": "c", "lines": ["three"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, notes = read_documents(path)
    assert text.content == f"{END}one,two.{END}three{END}"
    assert notes == (f"{path}: 2 documents, field 'lines'.", "1 document is empty and left out.")
    assert read_documents(path, "tune")[0].content == f"{END}a{END}b{END}c{END}"


BAD_DOCUMENTS = {
    '{"a": "x"}\n[1]\n': r"Line 2 of .*d\.jsonl is no JSON object",
    '{"a": 1}\n': r"d\.jsonl has no field that is a string or a list of strings; it has a",
    '{"a": "long text"}\n\n{"b": "x"}\n': r"Line 3 of .*d\.jsonl has no field 'a'; it has b",
    '{"a": "long text"}\n{"a": 7}\n': r"Line 2 of .*: field 'a' is neither a string nor a list of strings",
    '{"a": "x\\u0003"}\n': r"Line 1 of .*: field 'a' has the character U\+0003, which stands for the end of a document",
    '{"a": " "}\n': r"d\.jsonl has no text in its field 'a'; give another one by text=…",
    "\n": r"d\.jsonl has no rows; give an object with a text a line",
}


@pytest.mark.parametrize("content", BAD_DOCUMENTS)
def test_documents_that_are_none_say_why_and_where(content: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(DataError, match=BAD_DOCUMENTS[content]):
        read_documents(tmp_path / "d.jsonl")


def test_a_model_of_documents_begins_and_ends_them(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.jsonl").write_text('{"text": "abc."}\n' * (300 if part == "train" else 9))
    run = recurra.train(
        tmp_path, task="language", out=tmp_path / "run", hidden=16, embedding=8, batch=4, window=8, steps=80,
        learning_rate=0.03, threads=1, sample_length=0, eval_interval=80,
    )  # fmt: skip
    model = run.model
    assert model.generate("", 99, temperature=0) == "abc." and model.generate("ab", 99, temperature=0) == "c."
    result = model.evaluate(tmp_path)
    assert result.characters == 9 * 5 and "only its test part was measured" in result.note
    assert result.perplexity < 1.1 and run.notes[0].endswith("train.jsonl: 300 documents, field 'text'.")
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no text for the test; name one test\.txt, or give a file"):
        model.evaluate(tmp_path)


# ---------------------------------------------------------------------------------------------------------- large texts


@given(st.text("a白 \n\x03", max_size=200), st.integers(1, 30), st.integers(1, 40))
def test_whole_words_are_the_text_however_it_comes(text: str, block: int, length: int) -> None:
    pieces = list(whole_words([text], length))
    blocks = [text[n : n + block] for n in range(0, len(text), block)]
    assert "".join(pieces) == text and list(whole_words(blocks, length)) == pieces
    assert all(len(piece) <= length for piece in pieces)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of 9,000 characters, which counts as large here, read 1,000 bytes at a time."""
    monkeypatch.setattr(file_text, "LARGE", 5000)
    monkeypatch.setattr(file_text, "_BLOCK", 1000)
    rng = random.Random(4)
    path = tmp_path / "large.txt"
    path.write_text("".join(rng.choices(["the ", "cat ", "né ", "天地 ", "sat\n"], k=2400)))
    return path


def test_a_file_is_the_text_that_is_in_it(large: Path, tmp_path: Path) -> None:
    text, whole = open_text(large), Text("t", large.read_text())
    assert isinstance(text, FileText)
    assert (text.content, len(text), text.sha256) == (whole.content, len(whole), whole.sha256)
    assert list(text.pieces()) == list(whole.pieces())
    for part, same in zip(text.split(0.3), whole.split(0.3), strict=True):
        assert part.content == same.content and part.name.endswith(same.name.partition(",")[2])
    assert text.split(0.3)[1].first(77) == whole.split(0.3)[1].first(77) and text.last(55) == whole.content[-55:]
    packed = tmp_path / "large.txt.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + large.read_bytes()))
    assert open_text(packed).content == whole.content


@pytest.mark.parametrize(
    ("bad", "message"), [(b"\xff", r"not UTF-8 text: byte 6002 is 0xff"), (b"\0", r"binary file: byte 6002 is 0x00")]
)
def test_a_large_file_that_is_no_text_says_where(bad: bytes, message: str, large: Path) -> None:
    large.write_bytes(b"abc" * 2000 + "é".encode() + bad + b"xyz" * 500)
    with pytest.raises(DataError, match=message):
        open_text(large)


def test_numbers_in_a_file_are_those_in_memory(large: Path) -> None:
    text, whole = open_text(large), Text("t", large.read_text())
    words = learned("words", whole.pieces)
    kept, counts = encoded(words, text)
    numbers, same = encoded(words, whole)
    assert isinstance(kept, FileNumbers) and len(kept) == len(numbers)
    assert (kept[: len(kept)] == numbers[:]).all() and (counts == same).all()
    for epoch, index in ((0, 0), (3, 5)):
        one, other = (Stream(each, 4, 9, 1)(epoch, index) for each in (kept, numbers))
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_a_file_has_the_bits_of_one_in_memory(
    kind: Kind, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = recurra.train(large, out=tmp_path / "streamed", symbols=kind, **TINY)
    monkeypatch.setattr(file_text, "LARGE", 10**9)
    recurra.train(large, out=tmp_path / "whole", symbols=kind, **TINY)
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")
    assert list(streamed.baselines) == ["unigram", "3-gram", "5-gram"]

"""Reading text, numbering its characters, and batches that follow one another along it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.demo import _docstrings, _once, demo_text
from recurra.data.keys import key
from recurra.data.stream import Stream
from recurra.data.symbols import UNKNOWN, Characters
from recurra.data.text import Text, read_text
from recurra.errors import DataError

BAD = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "latin": ("Gruß\n".encode("latin-1"), r"is not UTF-8 text: byte 3 is 0xdf"),
    "cut": ("né".encode()[:-1], r"is not UTF-8 text: byte 1 is 0xc3 \(unexpected end of data\)"),
    "binary": (b"abc\0def", r"is a binary file: byte 3 is 0x00"),
    "png": (b"\x89PNG\r\n\x1a\n", r"is not UTF-8 text: byte 0 is 0x89"),
    "noise": (b"\xff\x9d\x01\xfe", r"is a binary file: byte 2 is 0x01; give a text file\.$"),
    "utf16": ("hello".encode("utf-16"), r"is UTF-16LE, as byte 0 says"),
    "utf16be": (b"\xfe\xff\0h", r"is UTF-16BE, as byte 0 says"),
    "overlong": (b"ok\xc0\x80", r"is not UTF-8 text: byte 2 is 0xc0"),
    "surrogate": (b"ok\xed\xa0\x80", r"is not UTF-8 text: byte 2 is 0xed"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_no_text_say_why_and_where(case: str, tmp_path: Path) -> None:
    data, message = BAD[case]
    path = tmp_path / case
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_text(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.txt does not exist; give the path of a text file"):
        read_text(tmp_path / "nothing.txt")
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)


def test_a_text_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path) -> bytes:
        raise MemoryError

    (tmp_path / "long.txt").write_text("long")
    monkeypatch.setattr(Path, "read_bytes", no_room)
    with pytest.raises(DataError, match=r"long\.txt has 4 bytes, for which there is no memory; give a part of it\.$"):
        read_text(tmp_path / "long.txt")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1))
def test_a_text_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(text.encode())
    assert read_text(path).content == text
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # the mark that some editors write is not part of the text
    assert read_text(path).content == text


def test_a_text_in_memory_is_checked_too() -> None:
    with pytest.raises(DataError, match="letter is empty"):
        Text("letter", "")
    with pytest.raises(DataError, match="half a surrogate pair at character 2"):
        Text("letter", "ab\ud800")


@given(st.text(min_size=0), st.text(min_size=0))
def test_vocabulary_numbers_every_character(seen: str, other: str) -> None:
    vocabulary = Characters(seen)
    assert vocabulary.decode(vocabulary.encode(seen).tolist()) == seen
    assert len(vocabulary) == 1 + len(set(seen))
    numbers = vocabulary.encode(other)
    assert [n == UNKNOWN for n in numbers] == [c not in seen for c in other]
    assert vocabulary.unknown(other) == {c: other.count(c) for c in set(other) - set(seen)}
    assert sum(vocabulary.unknown(other).values()) == int((numbers == UNKNOWN).sum())


@pytest.mark.parametrize(
    ("length", "share", "kept"), [(1000, 0.1, 100), (1005, 0.1, 100), (10, 0.5, 5), (100, 0.02, 2)]
)
def test_the_last_share_is_kept(length: int, share: float, kept: int) -> None:
    text = Text("t", "".join(chr(97 + i % 26) for i in range(length)))
    first, last = text.split(share)
    assert first.content + last.content == text.content
    assert len(last) == kept


def test_a_text_that_is_too_short_to_split() -> None:
    with pytest.raises(DataError, match=r"t has 5 characters, of which validation=0\.1 leaves 4 for training"):
        Text("t", "abcde").split(0.1)


def test_a_text_shorter_than_a_window_says_both_values_and_the_remedy() -> None:
    numbers = np.zeros(40, np.int64)
    with pytest.raises(
        DataError, match=r"has 40 characters but one window needs 65 .* give a longer text or window=39"
    ):
        Stream(numbers, 1, 64, 0)
    with pytest.raises(DataError, match=r"40 characters but one step reads batch=8 times window=16 = 128"):
        Stream(numbers, 8, 16, 0)
    Stream(numbers, 1, 39, 0)  # the remedy works


@pytest.mark.parametrize(("length", "batch", "window"), [(100, 1, 7), (1000, 4, 16), (997, 5, 13), (64, 4, 16)])
def test_windows_follow_one_another_along_the_text(length: int, batch: int, window: int) -> None:
    stream = Stream(np.arange(length), batch, window, seed=5)
    for epoch in range(3):
        read = []
        for index in range(stream.windows):
            x, y = stream(epoch, index)
            assert x.shape == y.shape == (window, batch)
            assert (y == (x + 1) % length).all()  # the next character is what is predicted
            if read:
                assert (x[0] == (read[-1][-1] + 1) % length).all()  # a window goes on where the last one ended
            read.append(x)
        seen = np.concatenate([x.numpy().ravel() for x in read])
        assert len(set(seen.tolist())) == len(seen)  # no character twice in an epoch
        assert len(seen) > length - batch * window - batch  # and none left out but the rest of a window


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return Stream(np.arange(10**6), 4, 16, seed)(epoch, 2)[0].ravel().tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(5) for epoch in range(5)}) == 25


def test_keys_are_the_same_everywhere() -> None:
    assert key(0, "step", 1) == 2111436579075594638  # a change here would change what a seed means
    assert len({key(a, b) for a in range(50) for b in range(50)}) == 2500
    assert key(1, 23) != key(12, 3)
    assert all(0 <= key(n) < 2**63 for n in range(100))


def test_the_demo_text_has_each_paragraph_once() -> None:
    text = demo_text()
    assert text.name == "demo" and len(text) > 200_000
    paragraphs = text.content.rstrip("\n").split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))


def test_docstrings_stand_in_for_the_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    monkeypatch.setattr("recurra.data.demo._docstrings", lambda: iter(["One.\n\nTwo.", "Two.\n\nThree."]))
    assert demo_text().content == "One.\n\nTwo.\n\nThree.\n"
    monkeypatch.undo()
    some = [text for text, _ in zip(_docstrings(), range(200), strict=False)]
    assert len(_once(some)) > 10_000

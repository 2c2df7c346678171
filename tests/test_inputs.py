"""The kinds of data in memory and on disk: all that mean the same rows give the same model, bit for bit."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from generators import sentiment

import recurra
from recurra.data.split import is_labelled
from recurra.errors import InputError, RecurraError
from recurra.training.settings import settings
from recurra.training.start import SETUPS

ROWS = sentiment(40)
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
SMALL: dict[str, Any] = {"hidden": 4, "embedding": 4, "threads": 1, "steps": 2, "batch": 8}


def csv(place: Path) -> Path:
    path = place / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return path


def jsonl(place: Path) -> Path:
    path = place / "texts.jsonl"
    pandas.DataFrame({"text": TEXTS}).to_json(path, orient="records", lines=True)
    return path


LABELLED: dict[str, Callable[[Path], Any]] = {
    "path as a string": lambda place: str(csv(place)),
    "Path": csv,
    "list of pairs": lambda _: ROWS,
    "tuple of lists": lambda _: tuple(list(row) for row in ROWS),
    "zip of columns, listed": lambda _: list(zip(TEXTS, LABELS, strict=True)),
    "array of strings": lambda _: np.array(ROWS),
    "array of objects": lambda _: np.array(ROWS, object),
    "list of arrays": lambda _: list(np.array(ROWS)),
    "list of dictionaries": lambda _: [{"text": text, "label": label} for text, label in ROWS],
    "dictionary of lists": lambda _: {"text": TEXTS, "label": LABELS},
    "dictionary of arrays": lambda _: {"text": np.array(TEXTS), "label": pandas.Series(LABELS)},
    "DataFrame": lambda _: pandas.DataFrame(ROWS, columns=["text", "label"]),
    "DataFrame with another index": lambda _: pandas.DataFrame(ROWS, columns=["text", "label"]).set_index(
        np.arange(40)[::-1]
    ),
    "DataFrame of categories": lambda _: pandas.DataFrame(ROWS, columns=["text", "label"]).astype(
        {"label": "category"}
    ),
}
WRITTEN: dict[str, Callable[[Path], Any]] = {
    "path of documents": jsonl,
    "list of texts": lambda _: TEXTS,
    "tuple of texts": lambda _: tuple(TEXTS),
    "array of strings": lambda _: np.array(TEXTS),
    "array of objects": lambda _: np.array(TEXTS, object),
    "Series": lambda _: pandas.Series(TEXTS),
    "DataFrame": lambda _: pandas.DataFrame({"text": TEXTS}),
    "list of dictionaries": lambda _: [{"text": text} for text in TEXTS],
}


def learned(data: Any, task: str) -> list[bytes]:
    """All weights after two steps, made as train() makes them but for the files."""
    wanted = settings(**SMALL)
    setup = SETUPS[task].of(data, wanted)
    made = setup.task(setup.complete(wanted))
    descent = torch.optim.SGD(made.network.parameters(), 0.1)
    for index in range(2):
        torch.manual_seed(index)
        made.loss(0, index, None)[0].backward()  # type: ignore[no-untyped-call]
        descent.step()
    return [weight.detach().numpy().tobytes() for weight in made.network.parameters()]


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """The weights that a file gives."""
    place = tmp_path_factory.mktemp("bits")
    return {
        "classification": learned(csv(place), "classification"),
        "language": learned(jsonl(place), "language"),
    }


@pytest.mark.parametrize("kind", LABELLED)
def test_every_kind_of_labelled_rows_gives_the_same_bits(
    kind: str, bits: dict[str, list[bytes]], tmp_path: Path
) -> None:
    data = LABELLED[kind](tmp_path)
    assert is_labelled(data)
    assert learned(data, "classification") == bits["classification"]


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_kind_of_texts_gives_the_same_bits(kind: str, bits: dict[str, list[bytes]], tmp_path: Path) -> None:
    data = WRITTEN[kind](tmp_path)
    assert is_labelled(data) == (kind in ("path of documents", "DataFrame", "list of dictionaries"))
    assert learned(data, "language") == bits["language"]


def test_a_run_on_texts_in_memory_goes_on(tmp_path: Path) -> None:
    recurra.train(TEXTS, out=tmp_path / "run", **SMALL)
    assert recurra.resume(tmp_path / "run", steps=4).step == 4


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        (5, "classification", "data is an int; give a path, a list or an array of (text, label) pairs or of"),
        (np.array("a"), "classification", "data is an ndarray; give a path"),
        (iter(ROWS), "classification", "data is a list_iterator, which can be read once only; give list(data)."),
        ((TEXTS, LABELS), None, "data[0] is a list of 40; each row is a pair (text, label), or a dictionary; two "
         "columns are given as list(zip(texts, labels))."),
        ([("a", "b", "c")], None, "data[0] is a tuple of 3; each row is a pair"),
        ({"text": TEXTS, "label": LABELS[:-1]}, None, "The columns of data have different lengths: 'text' 40, 'label' "
         "39; each row needs all of them."),
        ({"text": "a", "label": "b"}, None, "data['text'] is a str; give a list."),
        ({"text": TEXTS}, None, "data has one column; a text and a label are needed in each row."),
        (TEXTS, "classification", "data[0] is a str; each row is a pair (text, label), or a dictionary."),
        ([], None, "data has no rows; give at least some of each label."),
        (5, None, "data is an int; give the path of a text file, a list or an array of texts"),
        ({"a", "b"}, "language", "data is a set; give the path"),
        (["a", 5], None, "data[1] is an int; a language model is trained on texts alone."),
        ([], "language", "data has no texts; give at least some thousand characters."),
        (["", " "], None, "data has no text in its field 'text'"),
        (["a\x03b"], None, "data[0]: field 'text' has the character U+0003"),
        ([{"a": 1}], "language", "data has no field that is a string or a list of strings; it has a."),
    ],
)  # fmt: skip
def test_what_is_no_data_is_told_in_one_sentence(data: Any, task: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecurraError, match=re.escape(message)):
        recurra.train(data, task, out=tmp_path / "run", **SMALL)


def test_texts_to_predict_come_in_any_kind(tmp_path: Path) -> None:
    model = recurra.train(ROWS, out=tmp_path / "run", **SMALL).model
    few = TEXTS[:5]
    expected = model.predict(few)
    kinds = (tuple(few), np.array(few), np.array(few, object), pandas.Series(few, index=list("abcde")), iter(few))
    assert all(model.predict(kind) == expected for kind in kinds)
    assert model.predict(few[0]) == expected[:1]
    for wrong, message in (
        (tmp_path, "texts is a PosixPath; give a string, or a list of strings."),
        ({"a": 1}, "texts is a dict; give a string"),
        (pandas.DataFrame({"text": few}), "texts is a DataFrame; give a string, or a list of strings."),
        (np.array(ROWS[:2]), "texts[0] is a list; give a string"),
        (b"a", "texts is a bytes; give a string"),
        (5, "texts is an int; give a string"),
        ([None], "texts[0] is a NoneType; give a string"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            model.predict(wrong)

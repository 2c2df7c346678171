"""Several labels a text: found in tables, learned, thresholded, measured beside simple models."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import recurra
from recurra import cli
from recurra.data.columns import labelled
from recurra.data.label_sets import NO_LABEL, joined_labels, labels_of, way_of
from recurra.data.split import read_splits, stratified
from recurra.data.table import read_table, table_of_memory
from recurra.errors import DataError
from recurra.tasks.classification import balancing, fitted_threshold, loss_of
from recurra.tasks.label_report import micro_f1, several_report
from recurra.tasks.linear import LinearModel
from recurra.training.run import Run

GIVEN: dict[str, Any] = {
    "hidden": 8, "embedding": 8, "threads": 1, "batch": 16, "encoder": "mlp", "dropout": 0.0, "word_dropout": 0.0,
    "learning_rate": 0.02, "subwords": False,
}  # fmt: skip
WORDS = {"food": "tasty", "room": "clean", "price": "cheap"}


def planted(count: int, seed: int = 0) -> list[tuple[str, tuple[str, ...]]]:
    """Texts of filler words and one word for each of their labels; every eighth has none."""
    rng = random.Random(seed)
    rows = []
    for n in range(count):
        labels = tuple(label for k, label in enumerate(WORDS) if n >> k & 1)
        words = [WORDS[label] for label in labels] + [f"w{rng.randrange(30)}" for _ in range(rng.randrange(2, 8))]
        rng.shuffle(words)
        rows.append((" ".join(words), labels))
    return rows


def written(path: Path, way: str, rows: list[tuple[str, tuple[str, ...]]]) -> Path:
    """A table of the rows, their labels written in one of the ways."""
    if way == "json":
        path = path.with_suffix(".jsonl")
        path.write_text("".join(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in rows))
    elif way == "columns":
        path.write_text("text," + ",".join(WORDS) + "\n" + "".join(
            f"{text},{','.join(str(int(w in labels)) for w in WORDS)}\n" for text, labels in rows))  # fmt: skip
    else:
        path = path.with_suffix(".tsv")
        path.write_text("text\tlabel\n" + "".join(f"{text}\t{way.join(labels)}\n" for text, labels in rows))
    return path


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("several")
    path = written(place / "reviews.csv", "columns", planted(240))
    return recurra.train(path, out=place / "run", epochs=8, **GIVEN)


@pytest.mark.parametrize("way", ["json", "columns", "|", ";", ","])
def test_every_way_is_found_and_means_the_same(tmp_path: Path, way: str) -> None:
    rows = [row for row in planted(64) if row[1] or way in ("json", "columns")]
    found = labelled(read_table(written(tmp_path / "t.csv", way, rows)))
    assert found.way == way and [set(labels) for labels in found.sets] == [set(labels) for _, labels in rows]
    part = found.take([1, 2])
    assert part.way == way and part.sets == found.sets[1:3]
    splits = read_splits(written(tmp_path / "t.csv", way, rows), None, None, 0.2, 0.2, 0)
    said = {"json": "as JSON lists", "columns": "one in each of the columns food,room,price, where it is 1"}
    wanted = said.get(way, f"divided by {way}").replace("food,room,price", "food, room, price")
    assert f"a row may have several labels, {wanted}: " in splits.notes[0]


def test_one_label_stays_one(tmp_path: Path) -> None:
    assert way_of(["Sports, Outdoors", "Sports", "News", "News"]) == ""  # a comma in a name
    assert way_of(["a|b", "c|d"]) == "" and way_of(["a|b", "b|a"]) == "" and way_of(["a|b", "a", "b"]) == "|"
    assert way_of(["[1]", "x"]) == "" and way_of(["[1]", "[]"]) == "json"
    assert labels_of(joined_labels([" b", "a", "b"])) == ("a", "b") and labels_of(NO_LABEL) == () == labels_of("")
    table = table_of_memory([(text, "|".join(labels) or "none") for text, labels in planted(40)])
    assert labelled(table).several and not labelled(table, way="").several
    with pytest.raises(DataError, match="has one label in each row of column label, and several=True says that there"):
        read_splits([("x", "a"), ("y", "b"), ("z", "a"), ("v", "b")], None, None, 0.2, 0.2, 0, several=True)
    flags = table_of_memory([{"text": f"t{n}", "spam": n % 2, "urgent": n % 3 == 0} for n in range(12)])
    assert labelled(flags).sets[:4] == [("urgent",), ("spam",), (), ("spam", "urgent")]
    assert labelled(flags, label="spam").sets[:2] == [("0",), ("1",)]
    assert labelled(flags, label="urgent, spam").label == "urgent,spam"
    with pytest.raises(DataError, match="data: column text has 't0', and a column that is a label has 0 or 1"):
        labelled(flags, label="spam,text")


def test_the_rarest_label_decides_where_a_row_goes() -> None:
    rows = labelled(table_of_memory([(f"t{n}", ["a", "rare"] if n % 10 == 0 else ["a"]) for n in range(100)]))
    _, (kept,) = stratified(rows, (0.2,), 0)
    assert sum("rare" in rows.sets[n] for n in kept) == 2 and len(kept) == 20


def test_planted_words_are_found(learned: Run) -> None:
    assert learned.best is not None and learned.best.value > 0.97 and "micro F1" in learned.verdict
    model = recurra.load(learned.path)
    assert model.predict(["w1 tasty w2 cheap", "w3 clean", "w4 w5"]) == [{"food", "price"}, {"room"}, set()]
    (row,) = model.probabilities("tasty cheap")
    assert set(list(row)[:2]) == {"food", "price"} and row["food"] > 0.8 > row["room"]
    result = model.evaluate([(text, list(labels)) for text, labels in planted(80, seed=3)])
    assert result.micro_f1 > 0.95 and result.exact > 0.85 and result.labels["food"].rows == 40
    assert set(result.baselines) == {"majority class", "linear model on character n-grams"}
    assert f"micro F1 over 80 rows, macro F1 {100 * result.macro_f1:.2f} %" in str(result)
    again = model.evaluate(learned.path.parent / "reviews.csv")
    assert again.rows < 40 and "only its test part was measured" in again.notes[0]
    card = (learned.path / "best" / "README.md").read_text()
    assert "% micro F1" in card and "micro F1" in (learned.path / "report.html").read_text()


def test_the_command_gives_all_labels(learned: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict", str(learned.path), "tasty w1 cheap", "w1 zebra"]) == 0
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert {part.split()[0] for part in first.split("\t")[0].split(", ")} == {"food", "price"}
    assert second == "-\tw1 zebra"
    assert (
        "recurra: 1 word ('zebra') is not known from training and was read as the reserved unknown symbol" in shown.err
    )
    assert cli.run(["predict", str(learned.path), "tasty", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == ["food"] and set(told["probabilities"]) == set(WORDS)
    assert cli.run(["eval", str(learned.path), str(learned.path.parent / "reviews.csv")]) == 0
    assert "a label is given from a probability of" in capsys.readouterr().out


def test_a_run_of_rows_in_memory_is_resumed(tmp_path: Path) -> None:
    rows = [(text, list(labels)) for text, labels in planted(60)]
    run = recurra.train(rows, out=tmp_path / "run", steps=4, eval_interval=2, class_weights="balanced", **GIVEN)
    assert recurra.resume(run.path, steps=6).step == 6


def test_figures_by_hand() -> None:
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    probabilities = torch.tensor([[0.9, 0.2, 0.3], [0.2, 0.1, 0.2], [0.8, 0.6, 0.4], [0.1, 0.7, 0.2]])
    assert fitted_threshold(probabilities, targets) == pytest.approx(0.25)
    assert fitted_threshold(probabilities / 2, targets) == pytest.approx(0.125)
    assert micro_f1(probabilities >= 0.5, targets) == pytest.approx(2 * 4 / (4 + 5))
    assert micro_f1(torch.zeros(2, 2, dtype=torch.bool), torch.zeros(2, 2)) == 1
    found = several_report("t", probabilities, targets, ["a", "b", "c"], 0.5, {"majority class": 0.1}, [])
    assert (found.exact, found.macro_f1) == (0.75, pytest.approx((1 + 1 + 0) / 3))
    assert found.loss == pytest.approx(float(F.binary_cross_entropy(probabilities, targets)), rel=1e-5)
    assert "The model is ahead with 88.89 % micro F1" in found.verdict
    assert balancing(targets, 3).tolist() == [1, 1, 3]
    scores = torch.randn(4, 3)
    plain = F.binary_cross_entropy_with_logits(scores, targets, pos_weight=torch.tensor([1.0, 1, 3]))
    assert loss_of(scores, targets, balancing(targets, 3)).item() == pytest.approx(plain.item())


def test_the_linear_model_of_several_labels() -> None:
    texts, sets = zip(*planted(80), strict=True)
    model = LinearModel(texts, sets)
    found = model.predict_several([text for text, _ in planted(40, seed=2)])
    assert sum(set(a) == set(b) for a, (_, b) in zip(found, planted(40, seed=2))) > 34

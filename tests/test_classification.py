"""Classification: from labelled texts to a classifier that predicts, is measured, stopped, resumed, saved."""

import json
import math
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from generators import brackets, sentiment
from runs import Stop, contents, log

import recurra
from recurra import cells, cli
from recurra.cells.by_name import NAMES
from recurra.data.subwords import inputs
from recurra.data.text import Text
from recurra.errors import DataError, FileError, InputError
from recurra.tasks.attention import positions
from recurra.tasks.classification import Beginning, ClassificationNetwork, Sizes, fitted_temperature
from recurra.tasks.classifier import Classifier
from recurra.tasks.classifier_report import calibration_error, label_scores, report
from recurra.tasks.encoder import ACTIVATIONS, BatchNorm
from recurra.tasks.encoders import ENCODERS, USES, encoder_of
from recurra.tasks.linear import LinearModel, majority
from recurra.tasks.pooling import POOLINGS, Pooling
from recurra.training.classification import ClassificationSetup
from recurra.training.run import Run
from recurra.training.settings import TASKS_OF, CellName, Settings, describe
from recurra.training.start import SETUPS

SMALL: dict[str, Any] = {"hidden": 8, "embedding": 8, "threads": 1}
TINY: dict[str, Any] = {**SMALL, "batch": 8, "steps": 12, "eval_interval": 4, "log_interval": 2, "dropout": 0.2}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A classifier of planted words, from a file."""
    place = tmp_path_factory.mktemp("learned")
    write(place / "reviews.csv", sentiment(400))
    return recurra.train(
        place / "reviews.csv", out=place / "run", epochs=8, dropout=0.0, learning_rate=0.02, batch=16, **SMALL
    )


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


# ------------------------------------------------------------------------------------------------------------- learning


def test_planted_words_are_found(learned: Run) -> None:
    assert learned.best is not None and learned.best.value == 1.0
    model = recurra.load(learned.path)
    assert isinstance(model, Classifier) and model.labels == ["bad", "good"]
    fresh = sentiment(100, seed=9)
    predicted = model.predict([text for text, _ in fresh])
    right = sum(guess == label for guess, (_, label) in zip(predicted, fresh, strict=True))
    result = model.evaluate(fresh)
    assert right >= 95 and result.accuracy == right / 100 and result.rows == 100
    assert sum(result.confusion[label].get(label, 0) for label in model.labels) == right
    assert set(result.baselines) == {"majority class", "linear model on character n-grams"}  # the file is still there
    assert result.baselines["majority class"] == 0.5


def test_brackets_need_the_order(tmp_path: Path) -> None:
    """Whether brackets match: a cell that counts learns it, a bag of them cannot."""
    rows = brackets(400)
    given = {**SMALL, "hidden": 16, "learning_rate": 0.02, "dropout": 0.0, "epochs": 12, "batch": 16}
    reads = recurra.train(rows, out=tmp_path / "gru", cell="gru", pooling="last", **given)
    blind = recurra.train(rows, out=tmp_path / "bag", encoder="bag", **{**given, "epochs": 2})
    kept = [r.model.evaluate(rows) for r in (reads, blind)]
    assert reads.model.lexicon.kind == "characters"
    assert kept[0].accuracy > 0.95 > kept[1].accuracy


def test_the_run_says_what_it_found_and_writes_it_down(learned: Run) -> None:
    said = "\n".join(learned.notes)
    for note in (
        "reviews.csv is taken for the task classification.",
        "the text is column text, the label column label.",
        "320 rows to train, 40 for validation, 40 for the test",
        "2 labels, 64 words and ",
    ):
        assert note in said
    assert {p.name for p in learned.path.iterdir()} == {
        "config.toml",
        "metrics.csv",
        "best",
        "last",
        "loss.png",
        "report.html",
        ".lock",
    }
    header = (learned.path / "metrics.csv").read_text().splitlines()[0]
    assert header == ("step,epoch,learning_rate,loss,gradient_norm,clipped,validation,seconds,symbols_per_second")
    config = (learned.path / "config.toml").read_text()
    assert 'task = "classification"' in config and "rows = 400" in config and "sample_length" not in config
    card = (learned.path / "best" / "README.md").read_text()
    for word in ("Labels: bad, good", "rows 320 for training", "% accuracy", "## Limits"):
        assert word in card


def test_of_its_own_data_only_the_test_part_is_measured(learned: Run) -> None:
    result = learned.model.evaluate(learned.path.parent / "reviews.csv")
    assert result.rows == 40 and "only its test part was measured" in result.notes[0]


def test_probabilities_are_sorted_and_sum_to_one(learned: Run) -> None:
    model = learned.model
    (row,) = model.probabilities("w1 w2 splendid")
    assert next(iter(row)) == "good" and sum(row.values()) == pytest.approx(1) and row["good"] > 0.9
    together = model.probabilities(["w1 w2 splendid", "awful"] + ["w3 " * 50] * 9)
    assert together[0] == pytest.approx(row)  # whatever stands beside it


# --------------------------------------------------------------------------------------------- stopped, resumed, loaded


@pytest.mark.parametrize("at", [3, 8])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path: Path, at: int) -> None:
    rows = sentiment(80)
    recurra.train(rows, out=tmp_path / "whole", **TINY)
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted at step {at} of 12; `recurra resume .*` goes on"):
        recurra.train(rows, out=tmp_path / "run", observer=Stop(at), **TINY)
    run = recurra.resume(tmp_path / "run")
    assert run.stopped == "steps" and log(tmp_path / "run") == log(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    cards = [(tmp_path / name / "best/README.md").read_text() for name in ("run", "whole")]
    assert cards[0] == cards[1]


def test_data_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", sentiment(80))
    recurra.train(path, out=tmp_path / "run", **TINY)
    write(path, sentiment(80, seed=1))
    with pytest.raises(FileError, match=r"a\.csv has changed since the run began: .*put the data back or train again"):
        recurra.resume(tmp_path / "run", steps=14)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_trains_and_is_loaded_again(tmp_path: Path, encoder: str) -> None:
    rows = sentiment(60)
    run = recurra.train(rows, out=tmp_path / "run", encoder=encoder, layers=2, **TINY)
    again = recurra.load(run.path)
    texts = [text for text, _ in rows[:9]]
    assert again.probabilities(texts) == run.model.probabilities(texts)
    again.save(tmp_path / "copy")
    assert (tmp_path / "copy/model.json").read_bytes() == (run.path / "best/model.json").read_bytes()


def test_a_precision_is_that_of_the_recurrent_layers(learned: Run, tmp_path: Path) -> None:
    rows = sentiment(60)
    run = recurra.train(rows, out=tmp_path / "run", precision="fp64", layers=2, **TINY)
    model = recurra.load(run.path)
    assert isinstance(model, Classifier) and model.network.encoder.precision == "fp64"
    exact, plain, rough = (
        recurra.load(run.path, each).probabilities("w1 awful")[0] for each in ("fp64", "fp32", "int8")
    )
    assert exact == model.probabilities("w1 awful")[0] and plain == pytest.approx(exact, abs=1e-5)
    assert rough != plain and rough == pytest.approx(plain, abs=0.1)
    assert "compute in int8: their outputs are up to" in recurra.load(run.path, "int8").evaluate(rows).notes[-1]
    with pytest.raises(InputError, match="precision='bf16' says nothing to encoder='cnn'"):
        recurra.train(rows, out=tmp_path / "cnn", encoder="cnn", precision="bf16", **TINY)
    flat = recurra.train(rows, out=tmp_path / "bag", encoder="bag", **TINY)
    with pytest.raises(InputError, match="precision='int8' is one of recurrent layers, and this model has none"):
        recurra.load(flat.path, "int8")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", ["a", "a"], "field 'labels' has a value twice"),
        ("symbol_kind", "bytes", "field 'symbol_kind' is 'bytes', not characters or words"),
        ("temperature", 0.0, r"field 'temperature' is 0\.0, not above 0"),
        (
            "symbols",
            ["x"],
            "'embedding.symbol.weight' is .* but fields 'sizes', 'symbols', 'subwords' and 'labels' of model.json",
        ),
    ],
)
def test_a_manifest_that_does_not_fit(learned: Run, tmp_path: Path, field: str, value: Any, message: str) -> None:
    record, content = learned.model.folder()
    recurra.files.write_folder(tmp_path / "model", {**record, field: value}, content)
    with pytest.raises(FileError, match=message):
        recurra.load(tmp_path / "model")


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"window": 8},
            "window=8 is a setting of the task language, and the task here is classification; leave it out.",
        ),
        ({"encoder": "cnn", "cell": "gru"}, "cell='gru' says nothing to encoder='cnn'; leave one of them out."),
        ({"encoder": "bag", "pooling": "max"}, "pooling='max' says nothing to encoder='bag'"),
        ({"encoder": "gru"}, "encoder='gru' cannot be used; give recurrent, bag, mlp, cnn or transformer."),
        ({"bidirectional": 3}, "bidirectional=3 cannot be used; give True or False."),
        ({"text": 1}, "text=1 cannot be used; give a string."),
        ({"validation": 0.6, "test": 0.5}, "validation=0.6 and test=0.5 leave nothing to train on"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        recurra.train(sentiment(40), out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_shares_of_what_a_folder_has(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", sentiment(40))
    write(tmp_path / "dev.csv", sentiment(10, seed=1))
    with pytest.raises(
        InputError, match=r"test=0\.2 says nothing to .*: of a folder the test is the table that is named"
    ):
        recurra.train(tmp_path, out=tmp_path / "run", test=0.2)
    with pytest.raises(InputError, match=r"validation=0\.3 says nothing to .*, whose table for validation is dev\.csv"):
        recurra.train(tmp_path, out=tmp_path / "run", validation=0.3)
    run = recurra.train(tmp_path, out=tmp_path / "run", **TINY)
    result = run.model.evaluate(tmp_path)
    assert result.rows == 10 and "only its validation part was measured" in result.notes[0]
    assert recurra.resume(run.path, steps=13).step == 13


def test_columns_of_other_names_are_found_and_said(learned: Run) -> None:
    rows = [{"stars": label, "said": text} for text, label in sentiment(20, seed=2)]
    assert "data: the text is column said, the label column stars." in learned.model.evaluate(rows).notes


def test_balanced_weights_make_labels_equal() -> None:
    """The loss of all rows in one batch: each label's own mean loss, averaged over the labels."""
    rows = [(f"text {n}", "rare" if n % 5 == 0 else "common") for n in range(50)]
    wanted = Settings(class_weights="balanced", batch=100, dropout=0.0, word_dropout=0.0, hidden=4, embedding=4)
    setup = ClassificationSetup.of(rows, wanted)
    task = setup.task(setup.complete(wanted))
    train = setup.splits.train
    scores = task.network(*inputs(task._reader, [task._reader.encode(text) for text in train.texts]))
    targets = torch.tensor([task.model.labels.index(label) for label in train.labels])
    each = F.cross_entropy(scores, targets, reduction="none")
    expected = (each[targets == 0].mean() + each[targets == 1].mean()) / 2
    assert task.batches == 1 and task.loss(0, 0, None)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_setting_of_classification_says_nothing_to_a_text(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="pooling='max' is a setting of the tasks classification and tagging, and the task here is la"
    ):
        recurra.train(Text("t", "abc" * 100), out=tmp_path / "run", pooling="max")


def test_each_setting_of_some_tasks_is_one_and_open_at_first() -> None:
    rows = {row.name: row for row in describe()}
    assert {name: row.tasks for name, row in rows.items() if row.tasks} == TASKS_OF
    assert all(rows[name].default is None for name in TASKS_OF)
    for task in SETUPS:
        others = {name for name, tasks in TASKS_OF.items() if task not in tasks}
        assert {row.name for row in describe(task)} == set(Settings.__struct_fields__) - others
    assert set(get_args(CellName)) == set(NAMES)


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "texts is empty"), (["a", " "], r"texts\[1\] is empty"), (["a", 3], r"texts\[1\] is an int")],
)
def test_texts_that_have_no_class(learned: Run, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learned.model.predict(texts)


def test_a_label_that_the_model_does_not_know(learned: Run) -> None:
    with pytest.raises(DataError, match="has the label 'ugly', which the model does not know; it knows bad, good"):
        learned.model.evaluate([("x", "good"), ("y", "bad"), ("z", "ugly"), ("v", "good"), ("w", "ugly")])


def test_a_language_model_does_not_predict() -> None:
    model = recurra.load(Path(__file__).parent / "models" / "format-1")
    with pytest.raises(InputError, match="A model of the task 'language' does not predict labels"):
        model.predict(["x"])


# ---------------------------------------------------------------------------------------------------------- the network


def sizes(
    encoder: str = "recurrent", cell: str | None = "lstm", pooling: str = "max", both: bool = True, **more: Any
) -> Sizes:
    raw = {"encoder": encoder, "cell": cell, "bidirectional": both, "layers": 2, "hidden": 4, "embedding": 3}
    return msgspec.convert({**raw, "pooling": pooling, **more}, Sizes)


EVERY = [sizes(cell=name.lower(), pooling=pooling) for pooling in POOLINGS for name in ("LSTM", "Elman")]
EVERY += [sizes(cell=name.lower(), both=False) for name in cells.__all__]
EVERY += [sizes(encoder, None, pooling, False) for encoder in ENCODERS[1:] for pooling in POOLINGS]
EVERY += [sizes(encoder, None, both=False, normalisation="batch") for encoder in USES["normalisation"]]
EVERY += [sizes(encoder, None, both=False, activation=name) for encoder in ENCODERS[1:] for name in ACTIVATIONS]
EVERY += [sizes(cell=cell, residual=True, activation="relu") for cell in ("elman", "indrnn")]


@pytest.mark.parametrize("each", EVERY, ids=lambda s: "-".join(map(str, msgspec.structs.astuple(s))))
def test_padding_and_neighbours_change_nothing(each: Sizes) -> None:
    torch.manual_seed(3)
    network = ClassificationNetwork(each, 11, 3, Beginning(0.5, 0.5))
    for part in network.modules():
        if isinstance(part, BatchNorm):  # as after some training
            part.running_mean.normal_(), part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    network.eval()
    rows = [torch.randint(11, (n,)) for n in (6, 1, 9, 4)]
    padded = torch.randint(11, (12, 4))  # what stands past a length is not zero here
    for column, row in enumerate(rows):
        padded[: len(row), column] = row
    together = network(padded, torch.tensor([6, 1, 9, 4]))
    for column, row in enumerate(rows):
        alone = network(row[:, None], torch.tensor([len(row)]))
        torch.testing.assert_close(together[column], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_hot_symbols_are_a_table_of_ones(encoder: str) -> None:
    one = ClassificationNetwork(msgspec.structs.replace(sizes(encoder), embedding=0), 5, 2)
    learned = ClassificationNetwork(msgspec.structs.replace(sizes(encoder), embedding=5), 5, 2)
    learned.load_state_dict({**one.state_dict(), "embedding.symbol.weight": torch.eye(5)})
    symbols = torch.tensor([[1, 4], [2, 0]])
    torch.testing.assert_close(one.eval()(symbols, torch.tensor([2, 2])), learned.eval()(symbols, torch.tensor([2, 2])))


def test_pooling_is_what_its_name_says() -> None:
    y, lengths = torch.randn(5, 2, 4), torch.tensor([3, 5])
    rows = [y[:3, 0], y[:, 1]]
    for kind, wanted in (("mean", [r.mean(0) for r in rows]), ("max", [r.amax(0) for r in rows]),
                         ("last", [r[-1] for r in rows])):  # fmt: skip
        torch.testing.assert_close(Pooling(kind, 4, 1)(y, lengths), torch.stack(wanted))
    both = torch.stack([torch.cat([r[-1, :2], r[0, 2:]]) for r in rows])
    torch.testing.assert_close(Pooling("last", 4, 2)(y, lengths), both)
    pool = Pooling("attention", 4, 1)
    assert pool.project is not None and pool.score is not None
    shares = [pool.score(torch.tanh(pool.project(r))).softmax(0) for r in rows]
    wanted = torch.stack([(a * r).sum(0) for a, r in zip(shares, rows, strict=True)])
    torch.testing.assert_close(pool(y, lengths), wanted)


def test_the_bag_is_blind_and_the_others_are_not() -> None:
    for encoder in ENCODERS:
        torch.manual_seed(1)
        made = encoder_of(sizes(encoder), 3, 0.0).eval()
        x = torch.randn(4, 1, 3)
        ahead, back = (made(each, torch.tensor([4]))[0].mean(0) for each in (x, x.flip(0)))
        assert torch.allclose(ahead, back, atol=1e-6) == (encoder in ("bag", "mlp")), encoder
    assert positions(2, 3)[1].tolist() == pytest.approx([math.sin(1), math.cos(1), math.sin(10_000 ** (-2 / 3))])


# -------------------------------------------------------------------------------------------------- figures, baselines


def test_figures_by_hand() -> None:
    confusion = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    scores = label_scores(confusion, ["a", "b", "never"])
    assert list(scores) == ["a", "b"]
    assert (scores["a"].precision, scores["a"].recall, scores["a"].rows) == (3 / 5, 3 / 4, 4)
    assert scores["b"].f1 == pytest.approx(2 * 0.8 * (4 / 6) / (0.8 + 4 / 6))
    sure = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    found = report("t", sure, torch.tensor([0, 1, 1]), ["a", "b"], {"majority class": 0.5}, ["a note"])
    assert found.accuracy == pytest.approx(2 / 3) and found.macro_f1 == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(-(math.log(0.9) + math.log(0.1) + math.log(0.8)) / 3)
    assert found.confusion == {"a": {"a": 1}, "b": {"a": 1, "b": 1}}
    assert calibration_error(sure, torch.tensor([0, 1, 1])) == pytest.approx((2 * 0.4 + 0.2) / 3)
    assert "66.67 % accuracy over 3 rows" in str(found) and "The model is ahead with 66.67 %" in str(found)


def test_the_temperature_mends_scores_that_are_too_sure() -> None:
    draw = np.random.default_rng(0)
    scores = torch.from_numpy(draw.normal(0, 1, (20_000, 3)))
    targets = torch.multinomial(scores.softmax(1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    assert fitted_temperature(scores, targets) == pytest.approx(1, abs=0.05)
    assert fitted_temperature(4 * scores, targets) == pytest.approx(4, abs=0.2)


def test_the_linear_model_is_at_the_minimum_of_its_loss() -> None:
    texts, labels = zip(*sentiment(60), strict=True)
    model = LinearModel(texts, [(label,) for label in labels])
    assert model.predict(texts) == list(labels)
    assert LinearModel(texts, [(label,) for label in labels]).predict(["splendid", "awful", "ΩΩ", ""])[:2] == [
        "good",
        "bad",
    ]
    from recurra.tasks.linear import _grams

    x, _ = model._features(*_grams(texts), len(texts))
    weights = model._weights.clone().double().requires_grad_()
    targets = torch.tensor([model.labels.index(label) for label in labels])
    loss = F.cross_entropy(x.to_dense().double() @ weights + model._bias, targets, reduction="sum")
    (slope,) = torch.autograd.grad(loss + weights.square().sum() / 2, weights)
    assert slope.abs().max() < 0.01 < model._weights.abs().max()
    assert majority(["b", "a", "a", "b", "c"]) == "a"


# ----------------------------------------------------------------------------------------------------- the command line


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_command_labels_arguments_a_file_and_lines(
    learned: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    place = str(learned.path)
    line = shown(capsys, "predict", place, "w1 splendid").split("\t")
    assert (line[0], line[2]) == ("good", "w1 splendid\n") and float(line[1]) > 0.9
    (tmp_path / "texts.txt").write_text("awful\n\nlovely\n")
    told = [
        json.loads(row)
        for row in shown(capsys, "predict", place, "--file", str(tmp_path / "texts.txt"), "--json").splitlines()
    ]
    assert [row["label"] for row in told] == ["bad", "good"] and set(told[0]["probabilities"]) == {"bad", "good"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"dreadful\n")))
    assert shown(capsys, "predict", place).startswith("bad\t")
    assert cli.run(["predict", place, "x", "--file", "y"]) == 2
    assert "Both texts and --file y are given; give one of them." in capsys.readouterr().err


def test_the_command_measures(learned: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "fresh.csv", sentiment(20, seed=5)))
    told = json.loads(shown(capsys, "eval", str(learned.path), path, "--json"))
    result = learned.model.evaluate(path)
    assert told["accuracy"] == result.accuracy > 0.8 and told["labels"]["bad"]["rows"] == 10
    assert told["verdict"] == result.verdict
    assert shown(capsys, "eval", str(learned.path), path) == f"{result}\n"


def test_the_command_trains_and_says_what_it_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = str(write(tmp_path / "a.csv", sentiment(60))), str(tmp_path / "run")
    flags = ["--steps", "4", "--hidden", "4", "--threads", "1", "--no-bidirectional", "--json"]
    events = [json.loads(line) for line in shown(capsys, "train", path, "--out", run, *flags).splitlines()]
    assert [e["event"] for e in events][0 :: len(events) - 1] == ["start", "end"]
    assert "a.csv is taken for the task classification." in events[0]["notes"][0]
    assert set(events[-1]["best"]) == {"step", "accuracy"} and "accuracy" not in events[1]
    assert events[1]["symbols_per_second"] > 0

"""Tagging: from tagged words to a tagger that predicts, is measured, stopped, resumed, saved."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generators import depths, grammar
from runs import Stop, contents, log

import recurra
from recurra import cli
from recurra.data.schemes import spans
from recurra.data.spelling import Spelling, found_split
from recurra.data.tagged import tagged_of_memory
from recurra.data.words import tokens
from recurra.errors import DataError, FileError, InputError
from recurra.tasks.averaged_perceptron import AveragedPerceptron, FrequentTags
from recurra.tasks.tagger import Tagger
from recurra.tasks.tagger_report import figure, report, scores_of
from recurra.tasks.tagging import read
from recurra.training.run import Run
from recurra.training.settings import Settings
from recurra.training.tagging import TaggingSetup

SMALL: dict[str, Any] = {"hidden": 12, "embedding": 12, "threads": 1}
TINY: dict[str, Any] = {**SMALL, "batch": 8, "steps": 10, "eval_interval": 4, "log_interval": 2, "dropout": 0.2}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tagger of the small grammar, with labels of sentences, from a folder of lines."""
    place = tmp_path_factory.mktemp("learned")
    write(place / "data", grammar(200))
    return recurra.train(
        place / "data", out=place / "run", epochs=5, dropout=0.1, learning_rate=0.02, batch=16, scheme="BIOES", **SMALL
    )


def write(folder: Path, rows: list[tuple[list[str], list[str], str]]) -> Path:
    folder.mkdir()
    for name, lines in (("seq.in", [" ".join(w) for w, _, _ in rows]), ("seq.out", [" ".join(t) for _, t, _ in rows]),
                        ("label", [label for _, _, label in rows])):  # fmt: skip
        (folder / name).write_text("".join(line + "\n" for line in lines))
    return folder


def tagger(run: Run) -> Tagger:
    model = recurra.load(run.path)
    assert isinstance(model, Tagger)
    return model


# ------------------------------------------------------------------------------------------------------------- learning


def test_the_grammar_is_learned_and_measured(learned: Run) -> None:
    model, fresh = tagger(learned), grammar(60, seed=5)
    found = model.predict([words for words, _, _ in fresh])
    right = sum(each.tags == tags for each, (_, tags, _) in zip(found, fresh, strict=True))
    told = sum(each.label == label for each, (_, _, label) in zip(found, fresh, strict=True))
    assert right >= 55 and told >= 50
    result = model.evaluate(fresh)
    assert result.f1 == figure("BIO", [each.tags for each in found], [tags for _, tags, _ in fresh]) > 0.95
    assert result.label_accuracy == told / 60 and set(result.labels) == {"LOC", "PER"}
    assert set(result.baselines) == {"most frequent tag of each word", "averaged perceptron"}
    assert result.baselines["averaged perceptron"] > 0.9 > result.baselines["most frequent tag of each word"]
    assert set(result.label_baselines) == {"majority class", "linear model on character n-grams"}
    assert len(result.worst) == round(60 * (1 - result.whole))
    for wrong in result.worst:
        assert (
            (wrong.tags, wrong.label) != (wrong.predicted, wrong.predicted_label)
            and wrong.loss > 0
            and wrong.place.startswith("data[")
        )


def test_tags_are_written_in_the_scheme_of_the_data(learned: Run) -> None:
    """The field works in BIOES, as was asked; what comes out is BIO and breaks nothing, for any words."""
    model = tagger(learned)
    assert model.scheme == "BIOES" and len(model.tags) == 9 and model.data_scheme == "BIO"
    rng = random.Random(0)
    words = ["Ada", "Dr", "X1", "London", "w1", "?", "strange"]
    for sentence in model.predict([rng.choices(words, k=rng.randrange(1, 9)) for _ in range(50)]):
        assert {tag[0] for tag in sentence.tags} <= set("BIO")
        assert spans(sentence.tags) == sentence.spans
        assert all(t[0] != "I" or before[2:] == t[2:] for before, t in zip(["O", *sentence.tags], sentence.tags))


def test_brackets_need_a_count(tmp_path: Path) -> None:
    """Depths of brackets: characters, tags that say no spans, accuracy in place of F1."""
    run = recurra.train(
        depths(150), out=tmp_path / "run", cell="gru", epochs=6, dropout=0.0, learning_rate=0.02, batch=16, **SMALL
    )
    model = tagger(run)
    assert model.measure.name == "accuracy" and model.spelling.split == "characters" and model.scheme is None
    result = model.evaluate(depths(30, seed=3))
    assert result.f1 is None and result.label_accuracy is None
    assert result.accuracy > 0.95 > run.baselines["most frequent tag of each word"]
    assert model.predict("( ())")[0].words == ["(", "(", ")", ")"]  # blanks are no characters of it


def test_the_run_says_what_it_found_and_writes_it_down(learned: Run) -> None:
    said = "\n".join(learned.notes)
    for note in (
        "is taken for the task tagging.",
        " sentences to train, ",
        "equal sentences stay together",
        "9 tags of the scheme BIOES, 2 labels of sentences, ",
    ):
        assert note in said
    config = (learned.path / "config.toml").read_text()
    assert 'task = "tagging"' in config and 'scheme = "BIOES"' in config and "rows = 200" in config
    card = (learned.path / "best" / "README.md").read_text()
    for word in ("Kinds of spans: LOC, PER", "Labels of sentences: asks, says", " for training", "% span F1"):
        assert word in card
    assert "words_per_second" in (learned.path / "metrics.csv").read_text()
    result = learned.model.evaluate(learned.path.parent / "data")
    assert 15 <= result.sentences <= 25 and "only its test part was measured" in result.notes[0]


def test_probabilities_are_those_of_the_field(learned: Run) -> None:
    model = tagger(learned)
    (alone,) = model.predict("w1 Dr Ada in London ?", probabilities=True)
    assert alone.probabilities is not None and alone.label_probabilities is not None
    assert sum(alone.label_probabilities.values()) == pytest.approx(1)
    for row in alone.probabilities:
        assert sum(row.values()) == pytest.approx(1, abs=1e-4) and list(row.values()) == sorted(row.values())[::-1]
    (beside, *_) = model.predict(["w1 Dr Ada in London ?", "w3 " * 20 + "."], probabilities=True)
    assert beside.tags == alone.tags and beside.probabilities is not None
    assert beside.probabilities[2] == pytest.approx(alone.probabilities[2], abs=1e-5)
    assert str(alone).startswith("# label = asks\nw1\tO\nDr\tB-PER\n")


# --------------------------------------------------------------------------------------------- stopped, resumed, loaded


@pytest.mark.parametrize("at", [3, 8])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path: Path, at: int) -> None:
    rows = grammar(60)
    recurra.train(rows, out=tmp_path / "whole", **TINY)
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted at step {at} of 10"):
        recurra.train(rows, out=tmp_path / "run", observer=Stop(at), **TINY)
    assert recurra.resume(tmp_path / "run").stopped == "steps"
    assert log(tmp_path / "run") == log(tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("encoder", ["recurrent", "mlp", "cnn", "transformer"])
@pytest.mark.parametrize("output", ["crf", "softmax"])
def test_every_encoder_trains_and_is_loaded_again(tmp_path: Path, encoder: str, output: str) -> None:
    rows = grammar(40)
    run = recurra.train(rows, out=tmp_path / "run", encoder=encoder, output=output, **{**TINY, "steps": 3})
    again, texts = tagger(run), [words for words, _, _ in rows[:5]]
    assert again.predict(texts, probabilities=True) == run.model.predict(texts, probabilities=True)
    again.save(tmp_path / "copy")
    assert (tmp_path / "copy/model.json").read_bytes() == (run.path / "best/model.json").read_bytes()


def test_a_precision_is_that_of_the_encoder(learned: Run) -> None:
    exact, rough = (recurra.load(learned.path, each) for each in ("fp64", "int8"))
    assert exact.predict("Dr Ada ?")[0].tags == tagger(learned).predict("Dr Ada ?")[0].tags
    assert "compute in int8" in rough.evaluate(grammar(5)).notes[-1]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", ["a", "a"], "field 'labels' has a value twice"),
        ("split", "bytes", "field 'split' is 'bytes', and there are characters, blanks, marks"),
        ("scheme", "IOB", "field 'scheme' is 'IOB', and there are BIO, BIOES, BMES"),
        ("scheme", "BIO", "field 'tags' does not hold all tags of the scheme BIO"),
        ("data_scheme", None, "of fields 'scheme' and 'data_scheme' only one is there"),
        ("units", ["x"], r"tensor 'embedding\.weight' is .* but fields 'sizes', 'units', 'parts', 'tags' and 'labels'"),
    ],
)
def test_a_manifest_that_does_not_fit(learned: Run, tmp_path: Path, field: str, value: Any, message: str) -> None:
    record, content = learned.model.folder()
    recurra.files.write_folder(tmp_path / "model", {**record, field: value}, content)
    with pytest.raises(FileError, match=message):
        recurra.load(tmp_path / "model")


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        ("grammar", {"encoder": "bag"}, "encoder='bag' has one vector for all words"),
        ("grammar", {"embedding": 0}, "embedding=0 feeds one-hot vectors"),
        ("grammar", {"window": 8}, "window=8 is a setting of the task language, and the task here is tagging"),
        ("depths", {"pooling": "max"}, "pooling='max' says nothing to data, whose sentences have no labels; leave it"),
        ("depths", {"scheme": "BIO"}, "scheme='BIO' says nothing to data, whose tags say no spans; leave it out"),
        ("grammar", {"scheme": "IOB"}, "scheme='IOB' cannot be used; give BIO, BIOES or BMES"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, rows: str, given: dict[str, Any], message: str) -> None:
    data = grammar(40) if rows == "grammar" else depths(40)
    with pytest.raises(InputError, match=message):
        recurra.train(data, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "sentences is empty"),
        (["a", " "], r"sentences\[1\] holds no word"),
        ([3], r"sentences\[0\] is an int; give a text, or a list of words that are not empty"),
        ([["a", ""]], r"sentences\[0\] is a list"),
    ],
)
def test_what_cannot_be_tagged(learned: Run, sentences: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learned.model.predict(sentences)


def test_kinds_and_labels_that_the_model_does_not_know(learned: Run) -> None:
    with pytest.raises(DataError, match=r"The kind of span 'ORG' \(data\[1\], word 1\) is one that the model does not"):
        learned.model.evaluate([(["a"], ["B-PER"], "asks"), (["b"], ["B-ORG"], "asks")])
    with pytest.raises(DataError, match=r"The label 'sings' \(data\[0\], word 1\) is one that the model does not know"):
        learned.model.evaluate([(["a"], ["B-PER"], "sings")])


# ---------------------------------------------------------------------------------------------------------- the network


def test_neighbours_in_a_batch_change_nothing() -> None:
    wanted = Settings(**{name: value for name, value in TINY.items() if name != "steps"})
    setup = TaggingSetup.of(grammar(40), wanted)
    task = setup.task(setup.complete(wanted))
    network, spelling = task.network.eval(), task.model.spelling
    rows = [words for words, _, _ in grammar(6, seed=2)]
    together, labels = network(spelling.batch(rows))
    for column, words in enumerate(rows):
        alone, label = network(spelling.batch([words]))
        torch.testing.assert_close(together[: len(words), column], alone[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(labels[column], label[0], rtol=1e-5, atol=1e-6)


def test_the_loss_is_that_of_each_sentence_over_all_words() -> None:
    wanted = Settings(hidden=6, embedding=6, dropout=0.0, batch=100)
    setup = TaggingSetup.of(grammar(40), wanted)
    task = setup.task(setup.complete(wanted))
    task.network.eval()
    task._rare[:] = False
    train = setup.splits.train
    found = read(task.network, task.model.spelling, train.words, targets=task.model.encoded(train.tags))
    total = 0.0
    for each, label in zip(found, train.labels or [], strict=True):
        assert each.loss is not None and each.label is not None
        total += each.loss - each.label.log_softmax(0)[task.model.labels.index(label)].item()
    losses = [task.loss(0, n, None)[0].item() * task.work(0, n) for n in range(task.batches)]
    assert (
        sum(losses) == pytest.approx(total, rel=1e-5)
        and sum(task.work(0, n) for n in range(task.batches)) == train.count
    )


def test_words_that_come_once_are_forgotten_at_random() -> None:
    sentences = [["Ada", "is", "in", "London"], ["Ada", "is", "out"]]
    spelling = Spelling.of(sentences, 1)
    rare = spelling.rare(sentences)
    assert spelling.units.symbols == ["ada", "is", "in", "london", "out"] and rare.tolist() == [False] * 3 + [True] * 3
    batch = spelling.batch(sentences)
    torch.manual_seed(0)
    seen = torch.stack([batch.forgetting(rare, 0.5).units for _ in range(400)])
    assert (seen[:, :2] == batch.units[:2]).all()  # ada is
    assert 0.4 < (seen[:, 2, 0] == 0).double().mean() < 0.6
    assert batch.parts.shape == (6, 5) and batch.which is not None and batch.which[:2, 0].equal(batch.which[:2, 1])


def test_how_a_text_becomes_words() -> None:
    assert found_split([["a", "b"]]) == "characters"
    assert found_split([["Yes", ",", "no", "."]]) == "marks" and found_split([["Yes,", "no"], ["."]]) == "blanks"
    assert tokens("I don't know Ada's cat, at 3.5 km (or so).") == (
        "I do n't know Ada 's cat , at 3.5 km ( or so ) .".split()
    )
    pairs = Spelling.of([["a", "b", "a", "b"]], 1)
    assert pairs.parts.symbols == ["ab"] and pairs.batch([["a", "b"]]).parts[:, 0].tolist() == [1, 0]


# -------------------------------------------------------------------------------------------------- figures, baselines


def test_figures_by_hand() -> None:
    true, guess = [["B-X", "I-X", "O"], ["B-Y"]], [["B-X", "O", "B-Y"], ["B-Y"]]
    assert scores_of("BIO", guess, true) == {"X": (0, 1, 1), "Y": (1, 2, 1)}
    assert figure("BIO", guess, true) == pytest.approx(2 * 1 / (3 + 2)) and figure(None, guess, true) == 0.5
    assert figure("BIO", [["O"]], [["O"]]) == 0.0  # as seqeval has it
    rows, _ = tagged_of_memory([(["a", "b", "c"], true[0]), (["d"], true[1])])
    found = report(rows, "BIO", guess, None, [3.0, 1.0], {"averaged perceptron": 0.3}, {}, ["a note"])
    assert (found.f1, found.precision, found.recall) == pytest.approx((0.4, 1 / 3, 1 / 2))
    assert (found.accuracy, found.whole) == (0.5, 0.5) and [w.loss for w in found.worst] == [3.0]
    assert "40.00 % span F1 (precision 33.33, recall 50.00), 50.00 % accuracy of words" in str(found)
    assert str(found).endswith("behind it averaged perceptron 30.00 %.\na note")


def test_the_simple_models_by_hand() -> None:
    sentences, tags = [["a", "b"], ["a", "c"], ["a", "d"]], [["X", "O"], ["Y", "O"], ["Y", "Z"]]
    assert FrequentTags(sentences, tags).predict([["a", "b", "new"]]) == [["Y", "O", "O"]]
    rows = grammar(100)
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    numbers = [np.array([names.index(tag) for tag in t]) for _, t, _ in rows]
    free = np.zeros((6, 6), np.float32)
    models = [AveragedPerceptron([w for w, _, _ in rows], numbers, 5, free, False) for _ in range(2)]
    fresh = [words for words, _, _ in grammar(50, seed=7)]
    first, second = ([found.tolist() for found in model.predict(fresh)] for model in models)
    assert first == second
    right = [[names.index(tag) for tag in t] for _, t, _ in grammar(50, seed=7)]
    assert sum(a == b for a, b in zip(first, right, strict=True)) >= 45


# ----------------------------------------------------------------------------------------------------- the command line


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_commands(learned: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, data = str(learned.path), str(write(tmp_path / "data", grammar(12, seed=8)))
    assert shown(capsys, "predict", place, "Dr Ada ?") == "# label = asks\nDr\tB-PER\nAda\tI-PER\n?\tO\n\n"
    told = json.loads(shown(capsys, "predict", place, "Dr Ada ?", "--json"))
    assert told["spans"] == [{"kind": "PER", "begin": 0, "end": 2, "words": ["Dr", "Ada"]}]
    assert told["tags"] == ["B-PER", "I-PER", "O"] and told["probabilities"][0]["B-PER"] > 0.5
    result = learned.model.evaluate(data)
    told = json.loads(shown(capsys, "eval", place, data, "--json"))
    assert (
        told["f1"] == result.f1
        and told["verdict"] == result.verdict
        and told["label_accuracy"] == result.label_accuracy
    )
    assert shown(capsys, "eval", place, data) == f"{result}\n"
    run = str(tmp_path / "run")
    flags = ["--steps", "2", "--hidden", "4", "--threads", "1", "--json"]
    events = [json.loads(line) for line in shown(capsys, "train", data, "--out", run, *flags).splitlines()]
    assert "is taken for the task tagging" in events[0]["notes"][0]
    assert set(events[-1]["best"]) == {"step", "span_F1"} and events[1]["words_per_second"] > 0

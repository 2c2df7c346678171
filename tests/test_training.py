"""From a text to a model: what training writes, what it refuses, and how it ends."""

import csv
import math
import os
import random
import re
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import recurra
from recurra import files
from recurra.data.text import Text, Vocabulary
from recurra.diagnostics.plots import plot_loss
from recurra.errors import DataError, FileError, InputError, TrainingError
from recurra.tasks.language_model import LanguageModel
from recurra.training.metrics import TIMES, Row
from recurra.training.observer import Observer, PlainProgress, Step
from recurra.training.run import Run
from recurra.training.settings import describe

ALPHABET = "abcdefgh" * 250
TINY: dict[str, Any] = {
    "hidden": 8, "embedding": 4, "batch": 4, "window": 8, "steps": 12, "warmup": 3, "eval_interval": 4,
    "log_interval": 2, "sample_length": 10, "dropout": 0.1, "threads": 1,
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(random.Random(1).choices("abcd efgh\n", k=2000)))
    return path


def log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{n: v for n, v in row.items() if n not in TIMES} for row in csv.DictReader(file)]


def contents(folder: Path) -> list[bytes]:
    names = ("last/model.safetensors", "last/training.safetensors", "best/model.safetensors")
    return [(folder / name).read_bytes() for name in names]


# ------------------------------------------------------------------------------------------------ what training reaches


def test_it_learns_and_writes_what_it_learned(trained: Run) -> None:
    assert trained.best is not None and trained.best.bits_per_character < 0.1
    assert trained.model.generate("abc", 13, temperature=0) == "defghabcdefgh"
    assert list(trained.model.stream("abc", 5, seed=1)) == list(trained.model.generate("abc", 5, seed=1))
    assert trained.stopped == "steps"
    assert "bits per character" in trained.verdict


def test_the_run_folder_is_complete(trained: Run) -> None:
    assert {p.name for p in trained.path.iterdir()} == {
        "config.toml",
        "metrics.csv",
        "samples",
        "best",
        "last",
        "loss.png",
        ".lock",
    }
    config = tomllib.loads((trained.path / "config.toml").read_text())
    given = config["settings"]
    assert {row.name for row in describe()} - set(given) == {
        "epochs",
        "time_limit",
        "patience",
    }  # what was left at none
    assert config["data"]["sha256"] == files.digest(ALPHABET.encode())
    assert [p.name for p in sorted((trained.path / "samples").iterdir())] == [
        f"step-{n:06d}.txt" for n in (40, 80, 120)
    ]
    rows = log(trained.path)
    assert [row["step"] for row in rows if row["validation"]] == ["40", "80", "120"]
    assert len(rows) == len(trained.history)
    assert (trained.path / "loss.png").read_bytes().startswith(b"\x89PNG")
    card = (trained.path / "best" / "README.md").read_text()
    for word in (config["data"]["sha256"], "bits per character", "## Limits", "2,000 characters"):
        assert word in card


def test_the_config_repeats_the_run(text: Path, tmp_path: Path) -> None:
    first = recurra.train(text, out=tmp_path / "1", **TINY)
    given = tomllib.loads((first.path / "config.toml").read_text())["settings"]
    recurra.train(text, out=tmp_path / "2", **given)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") and log(tmp_path / "1") == log(tmp_path / "2")
    recurra.train(text, out=tmp_path / "3", **{**given, "seed": 1})
    assert contents(tmp_path / "1") != contents(tmp_path / "3")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (2, 4)])
def test_every_kind_of_network_trains_saves_and_loads(
    text: Path, tmp_path: Path, cell: str, layers: int, embedding: int
) -> None:
    text.write_text(ALPHABET)
    given = {**TINY, "cell": cell, "layers": layers, "embedding": embedding}
    run = recurra.train(text, out=tmp_path / "run", **given)
    assert run.history[-1].loss < run.history[0].loss
    model = recurra.load(run.path)
    assert model.generate("ab", 30, seed=4) == run.model.generate("ab", 30, seed=4)
    assert run.best is not None
    assert model.evaluate(text).bits_per_character == pytest.approx(run.best.bits_per_character, rel=1e-6)
    model.save(tmp_path / "copy")
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (run.path / "best/model.safetensors").read_bytes()


# --------------------------------------------------------------------------------------------------------------- ending


class Recorder(Observer):
    """Writes down what it is shown; does something at one step."""

    def __init__(self, at: int = -1, do: Callable[[Run], None] | None = None) -> None:
        self.events: list[str] = []
        self.steps: list[Step] = []
        self._at, self._do = at, do

    def on_start(self, run: Run) -> None:
        assert set(run.baselines) == {"unigram", "3-gram", "5-gram"}
        self.events.append("start")

    def on_step(self, run: Run, step: Step) -> None:
        assert run.step == step.step
        self.steps.append(step)
        self.events.append(f"step {step.step}")
        if step.step == self._at and self._do is not None:
            self._do(run)

    def on_validate(self, run: Run, row: Row) -> None:
        assert run.best is not None and row.validation is not None
        self.events.append(f"validate {row.step}")

    def on_sample(self, run: Run, text: str) -> None:
        assert text == run.sample
        self.events.append("sample")

    def on_end(self, run: Run) -> None:
        self.events.append(f"end {run.stopped}")


def test_an_observer_sees_everything_in_order(text: Path, tmp_path: Path) -> None:
    seen = Recorder()
    recurra.train(text, out=tmp_path / "run", observer=seen, **TINY)
    expected = ["start"]
    for n in range(1, 13):
        expected += [f"step {n}"] + (["validate " + str(n), "sample"] if n % 4 == 0 else [])
    assert seen.events == [*expected, "end steps"]
    for step in seen.steps:
        assert step.steps == 12 and step.loss > 0 and step.gradient_norm > 0 and step.seconds_left >= 0
        assert step.characters_per_second > 0 and step.bits_per_character == pytest.approx(
            step.loss / math.log(2), rel=0.2
        )


def test_a_row_sums_up_the_steps_since_the_row_before(text: Path, tmp_path: Path) -> None:
    seen = Recorder()
    run = recurra.train(
        text, out=tmp_path / "run", observer=seen, **{**TINY, "log_interval": 3, "clip": 0.3, "steps": 16}
    )
    assert [row.step for row in run.history] == [3, 4, 6, 8, 9, 12, 15, 16]
    before = 0
    for row in run.history:
        steps = seen.steps[before : row.step]
        before = row.step
        n = len(steps)
        assert row.loss == pytest.approx(sum(s.loss for s in steps) / n)
        assert row.bits_per_character == pytest.approx(row.loss / math.log(2))
        assert row.gradient_norm == pytest.approx(sum(s.gradient_norm for s in steps) / n)
        assert row.clipped == pytest.approx(sum(s.gradient_norm > 0.3 for s in steps) / n)
        assert (row.learning_rate, row.epoch) == (steps[-1].learning_rate, steps[-1].epoch)
    assert 0 < sum(row.clipped for row in run.history) < len(run.history)  # the case tells both apart


def test_the_default_is_silent_where_there_is_no_terminal(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recurra.train(text, out=tmp_path / "run", **TINY)
    assert capfd.readouterr() == ("", "")
    recurra.train(text, out=tmp_path / "run2", observer=PlainProgress(), **TINY)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4 and re.match(r"step 4 of 12: loss .* bits per character, validation ", lines[0])


@pytest.mark.parametrize("at", [1, 5, 8])
def test_ctrl_c_saves_and_says_how_to_resume(text: Path, tmp_path: Path, at: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with none
    recurra.train(text, out=tmp_path / "whole", **TINY)
    stop = Recorder(at, lambda run: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted at step {at} of 12; `recurra resume .*` goes on"):
        recurra.train(text, out=tmp_path / "run", observer=stop, **TINY)
    assert stop.events[-1] == "end interrupt" and f"step {at + 1}" not in stop.events
    assert isinstance(recurra.load(tmp_path / "run"), LanguageModel)
    assert recurra.resume(tmp_path / "run").stopped == "steps"
    assert contents(tmp_path / "run") == contents(tmp_path / "whole") and log(tmp_path / "run") == log(
        tmp_path / "whole"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_stops_at_once(text: Path, tmp_path: Path) -> None:
    def twice(run: Run) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        recurra.train(text, out=tmp_path / "run", observer=Recorder(6, twice), **TINY)
    assert recurra.resume(tmp_path / "run").step == 12


def test_a_time_limit_only_stops(text: Path, tmp_path: Path) -> None:
    recurra.train(text, out=tmp_path / "whole", **TINY)
    run = recurra.train(text, out=tmp_path / "run", time_limit=1e-9, **TINY)
    assert run.stopped == "time limit" and run.step == 0
    slow = Recorder(6, lambda run: time.sleep(0.4))
    run = recurra.resume(tmp_path / "run", time_limit=0.4, observer=slow)
    assert (run.stopped, run.step) == ("time limit", 6)
    assert "time limit of 0.4 s ended it at step 6 of 12; `recurra resume" in run.summary
    assert run.history[-1].validation is not None  # how good it is now, beside the schedule
    again = recurra.resume(tmp_path / "run", time_limit=1000)
    assert again.stopped == "steps"
    assert contents(tmp_path / "run") == contents(tmp_path / "whole") and log(tmp_path / "run") == log(
        tmp_path / "whole"
    )


def test_patience(text: Path, tmp_path: Path) -> None:
    given = {**TINY, "learning_rate": 1e-12, "steps": 100, "eval_interval": 2, "patience": 3, "dropout": 0.0}
    run = recurra.train(text, out=tmp_path / "run", **given)
    assert run.stopped == "patience" and run.best is not None and run.step == run.best.step + 6
    assert "3 validations in a row" in run.summary
    before = contents(run.path)
    assert recurra.resume(run.path).stopped == "patience" and contents(run.path) == before
    assert recurra.resume(run.path, patience=4).step > run.step


def test_a_finished_run_can_be_given_more_steps(text: Path, tmp_path: Path) -> None:
    given = {**TINY, "schedule": "constant"}
    recurra.train(text, out=tmp_path / "whole", **{**given, "steps": 20})
    run = recurra.train(text, out=tmp_path / "run", **given)
    before = contents(run.path)
    assert recurra.resume(run.path).step == 12 and contents(run.path) == before
    assert recurra.resume(run.path, steps=20).step == 20
    assert contents(run.path) == contents(tmp_path / "whole") and log(run.path) == log(tmp_path / "whole")


def test_fewer_steps_than_were_done_are_refused_and_nothing_changes(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    before = (run.path / "config.toml").read_bytes()
    with pytest.raises(InputError, match=r"steps=10 is behind step 12, which .*run has reached; give more than 12\.$"):
        recurra.resume(run.path, steps=10)
    assert (run.path / "config.toml").read_bytes() == before


def test_a_run_that_ends_where_it_was_stopped_still_says_how_good_it_is(text: Path, tmp_path: Path) -> None:
    stop = Recorder(2, lambda run: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="bits per character"):
        recurra.train(text, out=tmp_path / "run", observer=stop, **TINY)
    run = recurra.resume(tmp_path / "run", steps=2)
    assert run.stopped == "steps" and "bits per character" in run.verdict
    assert all(row.loss > 0 for row in run.history)  # step 2 has a row of its own already


def test_before_the_first_step_there_is_nothing_to_measure(text: Path, tmp_path: Path) -> None:
    class Impatient(Recorder):
        def on_start(self, run: Run) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^Interrupted before the first step; nothing was saved\. `recurra r"):
        recurra.train(text, out=tmp_path / "run", observer=Impatient(), **TINY)
    seen = Recorder()
    assert recurra.resume(tmp_path / "run", time_limit=1e-9, observer=seen).history == []
    assert seen.events == ["start", "end time limit"]
    assert recurra.resume(tmp_path / "run", time_limit=1000).step == 12


def test_ctrl_c_after_the_last_step_says_how_to_go_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recurra.training.start.plot_loss", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"Interrupted at step 12 of 12; `recurra resume .*run` goes on"):
            recurra.train(text, out=tmp_path / "run", **TINY)
    assert recurra.resume(tmp_path / "run").plot is not None


def test_the_plot_shows_every_line_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = pytest.importorskip("matplotlib.figure")
    limits: list[tuple[float, float]] = []
    monkeypatch.setattr(drawing.Figure, "savefig", lambda figure, *_, **__: limits.append(figure.axes[0].get_ylim()))
    rows = [Row(step, 0, 0.1, 2.0, 3.0, 1.0, 0.0, 2.8, 1.0, 1.0) for step in (1, 2)]
    plot_loss(tmp_path / "loss.png", rows, {"unigram": 4.5, "5-gram": 1.5})
    assert limits[0][0] < 1.5 and limits[0][1] > 4.5


# ---------------------------------------------------------------------------------------------------- what goes wrong


def spoil(name: str) -> Callable[[Run], None]:
    def do(run: Run) -> None:
        with torch.no_grad():
            run.model.network.get_parameter(name).fill_(torch.nan)

    return do


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("embedding.weight", r"layer 'embedding' \(Embedding\)"),
        ("recurrent.weight_hh_l0", r"layer 'recurrent' \(LSTM\)"),
        ("output.bias", r"layer 'output' \(Linear\)"),
    ],
)
def test_nan_stops_within_one_step_and_names_the_layer(text: Path, tmp_path: Path, weight: str, layer: str) -> None:
    seen = Recorder(6, spoil(weight))
    with pytest.raises(TrainingError, match=f"The loss became nan at step 7: .*{layer}") as caught:
        recurra.train(text, out=tmp_path / "run", observer=seen, **TINY)
    assert seen.events[-1] == "step 6"
    message = str(caught.value)
    assert f"The checkpoint of step 4 in {tmp_path / 'run' / 'last'} is whole" in message and "\n" not in message
    assert recurra.resume(tmp_path / "run").step == 12  # the last good checkpoint


def test_a_step_that_is_too_long_stops_it(text: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"(loss|gradient|Validation) .* learning_rate below 1e\+35 or with a clip below 1"
    ):
        recurra.train(text, out=tmp_path / "run", **{**TINY, "learning_rate": 1e35, "warmup": 0})
    assert math.isfinite(recurra.load(tmp_path / "run").evaluate(text).loss)


def test_a_weight_spoiled_at_a_validation_is_not_saved(text: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Validation gave nan bits per character at step 8: weight 'output\.bias'"):
        recurra.train(text, out=tmp_path / "run", observer=Recorder(8, spoil("output.bias")), **TINY)
    assert recurra.resume(tmp_path / "run").step == 12


def test_a_full_disk_keeps_the_checkpoint_and_gives_one_line(text: Path, tmp_path: Path, small_disk: Path) -> None:
    def fill(run: Run) -> None:
        with open(small_disk / "ballast", "wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
                file.flush()

    recurra.train(text, out=tmp_path / "whole", **TINY)
    folder = small_disk / "run"
    with pytest.raises(FileError, match="No space left on device") as caught:
        recurra.train(text, out=folder, observer=Recorder(6, fill), **TINY)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and "whole" in message
    assert isinstance(recurra.load(folder), LanguageModel)
    (small_disk / "ballast").unlink()
    recurra.resume(folder)
    assert contents(folder) == contents(tmp_path / "whole") and log(folder) == log(tmp_path / "whole")


@pytest.mark.parametrize("operation", ["fsync", "rename"])
def test_an_io_error_while_saving(text: Path, tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recurra.train(text, out=tmp_path / "whole", **TINY)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(5, "Input/output error")

    observer = Recorder(7, lambda run: monkeypatch.setattr(os, operation, refuse))
    with pytest.raises(FileError, match="Input/output error") as caught:
        recurra.train(text, out=tmp_path / "run", observer=observer, **TINY)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    recurra.resume(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole") and log(tmp_path / "run") == log(
        tmp_path / "whole"
    )


def test_an_out_folder_that_is_taken(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    with pytest.raises(FileError, match="already holds a run; `recurra resume"):
        recurra.train(text, out=run.path, **TINY)
    with pytest.raises(FileError, match="exists and is not empty"):
        recurra.train(text, out=tmp_path, **TINY)


def test_an_out_that_is_a_file(text: Path) -> None:
    with pytest.raises(FileError, match=r"text\.txt is a file; choose another out\.$"):
        recurra.train(text, out=text, **TINY)


def test_the_default_out_folder(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = recurra.train("text.txt", **TINY)
    assert re.fullmatch(r"runs/text-\d{8}-\d{6}", str(run.path))
    monkeypatch.chdir("/")
    assert recurra.resume(tmp_path / run.path).step == 12  # found again from another folder


def test_resume_refuses_what_is_not_the_run_any_more(text: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a run folder: it has no config"):
        recurra.resume(tmp_path)
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    with pytest.raises(InputError, match=r"hidden=9 cannot be changed in a run that has begun with 8"):
        recurra.resume(run.path, hidden=9)
    with pytest.raises(InputError, match="no setting hiden; did you mean hidden"):
        recurra.resume(run.path, hiden=9)
    config = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text(config.replace("hidden = 8", "hidden = 9"))
    with pytest.raises(FileError, match=r"config\.toml: field 'hidden' is 9 but the checkpoint was trained with 8"):
        recurra.resume(run.path)
    (run.path / "config.toml").write_text(config.replace("hidden = 8", "hidden = 'many'"))
    with pytest.raises(FileError, match=r"config\.toml: a field .*settings\.hidden"):
        recurra.resume(run.path)
    (run.path / "config.toml").write_text(config)
    text.write_text(text.read_text() + "more")
    with pytest.raises(FileError, match=r"has changed since the run began: .* field 'data\.sha256'"):
        recurra.resume(run.path)
    text.unlink()
    with pytest.raises(DataError, match="does not exist"):
        recurra.resume(run.path)


def test_metrics_that_lost_rows_are_refused(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    (run.path / "metrics.csv").write_text("step\n")
    with pytest.raises(FileError, match=r"metrics\.csv has 5 bytes but field 'metrics_bytes' of the checkpoint says"):
        recurra.resume(run.path)


def test_a_text_in_memory_is_kept_in_the_run_folder(tmp_path: Path) -> None:
    run = recurra.train(Text("letters", ALPHABET), out=tmp_path / "run", **TINY)
    assert (run.path / "data.txt").read_text() == ALPHABET
    assert recurra.resume(run.path, steps=14).step == 14


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lerning_rate": 1}, "There is no setting lerning_rate; did you mean learning_rate?"),
        ({"hidden": 0}, "hidden=0 cannot be used: expected `int` >= 1"),
        ({"hidden": 1.5}, "hidden=1.5 cannot be used: expected `int"),
        ({"cell": "elman"}, "cell='elman' cannot be used: "),
        ({"dropout": 1.0}, "dropout=1.0 cannot be used: expected `float` < 1.0"),
        ({"steps": 5, "epochs": 2}, "steps=5 and epochs=2 both say how long to train; give one of them."),
        ({"task": "poetry"}, "task='poetry' is unknown; this release has language."),
    ],
)
def test_wrong_settings(text: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recurra.train(text, out=tmp_path / "run", **given)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_a_text_shorter_than_one_window(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("abcdefghij" * 4)
    with pytest.raises(
        DataError, match=r"has 36 characters but one window needs 65 .* give a longer text or window=35"
    ):
        recurra.train(tmp_path / "short.txt", out=tmp_path / "run", window=64)
    assert not (tmp_path / "run").exists()
    run = recurra.train(tmp_path / "short.txt", out=tmp_path / "run", steps=2, hidden=4)  # found from the text, it fits
    assert run.step == 2


def test_the_caller_keeps_his_random_numbers_and_threads(text: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    expected = torch.random.get_rng_state()
    recurra.train(text, out=tmp_path / "run", **TINY)
    assert torch.equal(torch.random.get_rng_state(), expected) and torch.get_num_threads() == threads


def test_weights_of_matrices_decay_and_others_do_not(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "1", **TINY)
    heavy = recurra.train(text, out=tmp_path / "2", **{**TINY, "weight_decay": 50.0})
    for name, weight in run.model.network.named_parameters():
        ratio = (heavy.model.network.get_parameter(name).norm() / weight.norm()).item()
        assert (ratio < 0.8) == (name in ("recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "output.weight")), (
            name,
            ratio,
        )


def test_vocabulary_of_the_training_part_alone(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcdefgh" * 100 + "Z" * 20)
    run = recurra.train(tmp_path / "t.txt", out=tmp_path / "run", **TINY)
    assert run.model.vocabulary.characters == Vocabulary("abcdefgh").characters
    assert run.model.evaluate(tmp_path / "t.txt").unknown == {"Z": 20}


def test_without_matplotlib_there_is_no_plot_and_no_error(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.delitem(sys.modules, "matplotlib.backends.backend_agg", raising=False)
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    assert run.plot is None and not (run.path / "loss.png").exists()

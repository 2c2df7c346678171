"""From a text to a model: what training writes, what it refuses, and how it ends."""

import csv
import math
import os
import random
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recurra
from recurra import files
from recurra.data.text import Text, Vocabulary
from recurra.diagnostics.plots import plot_loss
from recurra.errors import DataError, FileError, InputError, TrainingError
from recurra.tasks.evaluation import Evaluation, verdict
from recurra.tasks.language import LanguageNetwork, Sizes, measure
from recurra.tasks.language_model import LanguageModel, baseline_models
from recurra.training.metrics import TIMES, Row
from recurra.training.observer import Observer, PlainProgress, Step
from recurra.training.run import Run
from recurra.training.schedule import learning_rate
from recurra.training.settings import Settings, complete, describe, settings

ALPHABET = "abcdefgh" * 250
TINY: dict[str, Any] = {
    "hidden": 8, "embedding": 4, "batch": 4, "window": 8, "steps": 12, "warmup": 3, "eval_interval": 4,
    "log_interval": 2, "sample_length": 10, "dropout": 0.1, "threads": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet_environment() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(random.Random(1).choices("abcd efgh\n", k=2000)))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that has learned the alphabet. Read only."""
    place = tmp_path_factory.mktemp("alphabet")
    (place / "abc.txt").write_text(ALPHABET)
    return recurra.train(
        place / "abc.txt", out=place / "run", hidden=24, embedding=8, window=16, batch=4, steps=120, learning_rate=0.02,
        warmup=5, eval_interval=40, threads=1,
    )  # fmt: skip


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


def test_the_model_format_of_the_first_release_is_still_read() -> None:
    model = recurra.load(Path(__file__).parent / "models" / "format-1")
    assert isinstance(model, LanguageModel)
    assert model.generate("abc", 13, temperature=0) == "defghabcdefgh"
    assert model.bits_per_character("abcdefghabcd") == pytest.approx(0.0910526, abs=1e-4)


# ------------------------------------------------------------------------------------------------------------ measuring


def small_network(seed: int = 0) -> LanguageNetwork:
    torch.manual_seed(seed)
    return LanguageNetwork(Sizes("gru", 1, 12, 5), 9)


def naive_loss(network: LanguageNetwork, numbers: np.ndarray[Any, Any]) -> float:
    scores, _ = network.requires_grad_(False)(torch.from_numpy(numbers[:-1])[:, None])
    return float(torch.nn.functional.cross_entropy(scores[:, 0].double(), torch.from_numpy(numbers[1:])))


@pytest.mark.parametrize("length", [2, 3, 100, 1025])
def test_a_measure_in_one_lane_is_the_plain_mean(length: int) -> None:
    numbers = np.random.default_rng(1).integers(0, 9, length)
    network = small_network()
    assert measure(network, numbers) == pytest.approx(naive_loss(network, numbers), rel=1e-6)


@pytest.mark.parametrize("length", [2100, 5000, 70_001])
def test_lanes_hardly_change_a_measure(length: int) -> None:
    numbers = np.random.default_rng(2).integers(0, 9, length)
    network = small_network().train()
    assert measure(network, numbers) == pytest.approx(naive_loss(network, numbers), rel=1e-5)
    assert network.training  # as it was


def test_the_state_is_carried_over_and_the_gradient_is_cut() -> None:
    network = small_network().eval()
    numbers = torch.from_numpy(np.random.default_rng(3).integers(0, 9, (21, 2)))
    whole, _ = network.loss(numbers[:-1], numbers[1:])
    first, state = network.loss(numbers[:10], numbers[1:11])
    second, _ = network.loss(numbers[10:20], numbers[11:21], state)
    assert ((first + second) / 2).item() == pytest.approx(whole.item(), rel=1e-5)
    assert not any(s.requires_grad for s in state)


def test_of_the_training_text_only_the_unseen_part_is_measured(trained: Run) -> None:
    result = trained.model.evaluate(trained.path.parent / "abc.txt")
    assert result.characters == 199
    assert "only the part that it has not seen" in result.note
    assert list(result.baselines) == ["unigram", "3-gram", "5-gram"]
    assert result.baselines["unigram"] == pytest.approx(3, abs=0.1)
    assert "bits per character" in str(result)


def test_another_text_with_unknown_characters(trained: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("abcdéfgh☃abcdefgh☃" * 3)
    result = trained.model.evaluate(other)
    assert result.unknown == {"☃": 6, "é": 3}
    assert "9 characters ('☃' 'é') are not in the model's vocabulary" in str(result)
    assert math.isfinite(result.bits_per_character) and all(map(math.isfinite, result.baselines.values()))
    assert result.characters == 53 and not result.note


def test_without_the_training_text_the_missing_baselines_are_said(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "abc.txt").write_text("abcdefgh" * 9)
    model = recurra.load(trained.path)
    assert isinstance(model, LanguageModel) and model.data is not None
    moved = LanguageModel(
        model.network,
        model.sizes,
        model.vocabulary,
        data=__import__("msgspec").structs.replace(model.data, name="gone.txt"),
    )
    result = moved.evaluate(tmp_path / "abc.txt")
    assert result.baselines == {} and "because they need the training text (gone.txt)" in result.note
    assert "no baseline" in result.verdict


def test_the_prompt_may_hold_unknown_characters_and_says_so(trained: Run) -> None:
    with pytest.warns(UserWarning, match="'☃', which the model does not know"):
        written = trained.model.generate("abc☃", 300, temperature=3.0, seed=1)
    assert set(written) <= set("abcdefgh")


@pytest.mark.parametrize("temperature", [0, 1])
def test_without_a_prompt_it_begins_with_a_character_that_is_no_blank(text: Path, temperature: float) -> None:
    network = LanguageNetwork(Sizes("gru", 1, 4, 3), 5)
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([9.0, 9.0, 9.0, -9.0, -8.0]))
    model = LanguageModel(network, Sizes("gru", 1, 4, 3), Vocabulary("\n ab"))
    assert model.generate("", 3, temperature, seed=1)[0] in "ab"
    assert model.generate("a", 3, 0)[0].isspace()  # after a prompt it is free
    blanks = LanguageModel(LanguageNetwork(Sizes("gru", 1, 4, 3), 3), Sizes("gru", 1, 4, 3), Vocabulary("\n "))
    assert len(blanks.generate("", 3, temperature)) == 3
    with pytest.raises(InputError, match="length=-5 cannot be written"):
        model.stream("", -5)


@pytest.mark.parametrize(
    ("bits", "baselines", "line"),
    [
        (1.0, {"unigram": 3.0, "5-gram": 2.0}, "The model is ahead with 1.000 bits per character; behind it 5-gram "
         "2.000, unigram 3.000."),
        (2.5, {"5-gram": 2.0}, "The 5-gram is ahead with 2.000 bits per character; behind it the model 2.500."),
        (0.0, {"unigram": -0.0}, "The model and the unigram are level with 0.000 bits per character."),
        (1.0, {"unigram": 3.0, "3-gram": 1.0, "5-gram": 1.0001}, "The model, the 3-gram and the 5-gram are level with "
         "1.000 bits per character; behind them unigram 3.000."),
    ],
)  # fmt: skip
def test_who_is_ahead(bits: float, baselines: dict[str, float], line: str) -> None:
    assert verdict(bits, baselines) == line


def test_one_character_is_not_characters() -> None:
    assert "over 1 character." in str(Evaluation(1.0, 1, "x", {"☃": 1}))
    assert "1 character ('☃') is not in the model's vocabulary and was read" in str(Evaluation(1.0, 1, "x", {"☃": 1}))
    assert "over 2,000 characters." in str(Evaluation(1.0, 2000, "x"))


def test_baselines_of_a_part_of_a_long_text_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recurra.tasks.language_model._BASELINE_CHARACTERS", 1000)
    models = baseline_models("ab" * 400 + "cd" * 500, Vocabulary("abcd"))
    assert list(models) == [f"{name} of the last 1,000 characters" for name in ("unigram", "3-gram", "5-gram")]
    assert models["unigram of the last 1,000 characters"].bits_per_character("abab") > 8  # it has not seen them
    assert list(baseline_models("ab" * 500, Vocabulary("ab"))) == ["unigram", "3-gram", "5-gram"]


def test_a_text_of_one_character_cannot_be_measured(trained: Run) -> None:
    with pytest.raises(DataError, match="has 1 character but at least 2 are needed"):
        trained.model.evaluate(Text("x", "a"))


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
    slow = Recorder(6, lambda run: __import__("time").sleep(0.4))
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


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


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("characters", [4, 40, 500, 5_000, 335_894, 10**8])
def test_settings_found_from_the_data_can_be_used(characters: int) -> None:
    full = complete(Settings(), characters, min(characters, 100))
    assert full.batch and full.window and full.steps and full.eval_interval and full.log_interval
    assert full.window < characters and full.batch * full.window <= characters
    assert full.log_interval <= full.eval_interval <= full.steps
    assert complete(full, characters, 100) == full


@pytest.mark.parametrize(
    ("characters", "seen"), [(1_000, 200_000), (335_894, 1_050_000), (2_000_000, 3_000_000), (10**8, 10**8)]
)
def test_how_long_it_trains_unless_told(characters: int, seen: int) -> None:
    full = complete(Settings(), characters, 100)
    assert full.steps and full.batch and full.window
    assert full.steps * full.batch * full.window == pytest.approx(seen, rel=0.01)
    assert complete(Settings(epochs=2), 335_894, 100).steps == 2 * (335_894 // (16 * 64))
    assert complete(Settings(steps=77), 335_894, 100).steps == 77


def test_a_network_starts_from_the_frequencies_of_the_text() -> None:
    network = small_network()
    network.start_from(torch.tensor([0, 70, 20, 10, 0, 0, 0, 0, 0]))
    p = network.output.bias.detach().softmax(0)
    assert p[1:4].tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    assert p.min() > 0
    lstm = LanguageNetwork(Sizes("lstm", 2, 6, 3), 9).state_dict()
    for bias in (lstm["recurrent.bias_ih_l0"], lstm["recurrent.bias_ih_l1"]):
        inside = [abs(bias[6 * k : 6 * k + 6] - float(k == 1)).max() <= 6**-0.5 for k in range(4)]
        assert all(inside)  # i, f, g, o: only the forget gates start open


def test_settings_need_no_torch_and_all_have_help() -> None:
    code = "import sys, recurra.training.settings; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.split() == ["False", "False"]
    assert all(row.help.endswith((".", "]")) and row.kind for row in describe())
    assert settings(**{row.name: row.default for row in describe()}) == Settings()


def test_schedules() -> None:
    constant = Settings(schedule="constant", learning_rate=1.0, warmup=4, steps=20)
    assert [learning_rate(constant, n) for n in (0, 1, 3, 4, 19)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = Settings(schedule="cosine", learning_rate=1.0, warmup=0, steps=100)
    assert learning_rate(cosine, 0) == 1.0
    assert learning_rate(cosine, 50) == pytest.approx(0.51)
    assert learning_rate(cosine, 100) == pytest.approx(0.02)
    rates = [learning_rate(cosine, n) for n in range(101)]
    assert rates == sorted(rates, reverse=True)


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

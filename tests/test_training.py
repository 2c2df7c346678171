"""From a text to a model: what training reaches, writes and shows."""

import math
import re
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from runs import ALPHABET, TINY, Recorder, contents, log

import recurra
from recurra import files
from recurra.data.symbols import Characters
from recurra.data.text import Text
from recurra.diagnostics.plots import plot_loss
from recurra.training.metrics import Row
from recurra.training.observer import PlainProgress
from recurra.training.pace import Pace
from recurra.training.run import Run
from recurra.training.settings import describe


def test_it_learns_and_writes_what_it_learned(trained: Run) -> None:
    assert trained.best is not None and trained.best.value < 0.1
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
        "report.html",
        ".lock",
    }
    config = tomllib.loads((trained.path / "config.toml").read_text())
    given = config["settings"]
    assert {row.name for row in describe("language")} - set(given) == {
        "epochs",
        "time_limit",
        "patience",
        "text",
        "vocabulary",
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
    given = {**TINY, "cell": cell, "layers": layers, "embedding": embedding, "learning_rate": 0.03}
    run = recurra.train(text, out=tmp_path / "run", **given)
    assert run.history[-1].loss < run.history[0].loss
    model = recurra.load(run.path)
    assert model.generate("ab", 30, seed=4) == run.model.generate("ab", 30, seed=4)
    assert run.best is not None
    assert model.evaluate(text).bits_per_character == pytest.approx(run.best.value, rel=1e-6)
    model.save(tmp_path / "copy")
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (run.path / "best/model.safetensors").read_bytes()


def test_an_observer_sees_everything_in_order(text: Path, tmp_path: Path) -> None:
    seen = Recorder()
    recurra.train(text, out=tmp_path / "run", observer=seen, **TINY)
    expected = ["start"]
    for n in range(1, 13):
        expected += [f"step {n}"] + (["validate " + str(n), "sample"] if n % 4 == 0 else [])
    assert seen.events == [*expected, "end steps"]
    for step in seen.steps:
        assert step.steps == 12 and step.loss > 0 and step.gradient_norm > 0 and step.seconds_left >= 0
        assert step.units_per_second > 0 and step.training == pytest.approx(step.loss / math.log(2), rel=0.2)


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
        assert row.training == pytest.approx(row.loss / math.log(2))
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


def test_the_plot_shows_every_line_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = pytest.importorskip("matplotlib.figure")
    limits: list[tuple[float, float]] = []
    monkeypatch.setattr(drawing.Figure, "savefig", lambda figure, *_, **__: limits.append(figure.axes[0].get_ylim()))
    rows = [Row(step, 0, 0.1, 2.0, 3.0, 1.0, 0.0, 2.8, 1.0, 1.0) for step in (1, 2)]
    plot_loss(tmp_path / "loss.png", rows, {"unigram": 4.5, "5-gram": 1.5})
    assert limits[0][0] < 1.5 and limits[0][1] > 4.5


def test_the_default_out_folder(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = recurra.train("text.txt", **TINY)
    assert re.fullmatch(r"runs/text-\d{8}-\d{6}", str(run.path))
    monkeypatch.chdir("/")
    assert recurra.resume(tmp_path / run.path).step == 12  # found again from another folder


def test_a_text_in_memory_is_kept_in_the_run_folder(tmp_path: Path) -> None:
    run = recurra.train(Text("letters", ALPHABET), out=tmp_path / "run", **TINY)
    assert (run.path / "data.txt").read_text() == ALPHABET
    assert recurra.resume(run.path, steps=14).step == 14


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
    assert run.model.vocabulary.characters == Characters("abcdefgh").characters
    assert run.model.evaluate(tmp_path / "t.txt").unknown == {"Z": 20}


def test_without_matplotlib_there_is_no_plot_and_no_error(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.delitem(sys.modules, "matplotlib.backends.backend_agg", raising=False)
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    assert run.plot is None and not (run.path / "loss.png").exists()


def test_validations_are_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    pace = Pace()
    pace.start()
    now += 2.0
    pace.step(1.0, work=30)
    pace.pause()
    now += 50.0
    pace.go_on()
    now += 2.0
    pace.step(1.0, work=30)
    assert (pace.units_per_second, pace.elapsed) == (15.0, 54.0)

"""The commands on a run: train, eval, generate, resume and demo do what the Python calls do, and end well."""

import functools
import io
import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import recurra as package
from recurra.cli import INTERRUPTED, run
from recurra.cli.output import write
from recurra.cli.progress import Bar, figures
from recurra.training.observer import Step

ROOT = Path(__file__).parent.parent
Trained = tuple[Path, Path, list[dict[str, Any]]]


def recurra(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "recurra", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A text, the run folder of a small model of it, and what `recurra train --json` wrote."""
    folder = tmp_path_factory.mktemp("cli")
    text = folder / "verse.txt"
    text.write_text("the cat sat on the mat; the dog sat on the log.\n" * 60)
    flags = ["--hidden", "16", "--steps", "20", "--batch", "4", "--window", "16", "--eval-interval", "10"]
    done = recurra("train", str(text), "--out", str(folder / "run"), "--json", *flags)
    assert done.returncode == 0, done.stderr
    return text, folder / "run", [json.loads(line) for line in done.stdout.splitlines()]


def test_train_says_what_happened(trained: Trained) -> None:
    _, folder, events = trained
    assert [e["event"] for e in events] == ["start", "validate", "sample", "validate", "sample", "end"]
    end = events[-1]
    assert (end["path"], end["step"], end["stopped"]) == (str(folder), 20, "steps")
    assert end["best"]["bits_per_character"] == min(e["validation"] for e in events if e["event"] == "validate")
    assert set(end["baselines"]) == {"unigram", "3-gram", "5-gram"}
    assert (folder / "config.toml").is_file()


def test_train_without_json_ends_with_the_folder(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _, _ = trained
    assert run(["train", str(text), "--out", str(tmp_path / "run"), "--hidden", "8", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'run'}\n"
    assert "bits per character" in err and "ahead" in err


def test_eval_is_the_python_call(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    text, folder, _ = trained
    result = package.load(folder).evaluate(text)
    assert run(["eval", str(folder), str(text), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["loss"] == result.loss and shown["bits_per_character"] == result.bits_per_character
    assert shown["baselines"] == result.baselines
    assert run(["eval", str(folder), str(text)]) == 0
    assert capsys.readouterr().out == f"{result}\n"


def test_generate_is_the_python_call(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, _ = trained
    model: Any = package.load(folder)
    expected = model.generate("the cat", 30, 0.9, 5, 0.8, 3)
    command = ["generate", str(folder), "--prompt", "the cat", "--length", "30", "--temperature", "0.9"]
    command += ["--top-k", "5", "--top-p", "0.8", "--seed", "3"]
    assert run(command) == 0
    assert capsys.readouterr().out == f"the cat{expected}\n"
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prompt": "the cat", "text": expected}


def test_generate_writes_each_character_as_it_is_made(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    written: list[str] = []
    monkeypatch.setattr("sys.stdout.write", lambda piece: written.append(piece))

    def pieces() -> Iterator[str]:
        for character in "abc":
            yield character
            seen.append("".join(written))  # what the reader has before the next character is asked for

    write(">", pieces())
    assert seen == [">a", ">ab", ">abc"]


def test_resume_goes_on(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, _ = trained
    assert run(["resume", str(folder), "--steps", "24", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (events[0]["step"], events[-1]["step"], events[-1]["stopped"]) == (20, 24, "steps")


def test_ctrl_c_saves_and_says_how_to_go_on(trained: Trained, tmp_path: Path) -> None:
    text, _, _ = trained
    command = [sys.executable, "-m", "recurra", "train", str(text), "--out", str(tmp_path / "run"), "--json"]
    command += ["--hidden", "8", "--steps", "1000000", "--eval-interval", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None and child.stderr is not None
        while json.loads(child.stdout.readline())["event"] != "validate":
            pass
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == INTERRUPTED
    assert "Traceback" not in err
    end = json.loads(out.splitlines()[-1])
    assert end["stopped"] == "interrupt"
    assert f"Interrupted at step {end['step']} of 1000000; `" in err and f"resume {tmp_path / 'run'}` goes on" in err
    assert err.count("\n") == 1
    assert (tmp_path / "run/last/model.json").is_file()


def test_ctrl_c_while_python_loads_says_that_nothing_was_saved(trained: Trained, tmp_path: Path) -> None:
    code = """
import builtins, signal, sys
from recurra import cli
plain = builtins.__import__
def load(name, *rest):
    if name == "torch": signal.raise_signal(signal.SIGINT)
    return plain(name, *rest)
builtins.__import__ = load
cli.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, "train", str(trained[0]), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == INTERRUPTED
    assert done.stderr == "recurra: Interrupted before the first step; nothing was saved.\n"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_is_not_swallowed_by_whatever_is_loading(trained: Trained, tmp_path: Path) -> None:
    code = """
import builtins, signal, sys
from recurra import cli
plain = builtins.__import__
def load(name, *rest):
    if name == "torch" and "torch" not in sys.modules:
        try: signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt: pass  # as torch does with numpy's import
    return plain(name, *rest)
builtins.__import__ = load
cli.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, "train", str(trained[0]), "--out", str(tmp_path / "run"), "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == INTERRUPTED
    assert done.stderr == "recurra: Interrupted before the first step; nothing was saved.\n"


def test_a_bar_shows_a_loss_and_bits_that_agree(trained: Trained) -> None:
    smoothed = 2 * math.log(2)
    step = Step(
        5, 10, 0, 9.0, 2.0, 1.0, 0.1, 1000.0, 1.0, 1.0, smoothed
    )  # the batch's own loss is far from the smoothed one
    assert figures(step, package.load(trained[1])).startswith("step 5  loss 1.386  2.000 bits/char")


def test_a_command_in_the_bars_last_lines_is_not_broken(trained: Trained, tmp_path: Path) -> None:
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=40, color_system=None)) as bar:
        made = package.train(trained[0], out=tmp_path / "run", observer=bar, hidden=8, steps=4, time_limit=1e-9)
    assert f"`recurra resume {made.path}` goes on" in screen.getvalue()


def test_the_bar_shows_the_numbers_samples_and_who_is_ahead(trained: Trained, tmp_path: Path) -> None:
    text, _, _ = trained
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=160, color_system=None)) as bar:
        sizes = {"hidden": 8, "steps": 6, "eval_interval": 3, "sample_length": 30}
        made = package.train(text, out=tmp_path / "run", observer=bar, **sizes)
    shown = screen.getvalue()
    assert "1 LSTM layer of 8 units" in shown and "6 steps" in shown
    assert re.search(r"step 6  loss \d\.\d{3}  \d\.\d{3} bits/char  [\d,]+ chars/s  0:00 left", shown)
    for row in made.history:
        if row.validation is not None:
            assert f"step {row.step}: {row.validation:.3f} bits per character" in shown
    assert made.sample.strip().splitlines()[0] in shown
    assert made.verdict.split(" is ahead")[0] in shown


def test_the_demo_ends_with_text_a_plot_who_is_ahead_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = functools.partial(package.train, hidden=8, steps=2, eval_interval=2)
    monkeypatch.setattr(package, "train", short)
    assert run(["demo", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    picture = tmp_path / "run/loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and f"The same as a picture: {picture}\n" in shown
    assert f"Everything about the run: {tmp_path / 'run'}\n" in shown
    assert f'\n  recurra generate {tmp_path / "run"} --prompt "The "\n' in shown
    assert "The 5-gram is ahead" in shown and "unigram" in shown and "3-gram" in shown
    assert "┤" in shown
    text = shown.partition("'The ':\n\n")[2].partition("\n\nBits per character")[0]
    assert text.startswith("The ") and len(text) >= 400


def test_the_demo_speaks_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(package, "train", functools.partial(package.train, hidden=8, steps=2, eval_interval=2))
    assert run(["demo", "--out", str(tmp_path / "run"), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["start", "validate", "sample", "end", "generate"]
    assert len(events[-1]["text"]) == 400

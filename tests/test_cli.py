"""The command line: quick to help, one line when something is wrong, the same results as the Python calls."""

import functools
import io
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import recurra as package
from recurra import cli
from recurra.cli import FAILED, INTERRUPTED, WRONG_INPUT, app, run
from recurra.cli.chart import chart
from recurra.cli.output import write
from recurra.cli.progress import Bar, figures
from recurra.cli.typed import command as program
from recurra.cli.typed import typeable
from recurra.training.observer import Step
from recurra.training.settings import describe

ROOT = Path(__file__).parent.parent
COMMANDS = ["train", "resume", "eval", "generate", "cells", "demo"]
HELP_SECONDS = 0.3
Trained = tuple[Path, Path, list[dict[str, Any]]]


def recurra(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "recurra", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


def test_help_is_quick_and_loads_no_torch() -> None:
    code = """
import sys
from recurra.cli import main
try: main(sys.argv[1:])
finally: print(sorted({"torch", "numpy", "safetensors", "matplotlib"} & set(sys.modules)), file=sys.stderr)
"""
    best = float("inf")
    for arguments in (["--help"], ["--help"], *[[command, "--help"] for command in COMMANDS]):
        start = processor_seconds()
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
        best = min(best, processor_seconds() - start)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert done.stdout.startswith("Usage: recurra")
    assert best < HELP_SECONDS


def processor_seconds() -> float:
    """Of finished children: what the wall clock says on a machine that has nothing else to do."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_every_setting_is_a_flag_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for row in describe():
        assert f"--{row.name.replace('_', '-')} " in text
        assert row.help.split(".")[0] in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "parameter DATA requires an argument"),
        (["train", "x.txt", "--hiden", "3"], "Unknown option: --hiden. Did you mean --hidden?"),
        (["train", "x.txt", "--hidden", "many"], "--hidden: many is no whole number; give one, as in 3."),
        (["train", "missing.txt"], "missing.txt does not exist"),
        (["train", "missing.txt", "--dropout", "2"], "dropout=2.0 cannot be used"),
        (["train", "missing.txt", "--task", "cooking"], "cooking"),
        (["generate", "no-such-run"], "no-such-run does not exist"),
        (["eval", "no-such-run", "demo"], "no-such-run does not exist"),
        (["resume", "no-such-run"], "no-such-run"),
        (["cells", "LSTN"], "There is no cell LSTN; did you mean LSTM?"),
        (["cells", "LSTM", "--hidden-size", "0"], "--hidden-size is 0; give 1 to 4096."),
        (["cells", "LSTM", "--hidden-size", "100000000"], "--hidden-size is 100000000; give 1 to 4096."),
        (["cells", "GRU", "--input-size", "9" * 30], f"--input-size is {'9' * 30}; give 1 to 4096."),
        (["train", "demo", "--hidden", "100000000"], "hidden=100000000 cannot be used: expected `int` <= 1000000."),
        (["train", "demo", "--hidden", "999999"], "hidden=999999, layers=1 and embedding=64 make 4,000,"),
        (["train", "demo", "--layers", "1001"], "layers=1001 cannot be used: expected `int` <= 1000."),
        (["train", "demo", "--out", ""], "out is empty; give the path of the run folder to make, or leave out away."),
        (["generate", ""], "The path of the model is empty; give the path of its folder."),
        (["eval", "", "demo"], "The path of the model is empty; give the path of its folder."),
        (["resume", ""], "The path of the model is empty; give the path of its folder."),
        (["train", ""], "The path of the text is empty; give the path of a text file."),
        (["train", "/dev/zero"], "/dev/zero is a device, which may never end and cannot be read again when a run"),
        (["train", "/dev/random"], "/dev/random is a device, which may never end and cannot be read again when a"),
        (["no-such-command"], "no-such-command"),
        (["train", "no-such.txt", "--hidden", "3.5"], "--hidden: 3.5 is no whole number; give one, as in 3."),
        (["generate", "no-such-run", "--length", "3.7"], "--length: 3.7 is no whole number; give one, as in 3."),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == WRONG_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("recurra: ") and err.count("\n") == 1


ENDLESS = "which may never end and cannot be read again when a run goes on; write its text to a file and give that."
UNREADABLE = {
    "zeros": "zeros is a binary file: byte 0 is 0x00; give a text file.",
    "blank": "blank holds nothing but white space; give a text of at least some thousand characters.",
    "pipe": f"pipe is a pipe, {ENDLESS}",
    "folder": "folder is a folder; give the path of a text file in it.",
    "endless": f"endless is a device, {ENDLESS}",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_learned_from_is_refused_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zeros").write_bytes(bytes(20_000))
    Path("blank").write_text(" \n\t \n" * 4000)
    os.mkfifo("pipe")
    os.mkdir("folder")
    os.symlink("/dev/zero", "endless")
    before = sorted(os.listdir())
    assert run(["train", name]) == WRONG_INPUT
    assert capsys.readouterr().err == f"recurra: {UNREADABLE[name]}\n"
    assert sorted(os.listdir()) == before


def test_another_failure_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(cli, "app", fail)
    assert run(["cells"]) == FAILED
    assert capsys.readouterr().err == "recurra: MemoryError: no room at all (RECURRA_TRACEBACK=1 shows where)\n"


def test_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    assert run(["cells"]) == INTERRUPTED
    assert capsys.readouterr().err == "recurra: stopped\n"


@pytest.mark.parametrize("command", [["train", "x.txt"], ["resume", "run"], ["demo"]])
def test_an_interrupt_before_the_first_step_says_that_nothing_was_saved(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "train", interrupt)
    monkeypatch.setattr(package, "resume", interrupt)
    assert run(command) == INTERRUPTED
    said = capsys.readouterr().err
    assert said == "recurra: Interrupted before the first step; nothing was saved.\n"


@pytest.mark.parametrize(
    ("called", "on_path", "expected"),
    [
        (".venv/bin/recurra", None, ".venv/bin/recurra"),
        (".venv/bin/recurra", ".venv/bin/recurra", "recurra"),
        (".venv/bin/recurra", "other/recurra", ".venv/bin/recurra"),
        ("my tools/recurra", None, "'my tools/recurra'"),
        ("pytest", None, "recurra"),
    ],
)
def test_commands_are_printed_as_they_can_be_typed(
    called: str, on_path: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in filter(None, (called, on_path)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / called), "demo"])
    monkeypatch.setenv("PATH", str((tmp_path / (on_path or "nowhere/recurra")).parent))
    assert typeable("`recurra resume runs/x` goes on") == f"`{expected} resume runs/x` goes on"
    monkeypatch.setattr(sys, "argv", [str(Path(cli.__file__).parent.parent / "__main__.py")])
    assert program().endswith(" -m recurra")


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m recurra cells | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("arguments", [["cells"], ["cells", "LSTM"], ["cells", "LSTM", "--json"], ["--help"]])
def test_a_full_output_is_one_line_and_exit_code_1(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "recurra", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert done.returncode == FAILED
    assert done.stderr == (
        "recurra: the output cannot be written: No space left on device. Send it where there is room.\n"
    )


def test_a_closed_output_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m recurra cells >&-"], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_are_these() -> None:
    assert sorted(name for name in app if not name.startswith("-")) == sorted(COMMANDS)


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


def test_a_bar_shows_a_loss_and_bits_that_agree() -> None:
    step = Step(5, 10, 0, 9.0, 2.0, 1.0, 0.1, 1000.0, 1.0, 1.0)  # the batch's own loss is far from the smoothed one
    assert figures(step).startswith("step 5  loss 1.386  2.000 bits/char")


def test_a_command_in_the_bars_last_lines_is_not_broken(trained: Trained, tmp_path: Path) -> None:
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=40, color_system=None)) as bar:
        made = package.train(trained[0], out=tmp_path / "run", observer=bar, hidden=8, steps=4, time_limit=1e-9)
    assert f"`recurra resume {made.path}` goes on" in screen.getvalue()


def test_cells_are_listed_and_each_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cells", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert sorted(listed) == sorted(package.cells.__all__)
    for name in listed:
        assert run(["cells", name, "--input-size", "6", "--hidden-size", "8", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["equation"].startswith(listed[name])
        assert f"program {name}" in facts["program"] and facts["operations"]
        assert facts["parameters"] == sum(math.prod(shape) for shape in facts["parameter_shapes"].values())


def test_the_name_of_a_cell_may_be_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for name in ("LSTMProjected", "lstmprojected"):
        assert run(["cells", name]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_a_cell_is_shown_with_its_equation_program_and_operations(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cells", "LSTM"]) == 0
    shown = capsys.readouterr().out
    for words in ("c_t = f_t ∘ c_{t-1} + i_t ∘ g_t", "before the loop", "in the loop", "32,768 before, 65,536 in"):
        assert words in shown
    assert shown.index("\nbefore:") < shown.index("\nloop:") < shown.index("\nafter:")


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


def test_every_command_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert run([command, "--help"]) == 0
        assert "--json " in capsys.readouterr().out, command


def test_the_demo_speaks_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(package, "train", functools.partial(package.train, hidden=8, steps=2, eval_interval=2))
    assert run(["demo", "--out", str(tmp_path / "run"), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["start", "validate", "sample", "end", "generate"]
    assert len(events[-1]["text"]) == 400


class TestChart:
    def test_a_falling_line_falls(self) -> None:
        rows = chart([0, 1], [4.0, 1.0], width=8, height=4).splitlines()
        first = [next(k for k, c in enumerate(row[3:]) if c != "\u2800") for row in rows[:4]]
        assert first == sorted(first) and first[0] == 0
        assert rows[0].startswith("4 ┤") and rows[3].startswith("1 ┤")
        assert rows[-1].split() == ["0", "1"]

    def test_every_row_is_as_wide(self) -> None:
        rows = chart(list(range(100)), [1 / (1 + x) for x in range(100)], width=30, height=5).splitlines()
        assert {len(row) for row in rows[:5]} == {len(rows[0])} and len(rows) == 7

    def test_a_level_line_one_point_and_none(self) -> None:
        assert "2 ┤" in chart([0, 1], [2.0, 2.0])
        assert "2 ┤" in chart([0], [2.0])
        assert chart([], []) == chart([1.0], [float("nan")]) == "(nothing to draw)"


def test_ctrl_c_before_the_command_is_read_ends_it_without_words() -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'cyclopts':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from recurra.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")

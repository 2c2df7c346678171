"""The command line: quick to help, one line when something is wrong, cells shown."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import recurra as package
from recurra import cli
from recurra.cli import FAILED, INTERRUPTED, WRONG_INPUT, app, run
from recurra.cli.typed import command as program
from recurra.cli.typed import typeable
from recurra.training.settings import describe

ROOT = Path(__file__).parent.parent
COMMANDS = ["train", "check", "compare", "resume", "eval", "predict", "generate", "fill", "rank", "report", "cells",
            "demo"]  # fmt: skip
HELP_SECONDS = 0.3


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
        (["train", "demo", "--hidden", "100000000"], "hidden=100000000 cannot be used; give a whole number from 1"),
        (["train", "demo", "--hidden", "999999"], "hidden=999999, layers=1 and embedding=64 make 4,000,"),
        (["train", "demo", "--layers", "1001"], "layers=1001 cannot be used; give a whole number from 1 to 1000."),
        (
            ["train", "demo", "--seed", "9" * 20],
            f"seed={'9' * 20} cannot be used; give a whole number from 0 to 2**64 - 1.",
        ),
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
    "folder": "folder has no text for training; name the files train.txt, valid.txt and test.txt, or give one file.",
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


def test_every_command_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert run([command, "--help"]) == 0
        assert "--json " in capsys.readouterr().out, command


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

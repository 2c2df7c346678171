"""How training ends, and how it goes on: Ctrl-C, a time limit, patience, more steps."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from runs import TINY, Recorder, contents, log

import recurra
from recurra.errors import InputError
from recurra.tasks.language_model import LanguageModel
from recurra.training.run import Run


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


def test_a_run_of_the_last_release_goes_on(tmp_path: Path) -> None:
    """`models/run-1` was interrupted at step 6 of 12, when a run knew of language models only."""
    folder = shutil.copytree(Path(__file__).parent / "models" / "run-1", tmp_path / "run")
    before = log(folder)
    assert isinstance(recurra.load(folder), LanguageModel)
    run = recurra.resume(folder)
    assert (run.stopped, run.step) == ("steps", 12) and run.best is not None
    assert [row["step"] for row in log(folder)] == ["2", "4", "6", "8", "10", "12"]
    assert log(folder)[:3] == before[:3]  # the fourth is the validation beside the schedule, where it was interrupted
    assert run.history[0].training == float(before[0]["bits_per_character"])
    values = [row.validation for row in run.history if row.validation is not None]
    assert run.best.value == min(values)

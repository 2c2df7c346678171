"""compare(): several models on the same data, each in a process of its own, and one table of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from generators import sentiment

import recurra
from recurra import cli
from recurra.compare import comparing, names
from recurra.compare.child import latency
from recurra.compare.comparing import PAGE, RECORD
from recurra.errors import FileError, InputError, TrainingError
from recurra.training.start import SETUPS

TINY: dict[str, Any] = {"hidden": 4, "embedding": 4, "threads": 1, "steps": 2, "batch": 8}
ROWS = sentiment(40)
Asked = Callable[[dict[str, Any], Any], dict[str, Any]]


def result(value: float, **more: Any) -> dict[str, Any]:
    """What a process gives for a model."""
    measure = {"name": "accuracy", "short": "accuracy", "lower_is_better": False, "share": True}
    return {
        "value": value, "step": 2, "seconds": 3.0, "parameters": 100, "description": "a model", "memory": 2**20,
        "latency": 0.001, "baselines": {"majority class": 0.5, "linear model on character n-grams": 0.75},
        "measure": measure, "curve": [(1, 0.5), (2, value)], **more,
    }  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Asked], list[dict[str, Any]]]:
    """Puts a function in the place of the processes; gives the jobs that it was asked."""

    def put(answer: Asked) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = []

        def asked(job: dict[str, Any], progress: Any) -> dict[str, Any]:
            jobs.append(job)
            return answer(job, progress)

        monkeypatch.setattr(comparing, "asked", asked)
        return jobs

    return put


def by_cell(job: dict[str, Any], progress: Any) -> dict[str, Any]:
    given = job["given"]
    return result({"gru": 0.9, "lstm": 0.6, None: 0.7}[given.get("cell")] + 0.02 * given["seed"])


# ------------------------------------------------------------------------------------------------- with real processes


def test_a_model_is_trained_in_a_process_of_its_own(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    command = ["compare", str(table), "--models", "gru,ngram", "--out", str(out), *flags]
    assert cli.run([*command, "--json"]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    rows = {entry["name"]: entry for entry in record["entries"]}
    assert set(rows) == {"gru", "majority class", "linear model on character n-grams"}
    assert rows["gru"]["memory"] > 50 * 2**20 and rows["gru"]["latency"] > 0 and rows["gru"]["seconds"] > 0
    model = recurra.load(rows["gru"]["runs"][0])
    assert rows["gru"]["parameters"] == model.parameters and rows["gru"]["value"] is not None
    assert 0 < (latency(model, "a splendid w1") or 0) < 1 and latency(model, "") is None
    assert "gru, seed 0 (1 of 1)" in told.err
    page = (out / PAGE).read_text()
    assert "gru" in page and "majority class" in page and "http" not in page.replace("http-equiv", "")
    assert cli.run(command) == 0  # from what was written: no process is begun
    assert "accuracy" in capsys.readouterr().out.splitlines()[0]


# ------------------------------------------------------------------------------------------------- with fake processes


def test_the_best_comes_first_and_all_are_given_the_same(table: Path, tmp_path: Path, fake: Any) -> None:
    jobs = fake(by_cell)
    found = recurra.compare(table, "lstm,gru,cnn", out=tmp_path / "out", **TINY)
    ranked = ["gru", "linear model on character n-grams", "cnn", "lstm", "majority class"]
    assert [entry.name for entry in found.entries] == ranked and found.best.name == "gru"
    assert [job["given"] for job in jobs] == [
        {**TINY, **own, "seed": 0} for own in ({"cell": "lstm"}, {"cell": "gru"}, {"encoder": "cnn"})
    ]
    assert str(found).splitlines()[1].split()[:3] == ["gru", "90.00", "%"]
    assert f"recurra eval {tmp_path / 'out'}/gru/seed-0" in str(found) and "the test was not read" in str(found)


def test_seeds_give_a_mean_and_a_spread(table: Path, tmp_path: Path, fake: Any) -> None:
    jobs = fake(by_cell)
    found = recurra.compare(table, ["gru"], out=tmp_path / "out", seeds=3, **TINY)
    assert [job["given"]["seed"] for job in jobs] == [0, 1, 2]
    assert found.best.value == pytest.approx(0.92) and found.best.spread == pytest.approx(0.02)
    assert "92.00 % ± 2.00" in str(found) and "over 3 seeds" in str(found)


def test_after_ctrl_c_the_same_call_goes_on(table: Path, tmp_path: Path, fake: Any) -> None:
    def stopped(job: dict[str, Any], progress: Any) -> dict[str, Any]:
        if job["given"].get("cell") == "gru":
            raise KeyboardInterrupt
        return by_cell(job, progress)

    fake(stopped)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted at gru; the same command with `--out {out}` goes on"):
        recurra.compare(table, "lstm,gru", out=out, **TINY)
    jobs = fake(by_cell)
    found = recurra.compare(table, "lstm,gru", out=out, **TINY)
    assert [job["given"]["cell"] for job in jobs] == ["gru"] and len(found.entries) == 4


def test_one_that_fails_is_a_row_and_is_tried_again(table: Path, tmp_path: Path, fake: Any) -> None:
    fake(lambda job, progress: {"failed": "no memory."} if "encoder" in job["given"] else by_cell(job, progress))
    out = tmp_path / "out"
    found = recurra.compare(table, "cnn,gru", out=out, **TINY)
    assert found.entries[-1].name == "cnn" and "cnn failed: no memory." in str(found)
    jobs = fake(by_cell)
    assert recurra.compare(table, "cnn,gru", out=out, **TINY).entries[-1].name == "majority class" and len(jobs) == 1
    fake(lambda job, progress: {"failed": "no memory."})
    with pytest.raises(TrainingError, match=r"None of cnn could be trained: no memory\."):
        recurra.compare(table, "cnn", out=tmp_path / "other", **TINY)


def test_simple_models_alone_train_nothing(table: Path, tmp_path: Path, fake: Any) -> None:
    simple = {name: result(0.5)[name] for name in ("baselines", "measure")}
    jobs = fake(lambda job, progress: simple)
    found = recurra.compare(table, "ngram,majority,perceptron", out=tmp_path / "out", **TINY)
    assert [job["out"] for job in jobs] == [None]
    assert [entry.name for entry in found.entries][:2] == ["linear model on character n-grams", "majority class"]
    assert "the task classification has no such model; it has majority class, linear" in found.entries[2].failed


def test_rows_in_memory_are_written_once_for_all(tmp_path: Path, fake: Any) -> None:
    jobs = fake(by_cell)
    recurra.compare(ROWS, "gru,lstm", out=tmp_path / "out", **TINY)
    assert {job["data"] for job in jobs} == {str(tmp_path / "out/data.jsonl")}
    assert (tmp_path / "out/data.jsonl").read_text().count("\n") == len(ROWS)


def test_without_names_those_are_taken_that_the_task_has(tmp_path: Path, fake: Any) -> None:
    text = tmp_path / "my.txt"
    text.write_text("The cat sat on the mat, and the dog sat on the log.\n" * 60)
    fake(lambda job, progress: result(0.5))
    found = recurra.compare(text, out=tmp_path / "out", hidden=4, steps=2)
    assert {"elman", "lstm", "gru"} <= {entry.name for entry in found.entries}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": "gru,lsmt"}, "There is no model 'lsmt' for the task classification; did you mean lstm? There are "
         "lstm, gru,"),
        ({"models": " , "}, "models=' , ' names none; give some, as in lstm,gru,cnn."),
        ({"models": "gru", "cell": "lstm"}, "cell='lstm' is what models=gru says already; leave one of them out."),
        ({"models": "cnn", "bidirectional": True}, "bidirectional=True says nothing to encoder='cnn'"),
        ({"models": "gru", "seeds": 0}, "seeds=0 cannot be used; give a whole number from 1 to 100."),
        ({"models": "gru", "task": "cooking"}, "task='cooking' is unknown"),
        ({"models": "gru", "window": 5}, "window=5 is a setting of the task"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_trained(
    given: dict[str, Any], message: str, table: Path, tmp_path: Path, fake: Any
) -> None:
    jobs = fake(by_cell)
    with pytest.raises(InputError, match=re.escape(message)):
        recurra.compare(table, out=tmp_path / "out", **TINY, **given)
    assert not jobs and not (tmp_path / "out").exists()


def test_a_folder_of_another_comparison_is_not_gone_on_with(table: Path, tmp_path: Path, fake: Any) -> None:
    fake(by_cell)
    out = tmp_path / "out"
    recurra.compare(table, "gru", out=out, **TINY)
    with pytest.raises(InputError, match=re.escape("holds a comparison whose settings are")):
        recurra.compare(table, "gru", out=out, **{**TINY, "hidden": 5})
    table.write_text(table.read_text() + "one more,good\n")
    with pytest.raises(InputError, match=re.escape("holds a comparison whose data is")):
        recurra.compare(table, "gru", out=out, **TINY)
    (out / RECORD).write_text("{}")
    with pytest.raises(FileError, match="a field is not as it must be"):
        recurra.compare(table, "gru", out=out, **TINY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    with pytest.raises(FileError, match="is not empty and holds no comparison"):
        recurra.compare(table, "gru", out=tmp_path / "full", **TINY)


@pytest.mark.parametrize("kind", SETUPS)
def test_every_task_has_models(kind: str) -> None:
    known = names.names(kind)
    assert {"lstm", "gru", *names.SIMPLE} <= set(known) and "recurrent" not in known

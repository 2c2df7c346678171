"""A run that is killed at any moment and resumed has, bit for bit, the weights and the log of one that never was.

Loading torch takes longer than the tiny runs here, so one process loads it, forks a child for each run, and kills that.
"""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KILLS = 20
OPERATIONS = 15  # further kills, each right before one of the operations that change the disk
SETTINGS: dict[str, Any] = {
    "hidden": 6,
    "layers": 2,
    "embedding": 4,
    "dropout": 0.2,
    "batch": 4,
    "window": 8,
    "steps": 45,
    "eval_interval": 7,
    "log_interval": 3,
    "sample_length": 20,
    "threads": 1,
    "seed": 3,
}


def run_of(folder: Path) -> dict[str, Any]:
    """All that must be equal: the files of both models, and the log without its times."""
    with open(folder / "metrics.csv", newline="") as file:
        log = [
            {n: v for n, v in row.items() if n not in ("seconds", "characters_per_second")}
            for row in csv.DictReader(file)
        ]
    models = {
        f"{place}/{name}": (folder / place / name).read_bytes() for place in ("best", "last") for name in MODEL_FILES
    }
    moments = {"last/training.safetensors": (folder / "last/training.safetensors").read_bytes()}
    samples = {p.name: p.read_bytes() for p in sorted((folder / "samples").iterdir())}
    return {"log": log, **models, **moments, **samples}


MODEL_FILES = ("model.safetensors", "README.md")


def serve(place: Path, kills: int, operations: int) -> None:
    """The parent of the runs: prints one JSON line a killed run, with what differs."""
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # a plot takes longer than a run
    text = place / "text.txt"
    text.write_text("".join(random.Random(1).choices("abcd efgh\n", k=4000)))
    start(text, place / "first")  # loads what the first run loads, once for all children
    begun = time.perf_counter()
    assert wait(fork(lambda: start(text, place / "whole"))) == 0
    lasts = time.perf_counter() - begun
    wanted = run_of(place / "whole")
    assert wait(fork(lambda: counting(lambda: start(text, place / "counted"), place / "count"))) == 0
    total = int((place / "count").read_text())
    rng = random.Random(2026)
    for number in range(kills + operations):
        operation = -1 if number < kills else (number - kills) * total // operations
        moments = [rng.uniform(0, 0.8 * lasts) for _ in range(rng.choice([1, 1, 2]))]
        print(json.dumps(trial(text, place / f"killed-{number}", wanted, moments, operation)), flush=True)


def trial(text: Path, folder: Path, wanted: dict[str, Any], moments: list[float], operation: int) -> dict[str, Any]:
    """A run killed after `moments[0]` seconds, or right before an operation; perhaps once more; then resumed."""
    if operation < 0:
        killed = kill_after(moments[0], lambda: start(text, folder))
    else:
        killed = wait(fork(lambda: counting(lambda: start(text, folder), None, operation))) == -signal.SIGKILL
    step = checkpoint_of(folder)
    for moment in moments[1:]:
        kill_after(moment, lambda: go_on(text, folder))
    assert wait(fork(lambda: go_on(text, folder))) == 0
    found = run_of(folder)
    return {
        "killed": killed,
        "step": step,
        "operation": operation,
        "differs": [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)],
        "left": [str(p) for p in folder.rglob(".*") if p.name != ".lock"],
    }


def start(text: Path, folder: Path) -> None:
    from recurra.training import train

    train(text, out=folder, **SETTINGS)


def go_on(text: Path, folder: Path) -> None:
    from recurra.training import resume

    if (folder / "config.toml").exists():
        resume(folder)
    else:  # killed before there was anything to resume
        shutil.rmtree(folder, ignore_errors=True)
        start(text, folder)


def kill_after(moment: float, job: Callable[[], None]) -> bool:
    """Whether the job was still running when it was killed."""
    child = fork(job)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    return wait(child) == -signal.SIGKILL


def checkpoint_of(folder: Path) -> int:
    """The step of the checkpoint that a kill left; -1 when there was none yet."""
    for name in ("last", ".last.old"):
        if (folder / name / "training.json").exists():
            return int(json.loads((folder / name / "training.json").read_bytes())["step"])
    return -1


def fork(job: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        job()
        code = 0
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counting(job: Callable[[], None], count: Path | None, kill_at: int = -1) -> None:
    """Runs a job and counts its operations on the disk; at one of them it kills itself instead."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "replace", "mkdir", "truncate", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    job()
    if count is not None:
        count.write_text(str(done))


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(KILLS), str(OPERATIONS)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == KILLS + OPERATIONS
    assert [row for row in rows if row["differs"] or row["left"]] == []
    assert sum(row["killed"] for row in rows) >= OPERATIONS + KILLS // 4  # the kills did hit running runs
    assert len({row["step"] for row in rows}) >= 5  # and found them at different checkpoints


@pytest.mark.parametrize("damage", ["last/model.safetensors", "last/training.safetensors", "last/training.json"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    import recurra

    text = tmp_path / "text.txt"
    text.write_text("ab cd\n" * 300)
    recurra.train(text, out=tmp_path / "run", **{**SETTINGS, "steps": 4})
    file = tmp_path / "run" / damage
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(recurra.FileError, match=f"{file.name}.*field files"):
        recurra.resume(tmp_path / "run")


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process trains in the folder: its number."""
    code = f"""
import time
from pathlib import Path
from recurra.training.lock import alone
with alone(Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        try:
            yield other.pid
        finally:
            other.kill()


def test_one_trainer_at_a_time(tmp_path: Path) -> None:
    import recurra

    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 60)
    folder = tmp_path / "run"
    recurra.train(tmp_path / "a.txt", out=folder, **{**SETTINGS, "steps": 3})
    with held(folder) as number:
        with pytest.raises(recurra.FileError) as refused:
            recurra.resume(folder, steps=5)
        assert str(refused.value) == (
            f"{folder} is being trained by another process, number {number}; wait until it ends, or stop it first."
        )
    assert recurra.resume(folder, steps=5).step == 5  # the lock of a dead process holds nobody up


def test_a_file_system_without_locks_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recurra.training import lock

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.warns(RuntimeWarning) as told, lock.alone(tmp_path):
        pass
    assert [str(w.message) for w in told] == [
        f"the file system of {tmp_path} has no locks, so that nothing keeps a second process from training in it at "
        "the same time: start one only."
    ]


def test_a_folder_in_which_another_process_begins_is_not_taken_away(tmp_path: Path) -> None:
    import recurra

    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 60)
    folder = tmp_path / "run"
    folder.mkdir()
    with held(folder), pytest.raises(recurra.FileError, match="is being trained by another process"):
        recurra.train(tmp_path / "a.txt", out=folder, **SETTINGS)
    assert folder.is_dir()


def test_a_folder_in_which_a_run_was_killed_before_it_began_is_empty(tmp_path: Path) -> None:
    import recurra

    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 60)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("1\n")
    assert recurra.train(tmp_path / "a.txt", out=tmp_path / "run", **{**SETTINGS, "steps": 1}).step == 1


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import recurra
    from recurra.training import start

    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 60)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "write_config", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recurra.train(tmp_path / "a.txt", out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

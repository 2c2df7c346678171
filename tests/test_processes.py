"""A run in several processes is the run in one, to rounding: shared, stopped, killed, or started by torchrun.

Another process takes seconds to load torch, so that there are few runs here, and each shows much.
"""

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import contents

import recurra
from recurra.data.share import Share
from recurra.training import Observer, start
from recurra.training.settings import Settings
from recurra.training.setup import with_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loopback device is Linux's")
TEXT: dict[str, Any] = {
    "hidden": 8, "layers": 2, "embedding": 4, "batch": 5, "window": 8, "steps": 20, "eval_interval": 5,
    "log_interval": 1, "sample_length": 5, "dropout": 0.3, "threads": 1, "learning_rate": 0.02, "clip": 0.1,
}  # fmt: skip
ROWS: dict[str, Any] = {
    "hidden": 6, "embedding": 4, "batch": 4, "steps": 12, "eval_interval": 6, "log_interval": 1, "dropout": 0.3,
    "class_weights": "balanced", "threads": 1, "learning_rate": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _no_plot() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "plot_loss", lambda *_: None)  # which takes longer than a run
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a table, and a run on the text in one process."""
    place = tmp_path_factory.mktemp("processes")
    (place / "text.txt").write_text("".join(random.Random(1).choices("abcd efgh\n", k=2000)))
    words = random.Random(2).choices(["a fine day", "rain again and no end", "fine", "it rains"], [1, 5, 1, 2], k=31)
    rows = "".join(f"{text} {n},{'good' if 'fine' in text else 'bad'}\n" for n, text in enumerate(words))
    (place / "rows.csv").write_text("text,label\n" + rows)
    recurra.train(place / "text.txt", out=place / "one", **TEXT)
    return place


class At(Observer):
    """Does something after one of the steps."""

    def __init__(self, step: int, do: Callable[[], None]) -> None:
        self._step, self._do = step, do

    def on_step(self, run: Any, step: Any) -> None:
        if step.step == self._step:
            self._do()


def same(found: Path, wanted: Path) -> None:
    """The logs and the weights of two runs, to rounding."""
    tables = [np.genfromtxt(path / "metrics.csv", delimiter=",", names=True) for path in (found, wanted)]
    names = [name for name in tables[0].dtype.names if name != "seconds" and not name.endswith("per_second")]
    for name in names:
        np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-5, err_msg=name)
    weights = [recurra.load(path / "last").network.state_dict() for path in (found, wanted)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)


def test_two_processes_learn_from_a_text_what_one_does(place: Path) -> None:
    """Lanes are shared unevenly, with dropout, clipped gradients, and a state from window to window."""
    run = recurra.train(place / "text.txt", out=place / "two", processes=2, **TEXT)
    same(place / "two", place / "one")
    assert run.settings.processes == 2 and sum(row.clipped for row in run.history) > 0
    assert {path.name for path in place.glob("two/*")} == {path.name for path in place.glob("one/*")}
    assert not torch.distributed.is_initialized() and "GLOO_SOCKET_IFNAME" not in os.environ


def test_three_processes_learn_from_rows_what_one_does(place: Path) -> None:
    """Rows weigh by their labels, and the last batch has fewer rows than there are processes."""
    one = recurra.train(place / "rows.csv", out=place / "rows-1", **ROWS)
    recurra.train(place / "rows.csv", out=place / "rows-3", processes=3, **ROWS)
    same(place / "rows-3", place / "rows-1")
    assert one.model.data.rows["training"] % ROWS["batch"] in (1, 2)


def helpers() -> list[int]:
    """The processes that this one has started."""
    return [int(n) for n in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_a_process_that_is_killed_ends_all_and_one_process_goes_on(place: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.append(helpers()[-1])
        os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(recurra.TrainingError) as told:
        recurra.train(place / "text.txt", out=place / "killed", processes=2, observer=At(12, kill), **TEXT)
    assert str(told.value) == (
        "Process 1 of 2, counted from 0, has ended (killed by signal 9) at step 13. The checkpoint of step 10 is "
        f"whole: `recurra resume {place / 'killed'}` goes on from there."
    )
    assert not Path(f"/proc/{killed[0]}").exists() and not torch.distributed.is_initialized()
    run = recurra.resume(place / "killed", processes=1)
    assert (run.settings.processes, run.step) == (1, 20)
    same(place / "killed", place / "one")


def test_what_was_interrupted_goes_on_in_as_many_processes(place: Path) -> None:
    """In the middle of an epoch, with a state that each process has a share of."""
    with pytest.raises(KeyboardInterrupt, match="Interrupted at step 7 of 20"):
        recurra.train(
            place / "text.txt", out=place / "stopped", processes=2,
            observer=At(7, lambda: signal.raise_signal(signal.SIGINT)), **TEXT,
        )  # fmt: skip
    assert not helpers()
    assert recurra.resume(place / "stopped").settings.processes == 2
    assert contents(place / "stopped") == contents(place / "two")  # the same number of processes: the same bits


def test_torchrun_starts_them_too(place: Path) -> None:
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in TEXT.items()]
    root = Path(__file__).parent.parent
    path = os.pathsep.join([str(root), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "recurra", "train",
         str(place / "text.txt"), "--out", str(place / "torchrun"), *settings],
        capture_output=True, text=True, timeout=180, env={**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{place / 'torchrun'}\n"
    assert len(re.findall("^step 20 of 20: ", done.stderr, re.MULTILINE)) == 1
    same(place / "torchrun", place / "one")


def test_a_process_that_cannot_begin_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = start.Told

    def elsewhere(folder: str, config: Any) -> Any:
        (place / "later.txt").write_text("other text, which the second process finds\n" * 9)
        return told(folder, config)

    monkeypatch.setattr(start, "Told", elsewhere)
    (place / "later.txt").write_text("the first process reads this\n" * 40)
    with pytest.raises(
        recurra.TrainingError, match=r"Process 1 of 2.*has ended \(exit status 1: .*later.txt has changed"
    ):
        recurra.train(place / "later.txt", out=place / "later", processes=2, **TEXT)


def test_what_cannot_be_shared_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(recurra.InputError) as told:
        recurra.train(place / "text.txt", out=place / "no", processes=6, **TEXT)
    assert str(told.value) == "processes=6 are to share a batch of 5; give at most 5, or a larger batch."

    class Mine(recurra.cells.GRU):
        pass

    with pytest.raises(
        recurra.InputError, match=r"processes=2 starts processes that do not know your Mine; start your"
    ):
        recurra.train(place / "rows.csv", out=place / "no", cell=Mine, processes=2, **ROWS)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(recurra.InputError) as told:
        with_processes(Settings(processes=2, batch=8))
    assert str(told.value) == "processes=2 but torchrun has started 3; leave processes out."
    assert with_processes(Settings(batch=8)).processes == 3
    assert not (place / "no").exists()


@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_every_row_is_in_one_share_and_every_process_reads_some(rows: int, of: int) -> None:
    shares = [Share(rank, of) for rank in range(of)]
    assert [row for share in shares for row in range(rows)[share.counted(rows)]] == [*range(rows)]
    assert all(len(range(rows)[share.read(rows)]) >= 1 for share in shares)
    assert all(share.read(rows) == share.counted(rows) for share in shares if len(range(rows)[share.counted(rows)]))
    assert max(len(range(rows)[s.counted(rows)]) for s in shares) <= -(-rows // of)

"""What every test starts from: fixed seeds, at most two threads, strict mode off unless the test asks for it."""

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:  # two on two cores: a thread that waits must not keep the other from working
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from recurra.training.run import Run

hypothesis.settings.register_profile("recurra", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("recurra")

if built := os.environ.get("RECURRA_BUILT"):  # .ci/sanitize, .ci/tiles: a machine in the installed one's place
    spec = importlib.util.spec_from_file_location("recurra._native", built)
    assert spec is not None and spec.loader is not None
    sys.modules["recurra._native"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["recurra._native"])

THREADS = min(2, torch.get_num_threads())


@pytest.fixture(autouse=True)
def _same_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RECURRA_STRICT", raising=False)
    monkeypatch.delenv("RECURRA_SHOW", raising=False)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (for code under test that draws from the global generator)
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture
def strict() -> Iterator[None]:
    """A fall-back is an error: what the test runs, runs on the native machine."""
    import recurra

    with recurra.strict():
        yield


@pytest.fixture(scope="session", autouse=True)
def _as_many_threads_as_are_asked_for() -> None:
    """Whatever cores this machine has: results are to be the same for any number of threads."""
    from recurra.machine.program import library

    if library is not None:
        library.more_than_cores(True)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nothing wrote is NaN."""
    from recurra.machine.program import library

    if library is not None:
        library.poison(True)
    yield
    if library is not None:
        library.poison(False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A network that has learned the alphabet from abc.txt, beside its run folder. Read only."""
    import recurra

    place = tmp_path_factory.mktemp("alphabet")
    (place / "abc.txt").write_text("abcdefgh" * 250)
    return recurra.train(
        place / "abc.txt", out=place / "run", hidden=24, embedding=8, window=16, batch=4, steps=120, learning_rate=0.02,
        warmup=5, eval_interval=40, threads=1,
    )  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """The file of a text of nine letters and line ends, in no order."""
    path = tmp_path / "text.txt"
    path.write_text("".join(random.Random(1).choices("abcd efgh\n", k=2000)))
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for half a MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def dynamo() -> Iterator[None]:
    """torch.compile follows layers of torch.nn's kind, too."""
    import torch._dynamo.config

    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield

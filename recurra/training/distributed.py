"""Several processes train together: each reads its share of every batch, and all take the same step.

The first process leads: it alone validates, writes and shows, and says before each step that there is one. The others
follow it. Gradients are summed by DistributedDataParallel, over gloo. The mean over a batch is that of all of its rows,
by their weights, and a row drops what it would in one process, so that the result is that of one, to rounding.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recurra import files
from recurra.data.share import Share
from recurra.errors import TrainingError
from recurra.machine.masks import rows_from
from recurra.tasks.task import State, Task
from recurra.training import ranks
from recurra.training.checkpoint import load_state, packed_state
from recurra.training.updates import Updates

_STEP, _STATE, _END = range(3)  # what the first process says to the others
_PATIENCE = timedelta(days=1)  # with a process that is busy; one that has ended is known at once
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}  # processes that are started here need no network


class Team:
    """Who trains beside this process, as its loop sees them: nobody."""

    def begin(self, updates: Updates, step: int) -> None:
        """Before the first of the steps, with everything as it is to be in all processes."""

    def go_on(self) -> None:
        """Before each step."""

    def whole(self, state: State | None) -> State | None:
        """The carried state of all rows from that of this process."""
        return state

    def lost(self, error: RuntimeError) -> str:
        """Who has ended, when an error says that somebody has; else ""."""
        return ""


class Leader(Team):
    """This process is the first of several."""

    def __init__(self, size: int, helpers: "Helpers | None" = None) -> None:
        self._size, self._helpers = size, helpers

    def begin(self, updates: Updates, step: int) -> None:
        send(packed_state(updates.task.network, updates.optimiser, updates.state))
        _say(step)
        take_part(updates, Share(0, self._size))

    def go_on(self) -> None:
        _say(_STEP)

    def whole(self, state: State | None) -> State | None:
        if state is None or not dist.is_initialized():  # before the others are there all of it is here
            return state
        _say(_STATE)
        rest = [files.unpack_bytes(_received(rank)) for rank in range(1, self._size)]
        return tuple(torch.cat([part, *(r[str(n)] for r in rest)], 1) for n, part in enumerate(state))

    def end(self) -> None:
        """After the last step."""
        _say(_END)

    def lost(self, error: RuntimeError) -> str:
        if self._helpers is not None:
            return self._helpers.ended(wait=_is_of_gloo(error))
        return f"One of the {self._size} processes has ended" if _is_of_gloo(error) else ""


def follow(updates: Updates, rank: int, size: int) -> None:
    """Takes every step that the first process takes, until that says that it was the last."""
    tensors = files.unpack_bytes(received())
    updates.state = load_state(Path("the first process"), updates.task.network, updates.optimiser, tensors)
    step = _hear()
    take_part(updates, Share(rank, size))
    while (said := _hear()) != _END:
        if said == _STEP:
            updates.step(step)
            step += 1
        elif updates.state is not None:
            _send_to_first(files.pack({str(n): part for n, part in enumerate(updates.state)}))


def take_part(updates: Updates, share: Share) -> None:
    """From now on the updates read this share of each batch. The weights become those of the first process."""
    updates.task.share = share
    if updates.state is not None:
        updates.state = tuple(part[:, share.read(part.shape[1])].clone() for part in updates.state)
    updates.reading = _Shared(updates.task)


class _Shared:
    """Every process reads its share of a batch; gradients are those of the mean over all rows of the batch."""

    def __init__(self, task: Task) -> None:
        self._task, self._share = task, task.share
        # A batch may leave weights unused, as those of rare words under an adaptive softmax; and while such are looked
        # for, the order of the sums stays what it is in the first step.
        self._parallel = DistributedDataParallel(_Loss(task), find_unused_parameters=True)

    def loss(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State | None]:
        weights = self._task.weights(epoch, index)
        own = weights[self._share.counted(len(weights))].sum() / weights.sum()
        with rows_from(self._share.read(len(weights)).start):
            loss, after = self._parallel(epoch, index, state)
        return loss * float(own * self._share.of), after  # DistributedDataParallel takes the mean over the processes

    def mean(self, loss: float) -> float:
        total = torch.tensor(loss, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / self._share.of

    def forward(self, epoch: int, index: int, state: State | None) -> None:
        with rows_from(self._share.read(len(self._task.weights(epoch, index))).start):
            self._task.forward(epoch, index, state)


class _Loss(nn.Module):
    """A task's loss as a module: what DistributedDataParallel goes around."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network, self._task = task.network, task
        self.unused = nn.Parameter(torch.zeros(()))  # PyTorch warns when it looks for unused weights and finds none

    def forward(self, epoch: int, index: int, state: State | None) -> tuple[Tensor, State | None]:
        return self._task.loss(epoch, index, state)


# ------------------------------------------------------------------------------------------------------------- messages


def send(data: bytes) -> None:
    """From the first process to all others."""
    dist.broadcast(torch.tensor(len(data)), 0)
    dist.broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)


def received() -> bytes:
    """What the first process sends."""
    dist.broadcast(length := torch.tensor(0), 0)
    dist.broadcast(data := torch.empty(int(length), dtype=torch.uint8), 0)
    return data.numpy().tobytes()


def _send_to_first(data: bytes) -> None:
    dist.send(torch.tensor(len(data)), 0)
    dist.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)


def _received(rank: int) -> bytes:
    dist.recv(length := torch.tensor(0), rank)
    dist.recv(data := torch.empty(int(length), dtype=torch.uint8), rank)
    return data.numpy().tobytes()


def _say(what: int) -> None:
    dist.broadcast(torch.tensor(what), 0)


def _hear() -> int:
    dist.broadcast(said := torch.tensor(0), 0)
    return int(said)


def _is_of_gloo(error: RuntimeError) -> bool:
    return "gloo" in str(error) or "Connection" in str(error) or isinstance(error, dist.DistError)


# ------------------------------------------------------------------------------------------------------------ processes


@contextmanager
def leading(size: int, message: bytes) -> Iterator[Team]:
    """The team of the first process. The others, which are started here or by torchrun, get the message first."""
    if size == 1:
        yield Team()
    elif ranks.started():
        with joined(None, 0, size):
            send(message)
            yield from _led(Leader(size))
    else:
        with Helpers(size) as helpers, joined(helpers.store, 0, size):
            send(message)
            yield from _led(Leader(size, helpers))


def _led(leader: Leader) -> Iterator[Leader]:
    yield leader
    leader.end()  # not after an error: then the others see that this process has left


@contextmanager
def joined(store: Path | None, rank: int, size: int) -> Iterator[None]:
    """A member of the group of processes that meet at a file, or where torchrun says."""
    where = "env://" if store is None else f"file://{store}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Helpers:
    """The processes beside the first, on this machine. They end when it does, however it ends."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._folder = tempfile.TemporaryDirectory(prefix="recurra-")
        self.store = Path(self._folder.name) / "store"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Helpers":
        self._before = {name: os.environ.get(name) for name in _LOOPBACK}
        os.environ.update(_LOOPBACK)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        code = "from recurra.training.helper import main; main()"
        for rank in range(1, self._size):
            with open(self._messages(rank), "wb") as messages:
                process = subprocess.Popen(
                    [sys.executable, "-c", code, str(self.store), str(rank), str(self._size)],
                    env=environment,
                    stdin=subprocess.PIPE,  # whose end tells that the first process has ended
                    stdout=subprocess.DEVNULL,
                    stderr=messages,
                    start_new_session=True,  # Ctrl-C is for the first process
                )
            self._processes.append(process)
        self._wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def _wait_until_ready(self) -> None:
        """Until all have loaded what they need: who fails before would leave the first process waiting."""
        try:
            while not all(ready(self.store, rank).exists() for rank in range(1, self._size)):
                if who := self.ended():
                    raise TrainingError(f"{who} before it began; nothing was saved.")
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise

    def ended(self, wait: bool = False) -> str:
        """Which process has ended, and how; "" when all are there. wait: one surely has, and may take a moment."""
        deadline = time.monotonic() + (5 if wait else 0)
        while True:
            for rank, process in enumerate(self._processes, 1):
                if (code := process.poll()) is not None:
                    return f"Process {rank} of {self._size}, counted from 0, has ended ({self._how(rank, code)})"
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.05)

    def _how(self, rank: int, code: int) -> str:
        lines = self._messages(rank).read_text(errors="replace").strip().splitlines()
        status = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return f"{status}: {lines[-1]}" if lines else status

    def _messages(self, rank: int) -> Path:
        return self.store.with_name(f"messages-{rank}")


def ready(store: Path, rank: int) -> Path:
    """The file that a helper makes when it has loaded what it needs."""
    return store.with_name(f"ready-{rank}")

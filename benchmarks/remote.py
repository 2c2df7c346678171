"""A rival in a process of its own (benchmarks.rivals): it waits at a pipe, and runs only while it has its turn.

So its pool of threads has as many as everybody has, and cannot take the processor while others are measured.
"""

import contextlib
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.records import Answer, Task, Turn
from benchmarks.rivals import FOUND, GIVEN, RIVALS, TASK
from benchmarks.timing import Absent

COMMAND = (sys.executable, "-m", "benchmarks.rivals")
PATIENCE = 900.0  # seconds for an answer; compiling a loop of 128 steps takes four minutes
REST = 0.005  # seconds between two processes' turns, in which the threads of the last one fall asleep


class Rival:
    """The process; started when it is first asked for something.

    given: what it computes with, see benchmarks.race.given. Everything raises Absent, with the reason, when the rival
    cannot be had: a package that is not installed, an error of its own, no answer in time.
    """

    def __init__(self, task: Task, given: Callable[[], Mapping[str, Tensor]]) -> None:
        self.task, self.given = task, given
        self.labels = RIVALS[task.rival].labels
        self.ready: dict[str, float] = {}  # seconds from nothing to the first result, by label
        self.patience = PATIENCE
        self.reason = ""  # why it cannot be had, once that is known
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = contextlib.ExitStack()

    def values(self, label: str) -> dict[str, Tensor]:
        """Outputs, and gradients if it trains, of one of its variants."""
        return load_file(self._start() / FOUND.format(label))

    def turn(self, label: str, times: int) -> Answer:
        """Lets one of its variants run so many times, after a rest, and gives the others one."""
        self._start()
        time.sleep(REST)
        answer = self._ask(Turn(label, times))
        time.sleep(REST)
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._folder.close()

    def _start(self) -> Path:
        if self.reason:
            raise Absent(self.reason)
        if self._process is None:
            facts = RIVALS[self.task.rival]
            absent = [each for each in facts.packages if importlib.util.find_spec(each) is None]
            if absent:
                self._give_up(f"{' and '.join(absent)} not installed ({facts.remedy})")
            if facts.compiler and shutil.which("g++") is None:
                self._give_up("no g++ on PATH to compile with (apt install g++)")
            self._path = Path(self._folder.enter_context(tempfile.TemporaryDirectory(prefix="recurra-rival-")))
            self._launch(facts.environment(self.task.threads))
        return self._path

    def _launch(self, environment: dict[str, str]) -> None:
        tensors = {name: each.detach().contiguous() for name, each in self.given().items()}
        save_file(tensors, self._path / GIVEN)
        (self._path / TASK).write_bytes(msgspec.json.encode(self.task))
        command = [*COMMAND, str(self._path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=os.environ | environment, stdin=pipe, stdout=pipe, bufsize=0)
        self.ready = self._answer().ready

    def _ask(self, turn: Turn) -> Answer:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: the missing answer says so
            self._process.stdin.write(msgspec.json.encode(turn) + b"\n")
        return self._answer()

    def _answer(self) -> Answer:
        assert self._process is not None and self._process.stdout is not None
        name = self.task.rival
        if not select.select([self._process.stdout], [], [], self.patience)[0]:
            self._give_up(f"{name} gave no answer in {self.patience:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            self._give_up(f"{name} ended with status {self._process.wait()}, see its messages")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            self._give_up(f"{name}: {answer.error}")
        return answer

    def _give_up(self, reason: str) -> NoReturn:
        self.reason = reason
        self.close()
        raise Absent(reason)


@dataclass
class Remote:
    """A variant of a rival as a contestant; elsewhere: processor seconds of its process during its turns."""

    name: str
    rival: Rival
    label: str = ""
    work: float = 1.0
    elsewhere: float = field(default=0.0, init=False)

    @property
    def ready(self) -> float:
        return self.rival.ready[self.label]

    def seconds(self, times: int) -> float:
        answer = self.rival.turn(self.label, times)
        self.elsewhere += answer.processor
        return answer.seconds / self.work


def task(rival: str, cell: str, shape: tuple[int, int, int]) -> Task:
    """For as many threads as this process runs."""
    return Task(rival, cell, shape, torch.get_num_threads())

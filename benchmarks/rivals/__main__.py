"""A rival's process: `python -m benchmarks.rivals FOLDER`, started and asked by benchmarks.remote.

It prepares every variant, says so in one line, and then answers turn after turn, a line each; in between it waits.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.records import Answer, Task, Turn
from benchmarks.rivals import FOUND, GIVEN, TASK

MODULES = {"jax": "scan_in_jax", "onnxruntime": "nodes_in_onnx", "compile": "compiled_loop"}
Arrays = Mapping[str, np.ndarray]


class Variant(Protocol):
    """values: outputs, and gradients for the given cotangents. call: what is timed, finished when it returns."""

    def values(self) -> Arrays: ...
    def call(self) -> None: ...


def prepare(task: Task, folder: Path) -> tuple[dict[str, Callable[[], None]], Answer]:
    """Makes the variants, runs each once, and leaves their values in the folder."""
    ready, calls = {}, {}
    variants = importlib.import_module(f"benchmarks.rivals.{MODULES[task.rival]}").variants
    for label, make in variants(task, load_file(folder / GIVEN)).items():
        start = time.perf_counter()
        variant: Variant = make()
        variant.call()
        ready[label] = time.perf_counter() - start
        found = {name: np.ascontiguousarray(each) for name, each in variant.values().items()}
        save_file(found, folder / FOUND.format(label))
        calls[label] = variant.call
    return calls, Answer(ready=ready)


def turn(call: Callable[[], None], times: int) -> Answer:
    """As benchmarks.timing does it: several calls follow one that is not timed."""
    processor = time.process_time()
    if times > 1:
        call()
    start = time.perf_counter()
    for _ in range(times):
        call()
    seconds = (time.perf_counter() - start) / times
    return Answer(seconds=seconds, processor=time.process_time() - processor)


def converse(task: Task, folder: Path, ask: BinaryIO, tell: Callable[[Answer], None]) -> None:
    calls, answer = prepare(task, folder)
    tell(answer)
    for line in ask:
        wanted = msgspec.json.decode(line, type=Turn)
        tell(turn(calls[wanted.label], wanted.times))


def main() -> None:
    folder = Path(sys.argv[1])
    task = msgspec.json.decode((folder / TASK).read_bytes(), type=Task)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a package prints must not look like an answer

    def tell(answer: Answer) -> None:
        out.write(msgspec.json.encode(answer) + b"\n")

    try:
        converse(task, folder, sys.stdin.buffer, tell)
    except Exception as error:  # noqa: BLE001 told to the one who asks, whose other rows go on
        tell(Answer(error=f"{type(error).__name__}: {error}".splitlines()[0]))


if __name__ == "__main__":
    main()

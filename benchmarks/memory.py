"""Peak memory of training: `python -m benchmarks.memory WHO CELL B T H THREADS` prints its bytes, in its own process.

Counted is what comes on top of a process in which both libraries are loaded, layer, input and the gradient of the
output are made, and a short sequence has been trained on, which loads the rest of PyTorch's code and traces the cell:
all that training steps keep or need on the way, the gradients they return included.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.layers import trio
from benchmarks.race import Whole, gradients, rows
from benchmarks.records import Time
from benchmarks.timing import Absent, Measured

CALLS = 4  # the first packs, traces and allocates; what a later one needs more would be seen
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory(Whole):
    """Bytes as the times of a row: the rival's peak divided by ours. The variant of PyTorch that needs less counts."""

    def run(self, effort: object) -> Measured:
        if not REFERENCES.exists():
            raise Absent("peak memory is read from /proc, which is not there")
        found = {who: self.peak(who) for who in ("ours", "mkldnn on", "mkldnn off")}
        label = min(("mkldnn on", "mkldnn off"), key=found.__getitem__)
        return Measured({"ours": Time(found["ours"], found["ours"]), "torch": Time(found[label], found[label], label)})

    def peak(self, who: str) -> float:
        numbers = [str(n) for n in (*self.shape, torch.get_num_threads())]
        command = [sys.executable, "-m", "benchmarks.memory", who, self.cell, *numbers]
        return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


class Thrift(Memory):
    """The same of memory="sqrt", beside a layer that keeps all."""

    def run(self, effort: object) -> Measured:
        if not REFERENCES.exists():
            raise Absent("peak memory is read from /proc, which is not there")
        root, whole = self.peak("root"), self.peak("ours")
        return Measured({"ours": Time(root, root), "plain": Time(whole, whole)})


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since the peak was last forgotten."""
    (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith(name + ":"))
    return int(line.split()[1]) * 1024


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that a few calls have in use at a time, beyond those in use before."""
    REFERENCES.write_text("5")  # forget the peak
    before = resident("VmRSS")
    for _ in range(CALLS):
        call()
    return resident("VmHWM") - before


def main() -> None:
    who, cell, *numbers = sys.argv[1:]
    batch, time, width, threads = map(int, numbers)
    torch.set_num_threads(threads)
    theirs, ours, _ = trio(cell, width)
    layer = theirs if who.startswith("mkldnn") else ours
    if who == "root":
        setattr(layer, "memory", "sqrt")  # noqa: B010 (of any module)
    x, dy = rows((batch, time, width), grad=True)
    short = rows((batch, 8, width), grad=True)
    with torch.backends.mkldnn.flags(enabled=who != "mkldnn off", allow_tf32=False):
        gradients(layer, layer, *short)()
        print(peak_of(gradients(layer, layer, x, dy)))


if __name__ == "__main__":
    main()

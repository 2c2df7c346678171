"""The measuring processes as seen from the one that judges: one that fails loses its case, and the others go on."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.goals import GOALS
from benchmarks.machine import Machine
from benchmarks.records import Result, Setting

KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}  # glibc gives nothing back to the system
CHILD = (sys.executable, "-m", "benchmarks.child")


def measured(setting: Setting, malloc: str, command: Sequence[str] = CHILD) -> Iterator[Machine | Result]:
    """Runs a setting in a process of its own: first its machine, then for each case its times, or why there are none.

    In strict mode, so that a fall-back is an error and not a slow row. A process that ends in the middle of a case
    loses that case, and another one does the rest; one that ends before it could begin loses all that are left.
    """
    environment = os.environ | {"RECURRA_STRICT": "1"} | (KEEPING if malloc == "keeping" else {})
    goals = [goal for goal in GOALS if goal.id in setting.ids]
    left = list(dict.fromkeys(goal.case for goal in goals))
    while left:
        ids = [goal.id for goal in goals if goal.case in left]
        words = [*command, msgspec.json.encode(msgspec.structs.replace(setting, ids=ids)).decode()]
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            begun = False
            for line in process.stdout:
                if begun:
                    result = msgspec.json.decode(line, type=Result)
                    left.remove(result.case)
                    yield result
                else:
                    yield msgspec.json.decode(line, type=Machine)
                begun = True
        lost = left[:1] if begun else list(left)
        left = left[len(lost) :]
        for case in lost:
            yield Result(*case, lost=f"the measuring process ended with status {process.returncode}, see its messages")

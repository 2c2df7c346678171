"""One pass over the cases in one process: `python -m benchmarks.child SETTING`, one JSON object a line on stdout.

The allocator is that of the process, so the parent (benchmarks.children) starts one for each setting.
"""

import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator

import msgspec
import torch

from benchmarks import parts
from benchmarks.cases import CASES
from benchmarks.goals import GOALS, Goal
from benchmarks.machine import Machine, commit, processor, rivals, version
from benchmarks.records import Result, Setting
from benchmarks.timing import QUICK, Absent, Effort

SLOW = {"compile": "left out by --quick: it compiles for minutes"}


def machine() -> Machine:
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 0,
        system=platform.platform(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        recurra=version(),
        commit=commit(),
        rivals=rivals(),
    )


def rate(threads: int) -> float:
    """Multiply-adds a second; 0 where there is no compiler to build what measures them."""
    try:
        return parts.rate(threads)
    except (OSError, subprocess.CalledProcessError):
        return 0.0


def measured(setting: Setting) -> Iterator[Result]:
    possible = rate(setting.threads)
    goals = [goal for goal in GOALS if goal.id in setting.ids]
    for case in dict.fromkeys(goal.case for goal in goals):
        torch.manual_seed(0)
        yield one([goal for goal in goals if goal.case == case], setting.quick, possible)


def one(goals: list[Goal], quick: bool, rate: float) -> Result:
    """One case, among those who are named in its goals."""
    kind, cell, shape = goals[0].case
    names = {name for goal in goals for name in (goal.who, goal.against)}
    left_out = {name: SLOW[name] for name in names & SLOW.keys() if quick}
    try:
        race = CASES[kind](cell, shape).only(names - left_out.keys())
        found = race.run(QUICK if quick else Effort())
    except Absent as reason:
        return Result(kind, cell, shape, missing=dict.fromkeys(names, str(reason)))
    except Exception as error:  # noqa: BLE001 reported and counted as wrong: it must not hide the other cases
        return Result(kind, cell, shape, error=f"{type(error).__name__}: {error}")
    return Result(
        kind,
        cell,
        shape,
        times=found.times,
        differences=found.differences,
        ready=found.ready,
        missing=found.missing | left_out,
        rounds=found.rounds,
        other=found.other,
        multiply_adds=race.multiply_adds,
        rate=rate,
    )


def main() -> None:
    warnings.filterwarnings("ignore", "TF32 acceleration", UserWarning)  # switching mkldnn sets all its flags
    setting = msgspec.json.decode(sys.argv[1], type=Setting)
    torch.set_num_threads(setting.threads)
    write = sys.stdout.buffer
    write.write(msgspec.json.encode(machine()) + b"\n")
    write.flush()
    for result in measured(setting):
        write.write(msgspec.json.encode(result) + b"\n")
        write.flush()


if __name__ == "__main__":
    main()

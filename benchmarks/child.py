"""One pass over the cases in one process: `python -m benchmarks.child SETTING`, one JSON object a line on stdout.

The allocator is that of the process, so the parent (benchmarks.__main__) starts one for each setting.
"""

import os
import platform
import sys
import warnings
from collections.abc import Iterator

import msgspec
import torch

from benchmarks import parts
from benchmarks.cases import CASES
from benchmarks.goals import GOALS
from benchmarks.machine import Machine, commit, processor, version
from benchmarks.records import Result, Setting
from benchmarks.timing import QUICK, Effort


def machine() -> Machine:
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 0,
        system=platform.platform(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        recurra=version(),
        commit=commit(),
    )


def measured(setting: Setting) -> Iterator[Result]:
    effort = QUICK if setting.quick else Effort()
    rate = parts.rate(setting.threads)
    goals = [goal for goal in GOALS if goal.id in setting.ids]
    for kind, cell, shape in dict.fromkeys(goal.case for goal in goals):
        names = {name for goal in goals if goal.case == (kind, cell, shape) for name in (goal.who, goal.against)}
        torch.manual_seed(0)
        try:
            case = CASES[kind](cell, shape).only(names)
            found, worst = case.run(effort)
        except Exception as error:  # noqa: BLE001 reported and counted as wrong: it must not hide the other cases
            yield Result(kind, cell, shape, error=f"{type(error).__name__}: {error}")
        else:
            yield Result(kind, cell, shape, found.times, worst, found.rounds, found.other, case.multiply_adds, rate)


def main() -> None:
    warnings.filterwarnings("ignore", "TF32 acceleration", UserWarning)  # switching mkldnn sets all its flags
    setting = msgspec.json.decode(sys.argv[1], type=Setting)
    torch.set_num_threads(setting.threads)
    write = sys.stdout.buffer
    write.write(msgspec.json.encode(machine()) + b"\n")
    for result in measured(setting):
        write.write(msgspec.json.encode(result) + b"\n")
        write.flush()


if __name__ == "__main__":
    main()

"""python -m benchmarks: right first, then how fast. See docs/benchmarks.md for what is measured and how to read it."""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.goals import GOALS, Goal
from benchmarks.machine import Machine
from benchmarks.records import Result, Run, Setting

KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}  # glibc gives nothing back to the system


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Check, then time, every row of the goals.")
    parser.add_argument("--rows", metavar="REGEX", default="", help="only goals whose id matches, e.g. train/gru")
    parser.add_argument("--list", action="store_true", help="print the ids of the goals and stop")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: 1,2)")
    parser.add_argument("--runs", type=int, help="runs under the default malloc (default: 3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="one short run, no second malloc")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every time to FILE")
    parser.add_argument("--write", metavar="PAGE", type=Path, help="put the table into this page")
    return parser.parse_args(words)


def child(setting: Setting, malloc: str) -> Iterator[Machine | Result]:
    """Runs one setting in a process of its own; in strict mode, so that a fall-back is an error and not a slow row."""
    environment = os.environ | {"RECURRA_STRICT": "1"} | (KEEPING if malloc == "keeping" else {})
    command = [sys.executable, "-m", "benchmarks.child", msgspec.json.encode(setting).decode()]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            yield msgspec.json.decode(line, type=Result) if number else msgspec.json.decode(line, type=Machine)
    if process.returncode:
        raise SystemExit(f"The measuring process ended with status {process.returncode}, see above.")


def settings(threads: list[int], runs: int, quick: bool) -> Iterator[tuple[int, str, int]]:
    """(run, malloc, threads): the runs of one setting lie as far apart as they can. The keeping malloc is run once."""
    for number in range(runs):
        for count in threads:
            yield number, "default", count
    if not quick:
        for count in threads:
            yield 0, "keeping", count


def tell(goals: list[Goal], run: Run) -> None:
    """One line a goal, as soon as it is known."""
    result = run.result
    others = "" if result.other is None else f", others {result.other:.0%}"
    for goal in goals:
        if goal.case != result.case:
            continue
        text = result.error
        if not text:
            rival = f"{goal.against} {result.times[goal.against].label}".strip()
            text = f"{report.ratio(goal, result):.2f}, goal {goal.at(run.threads):.2f}"
            text += f" (against {rival}, difference {result.worst:.0e}{others})"
        print(f"{run.threads}t {run.malloc} {goal.id}: {text}", flush=True)


def main() -> int:
    chosen = arguments()
    goals = [goal for goal in GOALS if re.search(chosen.rows, goal.id)]
    if chosen.list or not goals:
        print("\n".join(goal.id for goal in goals) or f"no goal matches {chosen.rows}")
        return 0 if goals else 2
    threads = [int(word) for word in chosen.threads.split(",")]
    count = chosen.runs or (1 if chosen.quick else 3)
    runs: list[Run] = []
    machine: Machine | None = None
    start = time.monotonic()
    for number, malloc, width in settings(threads, count, chosen.quick):
        for found in child(Setting([goal.id for goal in goals], width, chosen.quick), malloc):
            if isinstance(found, Machine):
                if machine is None:
                    print(found, flush=True)
                machine = found
            else:
                runs.append(Run(width, malloc, number, found))
                tell(goals, runs[-1])
    assert machine is not None
    lines = [report.line(goal, width, runs) for width in threads for goal in goals]
    print(f"\n{report.table(lines)}\n\n{report.summary(lines)}, in {(time.monotonic() - start) / 60:.1f} minutes")
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": machine, "runs": runs})))
    if chosen.write:
        report.write(chosen.write, report.page(machine, time.strftime("%Y-%m-%d"), count, lines))
    return 1 if any(line.error for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())

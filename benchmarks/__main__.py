"""python -m benchmarks: right first, then how fast. See docs/benchmarks.md for what is measured and how to read it."""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks import children, report
from benchmarks.goals import GOALS, Goal
from benchmarks.machine import Machine
from benchmarks.records import Result, Run, Setting


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
        text = result.error or result.lost or report.missing(goal, result)
        if not text:
            rival = report.variant(goal, result)
            text = f"{report.ratio(goal, result):.2f}, goal {report.wanted(goal, run.threads)} (against {rival}"
            text += "".join(f", {who} off by {size:.0e}" for who, size in result.differences.items()) + f"{others})"
        print(f"{run.threads}t {run.malloc} {goal.id}: {text}", flush=True)


def run(goals: list[Goal], threads: list[int], count: int, quick: bool) -> tuple[list[Machine], list[Run]]:
    """Measures, telling every row as soon as it is known; with it the different machines or checkouts that were met."""
    machines: list[Machine] = []
    runs: list[Run] = []
    for number, malloc, width in settings(threads, count, quick):
        for found in children.measured(Setting([goal.id for goal in goals], width, quick), malloc):
            if isinstance(found, Result):
                runs.append(Run(width, malloc, number, found))
                tell(goals, runs[-1])
            elif found not in machines:
                machines.append(found)
                print(found, flush=True)
    return machines, runs


def main() -> int:
    chosen = arguments()
    goals = [goal for goal in GOALS if re.search(chosen.rows, goal.id)]
    if chosen.list or not goals:
        print("\n".join(goal.id for goal in goals) or f"no goal matches {chosen.rows}")
        return 0 if goals else 2
    threads = [int(word) for word in chosen.threads.split(",")]
    count = chosen.runs or (1 if chosen.quick else 3)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recurra-bench-") as compiled:  # so that every benchmark compiles once
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled
        machines, runs = run(goals, threads, count, chosen.quick)
    lines = [report.line(goal, width, runs) for width in threads for goal in goals]
    print(f"\n{report.page(machines, time.strftime('%Y-%m-%d'), count, lines)}")
    print(f"\n{report.summary(lines)}, in {(time.monotonic() - start) / 60:.1f} minutes")
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode({"machines": machines, "runs": runs})))
    if chosen.write:
        report.write(chosen.write, report.page(machines, time.strftime("%Y-%m-%d"), count, lines))
    return 1 if any(line.error or line.lost for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())

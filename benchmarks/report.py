"""From measurements to the table: ratios per goal, their median over the runs, reached or not."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.goals import NOISE, QUIET, Goal
from benchmarks.machine import Machine
from benchmarks.records import Result, Run

BEGIN, END = "<!-- benchmarks: begin, written by `make bench` -->", "<!-- benchmarks: end -->"
KINDS = {
    "train": "training step",
    "infer": "inference",
    "call": "one call, inference",
    "lengths": "unequal lengths 20 to 128, training step",
    "stream": "streaming, one step",
    "width": "training step, per unit of work",
    "product": "the recurrent product alone",
    "pointwise": "the interpreted pointwise part alone",
    "own": "user's own cell, training step",
    "prepare": "trace, passes and packing",
}
RIVALS = {"torch": "torch.nn", "packed": "pack_padded_sequence", "padded": "the padded batch", "cell": "nn.LSTMCell"}
RIVALS |= {
    "FMA rate": "the rate of multiply-adds",
    "fused loop": "one fused C++ loop",
    "loop": "its Python loop",
    "ours": "recurra's own",
}


def ratio(goal: Goal, result: Result) -> float:
    """The rival's time / ours."""
    return result.times[goal.against].median / result.times[goal.who].median


def most(goal: Goal, result: Result) -> float | None:
    """The ratio of a layer that does the products at the rate of multiply-adds, and everything else in no time."""
    if goal.who != "ours" or not result.multiply_adds or not result.rate:
        return None
    return result.times[goal.against].median * result.rate / result.multiply_adds


class Line(msgspec.Struct, frozen=True):
    """A goal at one number of threads: the ratios of all runs, and the case's error if any run had one."""

    goal: Goal
    threads: int
    ratios: list[float]
    kept: list[float]  # under the malloc that keeps memory
    bounds: list[float]  # what the processor's multiply-adds allow, see most()
    rivals: list[str]  # variants that were the fastest
    busy: bool  # other processes took more than QUIET of a core in some run
    error: str

    @property
    def median(self) -> float | None:
        return None if self.error or not self.ratios else statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        if self.error:
            return "WRONG: " + self.error
        if self.median is None:
            return "not run"
        wanted = self.goal.at(self.threads)
        if self.median >= wanted:
            return "reached"
        if self.goal.met(self.median, self.threads):
            return f"reached ({self.median / wanted:.2f} of it)"
        return f"no ({self.median / wanted:.2f} of it)"


def line(goal: Goal, threads: int, runs: Sequence[Run]) -> Line:
    of_case = [run for run in runs if run.threads == threads and run.result.case == goal.case]
    good = [run for run in of_case if not run.result.error]
    plain = [run.result for run in good if run.malloc == "default"]
    return Line(
        goal,
        threads,
        ratios=[ratio(goal, result) for result in plain],
        kept=[ratio(goal, run.result) for run in good if run.malloc == "keeping"],
        bounds=[bound for result in plain if (bound := most(goal, result)) is not None],
        rivals=sorted({result.times[goal.against].label for result in plain} - {""}),
        busy=any((result.other or 0) > QUIET for result in plain),
        error=next((run.result.error for run in of_case if run.result.error), ""),
    )


def title(goal: Goal) -> str:
    batch, time, width = goal.shape
    if goal.kind == "prepare":
        return f"{KINDS[goal.kind]} of {goal.who}, H = {width}"
    who = "a user's copy of " if goal.who == "copy" else ""
    cell = {"elman": "Elman"}.get(goal.cell, goal.cell.upper() if goal.cell in ("gru", "lstm") else goal.cell)
    return f"{who}{cell} ({batch}, {time}, {width}), {KINDS[goal.kind]}"


def table(all_lines: Sequence[Line]) -> str:
    """Markdown. One row a goal and number of threads."""
    head = ["case (B, T, H)", "threads", "rival", "ratio", "all runs", "keeping malloc", "goal", "bound", "verdict"]
    cells = [head, ["---"] * len(head), *map(row, all_lines)]
    return "\n".join("| " + " | ".join(each) + " |" for each in cells)


def row(line: Line) -> list[str]:
    goal = line.goal
    rival = RIVALS.get(goal.against, goal.against) + (f" ({' or '.join(line.rivals)})" if line.rivals else "")
    median = "-" if line.median is None else f"**{line.median:.2f}**" + ("*" if line.busy else "")
    hope = f" (hope: {goal.hope})" if goal.hope else ""
    return [
        title(goal),
        str(line.threads),
        rival,
        median,
        " ".join(f"{each:.2f}" for each in line.ratios) or "-",
        f"{statistics.median(line.kept):.2f}" if line.kept else "-",
        f"{goal.at(line.threads):.2f}{hope}",
        f"{statistics.median(line.bounds):.1f}" if line.bounds else "",
        line.verdict.replace("|", "/"),
    ]


def summary(all_lines: Sequence[Line]) -> str:
    run = [line for line in all_lines if line.error or line.median is not None]
    reached = sum(line.verdict.startswith("reached") for line in run)
    wrong = sum(bool(line.error) for line in run)
    return f"{reached} of {len(run)} reached" + (f", {wrong} WRONG" if wrong else "")


def page(machine: Machine, when: str, runs: int, all_lines: Sequence[Line]) -> str:
    """What is written between the marks of docs/benchmarks.md."""
    return "\n\n".join(
        [
            f"Measured {when} on {machine}. Medians of {runs} run(s); a goal is reached at {NOISE} of it.",
            f"{summary(all_lines)}. `*`: other processes took more than {QUIET:.0%} of a core in one of the runs.",
            table(all_lines),
        ]
    )


def write(path: Path, text: str) -> None:
    """Replaces what stands between the two marks of the page."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for the table: it needs the lines '{BEGIN}' and '{END}'.")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

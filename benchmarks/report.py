"""From measurements to the table: ratios per goal, their median over the runs, reached or not, and where rivals win."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.goals import NOISE, QUIET, TOLD, Goal
from benchmarks.machine import Machine
from benchmarks.records import Result, Run

BEGIN, END = "<!-- benchmarks: begin, written by `make bench` -->", "<!-- benchmarks: end -->"
KINDS = {
    "train": "training step",
    "directions": "both directions, training step",
    "loop": "two layers, a step of the trainer",
    "reading": "reading 10,000 rows",
    "infer": "inference",
    "call": "one call, inference",
    "lengths": "unequal lengths 20 to 128, training step",
    "stream": "streaming, one step",
    "width": "training step, per unit of work",
    "second": "second derivatives",
    "steps": "training, per step",
    "steps forward": "inference, per step",
    "product": "the recurrent product alone",
    "pointwise": "the interpreted pointwise part alone",
    "own": "user's own cell, training step",
    "linear": "user's own cell, training step",
    "resets": "resets at 1 % of the steps, training step",
    "record": "all gates recorded, training step",
    "regularised": "zoneout and variational dropout, training step",
    "decaying": "states that decay to nothing, training step",
    "decaying forward": "states that decay to nothing, inference",
    "memory": "peak memory of training",
    "thrift": 'memory="sqrt", training step',
    "thrift memory": 'memory="sqrt", peak memory of training',
    "package": "training step",
    "prepare": "trace, passes and packing",
    "cuda": "training step on a GPU",
}
KINDS |= {
    f"{kind} {precision}": f"{KINDS[kind]}, {precision}"
    for kind in ("train", "infer", "own", "stream")
    for precision in ("bf16", "fp32-fast", "int8")
}
RIVALS = {  # what a person could use instead
    "torch": "torch",
    "autocast": "torch under bf16 autocast",
    "packed": "pack_padded_sequence",
    "padded": "the padded batch",
    "cell": "nn.LSTMCell",
    "loop": "its Python loop",
    "cuDNN": "torch.nn on cuDNN",
    "compile": "torch.compile of its Python loop",
    "jax": "JAX",
    "torchrecurrent": "torchrecurrent",
    "onnxruntime": "onnxruntime",
}
MEASURES = {  # what the processor, or Recurra itself, can do
    "FMA rate": "the rate of multiply-adds",
    "fused loop": "one fused C++ loop",
    "ours": "recurra's own",
    "plain": "the same layer without",
    "fastest": "the fastest length",
}


def ratio(goal: Goal, result: Result) -> float:
    """The rival's time / ours."""
    return result.times[goal.against].median / result.times[goal.who].median


def missing(goal: Goal, result: Result) -> str:
    """Why the rival of this goal was not there; nothing when it was."""
    return result.missing.get(goal.against, "")


def wanted(goal: Goal, threads: int) -> str:
    return "-" if goal.at(threads) == TOLD else f"{goal.at(threads):.2f}"


def variant(goal: Goal, result: Result) -> str:
    """The rival by name, with the variant of it that was the fastest."""
    name = (RIVALS | MEASURES).get(goal.against, goal.against)
    label = result.times[goal.against].label
    return f"{name} ({label})" if label and label != goal.against else name


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
    notes: list[str]  # what else is to be said of the rival
    busy: bool  # other processes took more than QUIET of a core in some run
    error: str
    lost: str  # why a run has nothing
    missing: str  # why the rival was not there

    @property
    def median(self) -> float | None:
        return None if self.error or not self.ratios else statistics.median(self.ratios)

    @property
    def counts(self) -> bool:
        """Whether it is a goal that was run."""
        return bool(self.error) or (self.median is not None and self.goal.at(self.threads) != TOLD)

    @property
    def verdict(self) -> str:
        if self.error:
            return "WRONG: " + self.error
        if self.median is None:
            return f"not run: {self.missing or self.lost}" if self.missing or self.lost else "not run"
        return self.judged + (f"; a run was lost: {self.lost}" if self.lost else "")

    @property
    def judged(self) -> str:
        assert self.median is not None
        goal = self.goal.at(self.threads)
        if goal == TOLD:
            return "no goal"
        if self.median >= goal:
            return "reached"
        if self.goal.met(self.median, self.threads):
            return f"reached ({self.median / goal:.2f} of it)"
        return f"no ({self.median / goal:.2f} of it)"


def line(goal: Goal, threads: int, runs: Sequence[Run]) -> Line:
    of_case = [run for run in runs if run.threads == threads and run.result.case == goal.case]
    good = [run for run in of_case if {goal.who, goal.against} <= run.result.times.keys()]
    plain = [run.result for run in good if run.malloc == "default"]
    return Line(
        goal,
        threads,
        ratios=[ratio(goal, result) for result in plain],
        kept=[ratio(goal, run.result) for run in good if run.malloc == "keeping"],
        bounds=[bound for result in plain if (bound := most(goal, result)) is not None],
        rivals=sorted({variant(goal, result) for result in plain}),
        notes=notes(goal, plain),
        busy=any((result.other or 0) > QUIET for result in plain),
        error=next((run.result.error for run in of_case if run.result.error), ""),
        lost=next((run.result.lost for run in of_case if run.result.lost), ""),
        missing=next((why for run in of_case if (why := missing(goal, run.result))), ""),
    )


def notes(goal: Goal, results: Sequence[Result]) -> list[str]:
    """How long both took to get ready, and how far the rival is off where it is not required to be right."""
    found = []
    ready = [result.ready for result in results if {goal.who, goal.against} <= result.ready.keys()]
    if ready:
        theirs, ours = (max(each[name] for each in ready) for name in (goal.against, goal.who))
        found.append(f"ready in {theirs:.1f} s, we in {ours:.2f} s")
    labels = {result.times[goal.against].label for result in results}
    sizes = [result.differences[label] for result in results for label in labels & result.differences.keys()]
    if goal.kind == "linear" and sizes:
        ours = max(result.differences["ours"] for result in results)
        found.append(f"off by {max(sizes):.0e}, we by {ours:.0e}")
    return found


def title(goal: Goal) -> str:
    batch, time, width = goal.shape
    if goal.kind == "prepare":
        return f"{KINDS[goal.kind]} of {goal.who}, H = {width}"
    known = {"elman": "Elman", "mingru": "minGRU", "leaky": "leaky integrator", "gru": "GRU", "lstm": "LSTM"}
    cell = " ".join(known.get(word, word) for word in goal.cell.split())
    if goal.kind in ("steps", "steps forward"):
        return f"{cell} ({batch}, {goal.who.removeprefix('T = ')}, {width}), {KINDS[goal.kind]}"
    who = "a user's copy of " if goal.who == "copy" else ""
    return f"{who}{cell} ({batch}, {time}, {width}), {KINDS[goal.kind]}"


def table(all_lines: Sequence[Line]) -> str:
    """Markdown. One row a goal and number of threads."""
    head = ["case (B, T, H)", "threads", "rival", "ratio", "all runs", "keeping malloc", "goal", "bound", "verdict"]
    cells = [head, ["---"] * len(head), *map(row, all_lines)]
    return "\n".join("| " + " | ".join(each) + " |" for each in cells)


def row(line: Line) -> list[str]:
    goal = line.goal
    rival = " or ".join(line.rivals) or (RIVALS | MEASURES).get(goal.against, goal.against)
    median = "-" if line.median is None else f"**{line.median:.2f}**" + ("*" if line.busy else "")
    hope = f" (hope: {goal.hope})" if goal.hope else ""
    return [
        title(goal),
        str(line.threads),
        "; ".join([rival, *line.notes]),
        median,
        " ".join(f"{each:.2f}" for each in line.ratios) or "-",
        f"{statistics.median(line.kept):.2f}" if line.kept else "-",
        f"{wanted(goal, line.threads)}{hope}",
        f"{statistics.median(line.bounds):.1f}" if line.bounds else "",
        line.verdict.replace("|", "/"),
    ]


def summary(all_lines: Sequence[Line]) -> str:
    run = [line for line in all_lines if line.counts]
    reached = sum(line.verdict.startswith("reached") for line in run)
    wrong = sum(bool(line.error) for line in run)
    lost = sum(bool(line.lost) for line in all_lines)
    told = [f"{reached} of {len(run)} reached"]
    told += [f"{wrong} WRONG"] * bool(wrong) + [f"{lost} lost a run"] * bool(lost)
    return ", ".join(told)


def defeats(all_lines: Sequence[Line]) -> str:
    """Where a rival is faster, worst first. Bounds, and comparisons of ours with ours, are no rivals."""
    lost = [line for line in all_lines if line.goal.against in RIVALS and line.median is not None and line.median < 1]
    if not lost:
        return "**Where rivals win.** In none of the rows that were run."
    lost.sort(key=lambda line: line.median or 0)
    items = [
        f"- {title(line.goal)}, {line.threads} thread{'s' * (line.threads > 1)}: {' or '.join(line.rivals)} takes "
        f"{line.median:.2f} of our time."
        for line in lost
    ]
    return "\n".join([f"**Where rivals win.** In {len(lost)} rows somebody else is faster:", "", *items])


def page(machines: Sequence[Machine], when: str, runs: int, all_lines: Sequence[Line]) -> str:
    """What is written between the marks of docs/benchmarks.md."""
    where = ". Then, because it changed meanwhile, on ".join(map(str, machines)) or "a machine that could not be asked"
    return "\n\n".join(
        [
            f"Measured {when} on {where}. Medians of {runs} run(s); a goal is reached at {NOISE} of it.",
            f"**{summary(all_lines)}.** `*`: other processes took more than {QUIET:.0%} of a core in one of the runs.",
            defeats(all_lines),
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

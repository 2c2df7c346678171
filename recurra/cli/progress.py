"""How a run is watched: a bar with numbers and samples in a terminal, plain lines elsewhere, JSON lines on request."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from recurra.cli.typed import typeable
from recurra.training import ranks
from recurra.training.observer import Observer, PlainProgress, Step

if TYPE_CHECKING:
    from recurra.tasks.model import Model
    from recurra.training.metrics import Row
    from recurra.training.run import Run


@contextmanager
def watch(as_json: bool) -> Iterator[Observer]:
    """The observer that fits where the output goes. Progress goes to standard error, JSON to standard output."""
    if ranks.rank():  # the first process shows what all do
        yield Observer()
    elif as_json:
        yield JsonLines()
    elif not sys.stderr.isatty():
        yield PlainProgress(typeable)
    else:
        with Bar() as bar:
            yield bar


class Bar(Observer):
    """A progress bar; validations and samples scroll by above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._progress = Progress(BarColumn(None), TextColumn("{task.description}"), console=self._console, expand=True)
        self._task = self._progress.add_task("getting ready", total=1)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_start(self, run: "Run") -> None:
        self._print(f"[bold]{escape(described(run))}[/bold]")
        for note in run.notes:
            self._print(escape(note))

    def on_step(self, run: "Run", step: Step) -> None:
        done = step.seconds / (step.seconds + step.seconds_left) if step.seconds_left else 1
        self._progress.update(self._task, completed=done, description=figures(step, run.model))

    def on_validate(self, run: "Run", row: "Row") -> None:
        if row.validation is None:
            return
        best = ", the best so far" if run.best is not None and run.best.step == row.step else ""
        self._print(f"step {row.step}: {run.measure.say(row.validation)} on text it has not seen{best}")

    def on_sample(self, run: "Run", text: str) -> None:
        self._print(f"[dim]{escape(text.strip())}[/dim]\n")

    def on_end(self, run: "Run") -> None:
        self._progress.stop()
        if run.stopped != "interrupt":  # that is an exception, whose message is the summary
            self._print(escape(typeable(run.summary)))

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)  # a command in it stays in one piece


class JsonLines(Observer):
    """One JSON object a line on standard output, each with its `event`."""

    def on_start(self, run: "Run") -> None:
        facts = {"path": str(run.path), "step": run.step, "steps": run.steps, "baselines": run.baselines}
        self._write("start", **facts, **({"notes": run.notes} if run.notes else {}))

    def on_validate(self, run: "Run", row: "Row") -> None:
        from recurra.training.metrics import columns

        fields = asdict(row)
        self._write("validate", **{column: fields[name] for name, column in columns(run.model).items()})

    def on_sample(self, run: "Run", text: str) -> None:
        self._write("sample", step=run.step, text=text)

    def on_end(self, run: "Run") -> None:
        self._write(
            "end",
            path=str(run.path),
            step=run.step,
            steps=run.steps,
            stopped=run.stopped,
            best=None if run.best is None else {"step": run.best.step, run.measure.key: run.best.value},
            baselines=run.baselines,
            verdict=run.verdict,
            plot=None if run.plot is None else str(run.plot),
            report=None if run.report is None else str(run.report),
        )

    def _write(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)


def described(run: "Run") -> str:
    """What is about to be trained, in one line."""
    parameters = f"{run.model.parameters:,} parameters"
    return f"{run.model.description}, {parameters}, {run.steps:,} steps. Run folder: {run.path}"


def figures(step: Step, model: "Model") -> str:
    """The numbers beside the bar; the loss is smoothed as the measure is, so that the two agree."""
    measured = "" if step.training is None else f"{model.measure.figure(step.training)} {model.measure.short}  "
    minutes, seconds = divmod(round(step.seconds_left), 60)
    return (
        f"step {step.step}  loss {step.smoothed:.3f}  {measured}"
        f"{step.units_per_second:,.0f} {model.unit_short}/s  {minutes}:{seconds:02} left"
    )

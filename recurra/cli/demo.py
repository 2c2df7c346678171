"""`recurra demo`: everything once, from text to a model that writes, in about a minute."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from recurra.cli.chart import chart
from recurra.cli.output import show, write
from recurra.cli.progress import watch
from recurra.cli.typed import beginning, command

if TYPE_CHECKING:
    from recurra.training.run import Run

PROMPT = "The "
LENGTH = 400


def demonstrate(out: str | None, seconds: float, as_json: bool) -> None:
    """Trains on the demonstration text, lets the model write, and says what was reached and where it is."""
    with beginning():
        import recurra

    if not as_json:
        print("Training a character model on the Python language reference, which every CPython has.\n", flush=True)
    with beginning(), watch(as_json) as observer:
        run = recurra.train("demo", out=out, observer=observer, time_limit=seconds)
    if as_json:
        show({"event": "generate", "prompt": PROMPT, "text": "".join(written(run))}, as_json)
        return
    print(f"\nWhat the model writes after {PROMPT!r}:\n")
    write(PROMPT, written(run))
    print(f"\n{ending(run)}")


def written(run: "Run") -> Iterator[str]:
    """What the model writes after the prompt, piece by piece."""
    return run.model.stream(PROMPT, LENGTH, temperature=0.7, seed=1)


def ending(run: "Run") -> str:
    """The loss in the terminal and as a picture, who is ahead, and what to do next."""
    rows = run.history
    program, folder = command(), shlex.quote(str(run.path))
    picture = run.plot or "none was drawn (pip install 'recurra[plot]')"
    return f"""Bits per character by step:
{chart([row.step for row in rows], [run.measure.of(row.loss) or 0.0 for row in rows])}

{run.verdict}

The same as a picture: {picture}
More of it, to look at in a browser: {run.report or "no report was written"}
Everything about the run: {run.path}

  {program} generate {folder} --prompt "{PROMPT}"
  {program} eval {folder} demo
  {program} train YOUR_TEXT.txt"""

"""`recurra rank`: the candidates of a recogniser, the best of each group first."""

import dataclasses
import json
import sys

import recurra
from recurra.cli.texts import read_lines
from recurra.data.candidates import groups_of_text
from recurra.tasks.rank import Ranking


def show(
    model: str, candidates: str | None, weight: float | None, best: bool, precision: str | None, as_json: bool
) -> None:
    """Each group's candidates with what they are ranked by, a blank line between; or the best alone; or JSON."""
    loaded = recurra.load(model, precision)
    groups = groups_of_text(*read_lines(candidates))
    if loaded.rounding:
        print(loaded.rounding, file=sys.stderr)
    if single := sum(len(group.texts) == 1 for group in groups):
        have = "groups have" if single > 1 else "group has"
        print(f"recurra: {single} {have} one candidate, among which there is nothing to choose", file=sys.stderr)
    for place, ranking in enumerate(loaded.rank(groups, weight)):
        if as_json:
            rows = [dataclasses.asdict(each) for each in (ranking.candidates[:1] if best else ranking.candidates)]
            print(json.dumps({"id": ranking.id, "candidates": rows}, ensure_ascii=False))
        elif best:
            print(ranking.best)
        else:
            print(f"{chr(10) if place else ''}{_table(ranking)}")


def _table(ranking: Ranking) -> str:
    """A line a candidate: what it is ranked by, and where the recogniser gave a score ln p and that score; the text."""
    return "\n".join(
        f"{c.combined:.4f}\t" + (f"{c.log_probability:.4f}\t{c.score:g}\t" if c.score is not None else "") + c.text
        for c in ranking.candidates
    )

"""The tables of docs/results.md that recipes write: a row for each measure, and how it came about."""

import statistics
from pathlib import Path

from recipes.measures import MEASURES, Measure
from recipes.recipe import Goal, Recipe
from recipes.run import Seed

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- recipes -->", "<!-- end of recipes -->"
REACHED = ["recipe", "measure", "result", "goal", "reached", "published", "baseline", "beside, on the same rows"]
HOW = ["recipe", "command", "seeds", "validation", "date", "minutes", "processor minutes", "machine"]


def write(recipe: Recipe, seeds: dict[int, Seed], page: Path = PAGE) -> None:
    """Puts the rows of a recipe in the place of those it had."""
    before, rest = page.read_text().split(BEGIN)
    block, after = rest.split(END)
    tables = []
    for header, rows in ((REACHED, reached(recipe, seeds)), (HOW, [how(recipe, seeds)])):
        kept = [row for row in _rows(block, header) if row[0] != recipe.name]
        lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in sorted([*kept, *rows], key=lambda row: row[0])]
        tables.append("\n".join(lines))
    page.write_text(before + BEGIN + "\n\n" + "\n\n".join(tables) + "\n\n" + END + after)


def _rows(block: str, header: list[str]) -> list[list[str]]:
    """The rows of the table with this header."""
    for table in block.strip().split("\n\n"):
        lines = [line[2:-2].split(" | ") for line in table.splitlines()]
        if lines and lines[0] == header:
            return [row for row in lines[2:] if len(row) == len(header)]
    return []


def reached(recipe: Recipe, seeds: dict[int, Seed]) -> list[list[str]]:
    """A row for each measure."""
    rows = []
    for name, goal in recipe.measures.items():
        measure, values = MEASURES[name], [seed.values[name] for seed in seeds.values()]
        mean = statistics.fmean(values)
        wanted = "–" if goal.goal is None else f"{goal.goal:g}"
        wanted += f" (hope {goal.hope:g})" if goal.hope is not None else ""
        beside = [f"{who} {_spread(measure, found)}" for who, found in _beside(name, seeds).items()]
        row = [recipe.name, name, _spread(measure, values), wanted, _verdict(recipe, seeds, measure, goal, mean)]
        rows.append([*row, goal.published or "–", goal.baseline or "–", "; ".join(beside) or "–"])
    return [[_cell(text) for text in row] for row in rows]


def _beside(name: str, seeds: dict[int, Seed]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for seed in seeds.values():
        for who, value in seed.beside[name].items():
            found.setdefault(who, []).append(value)
    return found


def _spread(measure: Measure, values: list[float]) -> str:
    """The mean, and from where to where the seeds lie where they differ."""
    mean, *ends = (f"{v:.{measure.digits}f}" for v in (statistics.fmean(values), min(values), max(values)))
    return mean if ends[0] == ends[1] else f"{mean} ({ends[0]} to {ends[1]})"


def _verdict(recipe: Recipe, seeds: dict[int, Seed], measure: Measure, goal: Goal, mean: float) -> str:
    """Whether the goal is reached, and whether it took longer than it may."""
    longest, allowed = max(seed.minutes for seed in seeds.values()), recipe.minutes or float("inf")
    late = f", but in {longest:.0f} minutes of {allowed:g}" if longest > allowed else ""
    if goal.hope is not None and measure.reaches(mean, goal.hope):
        return "the hope" + late
    if goal.goal is None:
        return "–" if goal.hope is None else "no"
    return "yes" + late if measure.reaches(mean, goal.goal) else "no"


def how(recipe: Recipe, seeds: dict[int, Seed]) -> list[str]:
    """The row of what was run."""
    found = list(seeds.values())
    validation = [f"{seed.validation:.4g}" for seed in found if seed.validation is not None]
    row = [recipe.name, f"`{recipe.command()}`", ", ".join(map(str, seeds))]
    row += [f"{', '.join(validation)} {found[0].validated}", max(seed.date for seed in found)]
    row += [", ".join(f"{seed.minutes:.1f}" for seed in found)]
    row += [", ".join(f"{seed.processor_minutes:.1f}" for seed in found)]
    return [_cell(text) for text in [*row, "; ".join(dict.fromkeys(seed.machine for seed in found))]]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

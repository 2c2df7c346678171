"""python -m recipes: trains, measures, and writes docs/results.md. See recipes/README.md."""

import argparse
import os
import sys
from pathlib import Path

from recipes.recipe import FOLDER, Recipe, chosen
from recurra.errors import FileError, RecurraError


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m recipes", description="Train and measure what the recipes say.")
    parser.add_argument("--data", default=os.environ.get("RECURRA_DATA", ""), help="the folder with the data sets")
    parser.add_argument("--only", default="", help="names of recipes, separated by commas (default: all)")
    parser.add_argument("--runs", type=Path, default=_cache(), help="where the runs are kept (default: %(default)s)")
    parser.add_argument("--validate", action="store_true", help="train only: no test is read, no result written")
    parser.add_argument("--list", action="store_true", help="print the names and the commands, and stop")
    return parser.parse_args(words)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recurra" / "recipes"


def main(words: list[str] | None = None, folder: Path = FOLDER, page: Path | None = None) -> int:
    """0 when all that was asked for has run; else 2, or after Ctrl-C 130, with one sentence on standard error."""
    asked = arguments(words)
    try:
        recipes = chosen(asked.only, folder)
        if asked.list:
            print("\n".join(f"{recipe.name}: {recipe.command()}" for recipe in recipes))
            return 0
        if not asked.data:
            raise FileError("Where is the data? Give the folder: make recipes DATA=… (or RECURRA_DATA=… around it).")
        for recipe in recipes:
            recipe.check_data(Path(asked.data))
        for recipe in recipes:
            _one(recipe, asked, page)
    except RecurraError as error:
        print(f"recipes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"recipes: {error} The same command goes on.", file=sys.stderr)
        return 130
    return 0


def _one(recipe: Recipe, asked: argparse.Namespace, page: Path | None) -> None:
    from recipes import results  # which load torch
    from recipes.run import run

    print(f"{recipe.name}: {recipe.command()}", flush=True)
    seeds = run(recipe, Path(asked.data).absolute(), asked.runs.absolute(), test=not asked.validate)
    for number, seed in seeds.items():
        found = "" if seed.validation is None else f" {seed.validation:.4f} {seed.validated}"
        print(f"  seed {number}: validation{found}, {seed.minutes:.1f} minutes", flush=True)
    if not asked.validate:
        for row in results.reached(recipe, seeds):
            print("  " + " | ".join(row[1:]), flush=True)
        results.write(recipe, seeds, page or results.PAGE)


if __name__ == "__main__":
    sys.exit(main())

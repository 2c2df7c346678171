"""A recipe: a TOML file that says what is trained on which data, what is measured, and what it must reach."""

import shlex
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from recipes.measures import HOW, MEASURES
from recurra.data.keys import key
from recurra.errors import FileError, InputError, RecurraError
from recurra.training.settings import check_task, settings

FOLDER = Path(__file__).parent
DATA = "DATA/"  # a setting that begins with it is a path in the folder with the data


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a measure must reach, what would please, and what others reached: quoted, with their names."""

    goal: float | None = None
    hope: float | None = None
    published: str = ""
    baseline: str = ""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of this folder. `recipes/README.md` explains the fields."""

    data: str
    measures: dict[str, Goal]
    name: str = ""
    task: str | None = None
    test: str | None = None
    by: str = "evaluate"
    seeds: tuple[int, ...] = (0,)
    minutes: float | None = None
    settings: dict[str, str | bool | int | float] = {}

    def given(self, data: Path) -> dict[str, Any]:
        """The arguments of train() beside the data, with the paths of this machine."""
        return {name: _placed(value, data) for name, value in self.settings.items()}

    def command(self) -> str:
        """What a person would type to train the first seed."""
        words = ["recurra", "train", DATA + self.data, *(["--task", self.task] if self.task else [])]
        for name, value in {**self.settings, "seed": self.seeds[0]}.items():
            flag = name.replace("_", "-")
            words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
        return shlex.join(words)

    def digest(self) -> str:
        """Eight digits of what decides the weights: runs of a recipe that is changed begin anew."""
        return f"{key(self.data, str(self.task), repr(sorted(self.settings.items()))):016x}"[:8]

    def check_data(self, data: Path) -> None:
        """Raises FileError when the data is not there."""
        for path in (self.data, self.test):
            if path is not None and not (data / path).exists():
                raise FileError(f"{data} has no {path}, which the recipe {self.name} needs.")


def _placed(value: Any, data: Path) -> Any:
    return str(data / value.removeprefix(DATA)) if isinstance(value, str) and value.startswith(DATA) else value


def read(path: Path) -> Recipe:
    """Reads and checks a recipe. InputError names the file and what is wrong in it."""
    try:
        recipe = msgspec.convert(tomllib.loads(path.read_text()), Recipe)
        recipe = msgspec.structs.replace(recipe, name=path.stem)
        if recipe.settings.keys() & {"seed", "time_limit"}:
            raise InputError("seed and time_limit are no settings of a recipe: give seeds, and epochs or steps.")
        wanted = settings(**recipe.settings)
        if recipe.task is not None:
            check_task(recipe.task, wanted)
        _check_names(recipe)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecurraError) as error:
        raise InputError(f"{path}: {error}") from None
    return recipe


def _check_names(recipe: Recipe) -> None:
    if recipe.by not in HOW:
        raise InputError(f"by = {recipe.by!r} is unknown; there are {', '.join(HOW)}.")
    for name in recipe.measures:
        if name not in MEASURES:
            raise InputError(f"There is no measure {name!r}; there are {', '.join(MEASURES)}.")
    if not recipe.measures or not recipe.seeds:
        raise InputError("A recipe has at least one measure and one seed.")


def chosen(only: str = "", folder: Path = FOLDER) -> list[Recipe]:
    """The recipes of these names, separated by commas; all without any. InputError for a name that is none of them."""
    found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    names = [name.strip() for name in only.split(",") if name.strip()] or list(found)
    for name in names:
        if name not in found:
            raise InputError(f"There is no recipe {name}; there are {', '.join(found)}.")
    return [read(found[name]) for name in names]

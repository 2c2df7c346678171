"""Models by name: a cell, an encoder, or one of the simple models that stand beside every run."""

import difflib
import typing
from collections.abc import Sequence
from typing import Any

from recurra.errors import InputError
from recurra.training.settings import TASKS_OF, describe, settings
from recurra.training.setup import Setup

# Models to be beaten, of which each run measures those of its task: what is in the names of their rows.
SIMPLE = {"ngram": "gram", "linear": "linear", "majority": "majority", "perceptron": "perceptron"}
DEFAULT = ("elman", "lstm", "gru", "cnn", "transformer", "bag")
_OTHER_NAMES = {"elman": "rnn"}  # of a task that has the cell by its other name only


def names(kind: str) -> list[str]:
    """The models of a task."""
    rows = {row.name: typing.get_args(row.kind) for row in describe(kind)}
    encoders = [name for name in rows.get("encoder", ()) if name != "recurrent"]
    return [*_cells(), *encoders, *SIMPLE]


def _cells() -> list[str]:
    kind = next(row.kind for row in describe() if row.name == "cell")
    return [str(name) for name in typing.get_args(kind) if isinstance(name, str)]


def parsed(models: str | Sequence[str]) -> list[str]:
    """The names of a list, or of a string with commas; each once."""
    listed = models.split(",") if isinstance(models, str) else list(models)
    found = [str(name).strip().lower() for name in listed if str(name).strip()]
    if not found:
        raise InputError(f"models={models!r} names none; give some, as in lstm,gru,cnn.")
    return list(dict.fromkeys(found))


def settings_of(name: str, kind: str) -> dict[str, Any]:
    """The settings that make a model what its name says. InputError lists the names there are."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"There is no model {name!r} for the task {kind}; {hint}There are {', '.join(known)}.")
    if name in _cells():
        return {"cell": name}
    return {"encoder": name}


def possible(name: str, kind: str, setup: Setup, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model on this data, tried. Raises InputError for what the task cannot have."""
    own = settings_of(name, kind)
    for field in own:
        if given.get(field) is not None:
            raise InputError(f"{field}={given[field]!r} is what models={name} says already; leave one of them out.")
        if TASKS_OF.get(field) and kind not in TASKS_OF[field]:
            raise InputError(f"The task {kind} has no {field} {name!r}.")
    try:
        setup.complete(settings(**given, **own))
    except InputError:
        if name not in _OTHER_NAMES:
            raise
        own = {"cell": _OTHER_NAMES[name]}
        setup.complete(settings(**given, **own))
    return own

"""check(): what train() would make of its arguments, looked at and measured; nothing is written."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from recurra.check import memory
from recurra.check.cost import Cost, measured
from recurra.check.encodings import encodings
from recurra.check.facts import Facts, facts_of
from recurra.check.lines import suspicious
from recurra.check.problems import Problem, by_severity, some
from recurra.check.repeats import repeats
from recurra.check.result import Check
from recurra.data.memory import in_memory
from recurra.data.texts import Texts
from recurra.errors import DataError
from recurra.training.start import Prepared, guessed, prepared

_WHY = {
    "language": "it is text without labels",
    "classification": "its rows have a text and a label",
    "tagging": "its words have tags",
}
_RARE = 20  # times as many rows as the rarest label has: more are said to be unbalanced
_UNKNOWN = 0.05  # of the symbols of a part: more are said


def check(data: Any, task: str | None = None, **given: Any) -> Check:
    """Looks at what train() would be given, and measures what training would take. Arguments as of train().

    Data that cannot be used is told by `errors`, each with file and line and the remedy; InputError is raised for a
    setting that cannot be. Steps, validation and baselines are run for some seconds; nothing is written.
    """
    memory.begin_anew()
    begun = time.perf_counter()
    try:
        with prepared(data, task, given) as ready:
            cost = measured(ready.task, ready.full, time.perf_counter() - begun)
            return _checked(ready, cost, task is None)
    except DataError as error:
        return _unusable(data, task, error)


def _checked(ready: Prepared, cost: Cost, was_guessed: bool) -> Check:
    parts = ready.setup.parts(ready.full)
    vocabulary = ready.task.vocabulary
    facts = {name: facts_of(part, vocabulary, name != "training") for name, part in parts.items()}
    problems = [problem for part in parts.values() for problem in suspicious(part)]
    problems += repeats(parts) + _unknown(facts, ready.full.symbols)
    if ready.kind == "classification":  # most tags of words are O, as they should be
        problems += _unbalanced(parts)
    if cost.broken:
        problems.append(Problem("warning", f"Training breaks: {cost.broken}; give a smaller learning_rate or clip."))
    return Check(
        data=ready.setup.name,
        task=ready.kind,
        why=_WHY.get(ready.kind, "") if was_guessed else "",
        parts=facts,
        symbols=f"{len(vocabulary.symbols):,} {vocabulary.kind}" if vocabulary else "",
        problems=tuple(by_severity(problems)),
        notes=ready.notes,
        cost=cost,
        settings={name: value for name, value in _plain(ready).items() if value is not None},
    )


def _plain(ready: Prepared) -> dict[str, Any]:
    return {name: getattr(ready.full, name) for name in ready.full.__struct_fields__}


def _unusable(data: Any, task: str | None, error: DataError) -> Check:
    """What can be said of data that train() would refuse."""
    name, found = "data", list[Problem]()
    if not in_memory(data):
        name = os.fspath(data)
        found = encodings(Path(name)) if name else []
    said = [Problem("error", str(error))] if not (found and "UTF-8" in str(error)) else []
    try:
        kind = task or guessed(data)
    except DataError:
        kind = ""
    return Check(name, kind, "", {}, "", (*said, *found), (), None, {})


def _unbalanced(parts: dict[str, Texts]) -> list[Problem]:
    labels = parts["training"].labels if "training" in parts else None
    if not labels:
        return []
    (most, many), *_, (least, few) = Counter(label for row in labels for label in row).most_common()
    if many < _RARE * few:
        return []
    return [
        Problem(
            "warning",
            f"The labels of training are unbalanced: {most!r} has {some(many, 'row')}, {least!r} {few:,}; accuracy "
            "says little of the rare ones, so look at F1, and try class_weights=balanced.",
        )
    ]


def _unknown(facts: dict[str, Facts], symbols: str | None) -> list[Problem]:
    problems = []
    remedy = "give more training data" + (", or symbols=characters" if symbols == "words" else "")
    for name, part in facts.items():
        if part.unknown_share > _UNKNOWN:
            shown = " ".join(map(repr, list(part.unknown)[:5]))
            problems.append(
                Problem(
                    "warning",
                    f"{100 * part.unknown_share:.1f} % of the symbols of {name} are unknown to training ({shown} …); "
                    f"{remedy}.",
                )
            )
    return problems

"""Flags from the record of settings: one flag a setting, with its type, default and help."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from cyclopts import Group, Parameter

from recurra.training.settings import TASKS_OF, describe

Command = TypeVar("Command", bound=Callable[..., int | None])

_GROUPS: dict[tuple[str, ...], Group] = {(): Group("Settings", sort_key=8)}
for _tasks in TASKS_OF.values():
    _GROUPS[_tasks] = Group(f"Settings of {' and '.join(_tasks)}", sort_key=8 + len(_GROUPS))


def whole(**options: Any) -> Parameter:
    """A flag that takes a whole number as it is written: cyclopts would make 3 of 3.5."""
    return Parameter(converter=_whole, **options)


def _whole(_: object, tokens: Any) -> int:
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value} is no whole number; give one, as in 3.") from None


Json = Annotated[bool, Parameter(negative=(), show_default=False, help="Print JSON instead of text.")]


def with_settings(command: Command) -> Command:
    """The command with its `**settings` spelled out. What the person leaves out is left out of the call."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *_flags()])  # type: ignore[attr-defined]
    return command


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the person gave, or whose default is the record's own."""
    return {name: value for name, value in settings.items() if value is not None}


def _flags() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            row.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=row.default,
            annotation=Annotated[
                row.kind if row.default is not None else row.kind | None,
                Parameter(
                    help=row.help,
                    group=_GROUPS[row.tasks],
                    show_default=row.default is not None,
                    converter=_whole if row.kind is int else None,
                    negative=None if row.kind is bool else (),
                ),
            ],
        )
        for row in describe()
    ]

"""What a cell's class and its step must be, and the messages when they are not.

A class is checked when it is made, a step when it returns.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from recurra.cell.source import place
from recurra.errors import CellError

# Arguments of Cell.__init__ beside the widths, and what programs call the input and the output.
RESERVED = ("input_size", "hidden_size", "x", "output")

States = tuple[Tensor, ...]


def state_names(cls: type) -> tuple[str, ...]:
    """The names of the states of a cell's class, in the order of its step's signature. Raises CellError."""
    name, step = cls.__name__, getattr(cls, "step", None)
    if not inspect.isfunction(step):
        raise CellError(f"{name} has no method step. A cell defines step(self, x, h, ...) and returns its next states.")
    arguments = list(inspect.signature(step).parameters.values())[1:]
    for a in arguments:
        if a.kind not in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD):
            raise CellError(
                f"{name}.step takes {_written(a)}, but input and states are named by plain arguments. "
                f"Write them out, as in step(self, x, h, c); {place(step)}"
            )
        if a.default is not a.empty:
            raise CellError(
                f"{name}.step gives {a.name} a default value, but input and states are always passed. "
                f"Keep a setting as an attribute of the cell; {place(step)}"
            )
    if len(arguments) < 2:
        raise CellError(f"{name}.step names no state. States follow the input, as in step(self, x, h); {place(step)}")
    states = tuple(a.name for a in arguments[1:])
    for state in states:
        if state in RESERVED:
            raise CellError(f"{name}.step calls a state {state}, a reserved name. Choose another; {place(step)}")
    return states


def _written(argument: inspect.Parameter) -> str:
    if argument.kind is argument.KEYWORD_ONLY:
        return f"{argument.name} by keyword only"
    return ("*" if argument.kind is argument.VAR_POSITIONAL else "**") + argument.name


def state_sizes(
    name: str, states: tuple[str, ...], input_size: int, hidden_size: int, widths: Mapping[str, int]
) -> dict[str, int]:
    """Width of every state: hidden_size unless given by name. Raises CellError."""
    for key in widths:
        if key not in states:
            raise CellError(f"{name} has no state {key} to be given a width: its step names {', '.join(states)}.")
    for key, value in {"input_size": input_size, "hidden_size": hidden_size, **widths}.items():
        check_width(name, key, value)
    return {state: widths.get(state, hidden_size) for state in states}


def check_width(name: str, argument: str, width: object, remedy: str = "") -> None:
    """A width is a whole number of at least 1. Raises CellError."""
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise CellError(f"{name} got {argument}={width!r}. A width is a whole number of at least 1{remedy}.")


def split(step: Callable[..., object], names: Sequence[str], before: States, result: object) -> tuple[Tensor, States]:
    """What `step` returned for the states `before`, as (output, next states).

    step: the cell's bound method, for messages. Raises CellError, naming the state and the line.
    """
    values = (result,) if isinstance(result, Tensor) else tuple(result) if isinstance(result, (tuple, list)) else None
    extra = -1 if values is None else len(values) - len(before)
    if values is None or extra not in (0, 1) or not all(isinstance(v, Tensor) for v in values):
        raise _wrong_return(step, names, result if values is None else values)
    nexts = values[extra:]
    for old, new in zip(before, nexts, strict=True):
        if new.shape != old.shape:
            raise _changed_shape(step, names, before, nexts, extra)
    y = values[0]
    if extra and (y.dim() != 2 or y.shape[0] != before[0].shape[0]):
        raise CellError(
            f"{_title(step)} returned an output of shape {tuple(y.shape)} for {before[0].shape[0]} rows. "
            f"An output has the shape (rows, width); {place(step, len(values), 0)}"
        )
    return y, nexts


def _wrong_return(step: Callable[..., object], names: Sequence[str], returned: object) -> CellError:
    values = returned if isinstance(returned, tuple) else (returned,)
    strangers = [type(v).__name__ for v in values if not isinstance(v, Tensor)]
    missing = names[len(values) :]
    if strangers:
        what = f"a value of type {strangers[0]}"
    else:
        what = f"{len(values)} value{'' if len(values) == 1 else 's'}"
    if missing:
        what += f", so {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    states = ", ".join(names)
    return CellError(
        f"{_title(step)} takes the states {states} but returned {what}. "
        f"Return {states}, or y, {states} when the output is no state; {place(step, len(values))}"
    )


def _changed_shape(
    step: Callable[..., object], names: Sequence[str], before: States, nexts: States, extra: int
) -> CellError:
    k = next(i for i, (old, new) in enumerate(zip(before, nexts, strict=True)) if old.shape != new.shape)
    return CellError(
        f"{_title(step)} received {names[k]} {tuple(before[k].shape)} but returned {names[k]} {tuple(nexts[k].shape)}. "
        f"A state keeps its shape from one step to the next; {place(step, len(nexts) + extra, k + extra)}"
    )


def _title(step: Callable[..., object]) -> str:
    return f"{type(step.__self__).__name__}.step" if inspect.ismethod(step) else "step"

"""What a cell and the arguments of a call must be, and the messages when they are not.

The rules are checked where they can first be broken: a class when it is made, a step when it returns, an argument once
a call. Messages are built only on the way to an exception. Cells are known here by their names and sizes alone.
"""

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping, Sequence
from os.path import basename

import torch
from torch import Tensor

from recurra.errors import CellError, InputError

# Arguments of Cell.__init__ beside the widths, and what programs call the input and the output.
RESERVED = ("input_size", "hidden_size", "x", "output")

Result = Tensor | Sequence[Tensor]

# ------------------------------------------------------------------------------------------------------------ the class


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
                f"Write them out, as in step(self, x, h, c); {_place(step)}"
            )
        if a.default is not a.empty:
            raise CellError(
                f"{name}.step gives {a.name} a default value, but input and states are always passed. "
                f"Keep a setting as an attribute of the cell; {_place(step)}"
            )
    if len(arguments) < 2:
        raise CellError(f"{name}.step names no state. States follow the input, as in step(self, x, h); {_place(step)}")
    states = tuple(a.name for a in arguments[1:])
    for state in states:
        if state in RESERVED:
            raise CellError(f"{name}.step calls a state {state}, a reserved name. Choose another; {_place(step)}")
    return states


def _written(argument: inspect.Parameter) -> str:
    stars = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind)
    return f"{stars}{argument.name}" if stars else f"{argument.name} by keyword only"


def sizes(
    name: str, states: tuple[str, ...], input_size: int, hidden_size: int, widths: Mapping[str, int]
) -> dict[str, int]:
    """Width of every state: hidden_size unless given by name. Raises CellError."""
    for key in widths:
        if key not in states:
            raise CellError(f"{name} has no state {key} to be given a width: its step names {', '.join(states)}.")
    for key, value in {"input_size": input_size, "hidden_size": hidden_size, **widths}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CellError(f"{name} got {key}={value!r}. A width is a whole number of at least 1.")
    return {state: widths.get(state, hidden_size) for state in states}


# ------------------------------------------------------------------------------------------------------------- one step


def split(
    cell: torch.nn.Module, names: tuple[str, ...], before: tuple[Tensor, ...], result: Result
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What `step` returned, as (output, next states). Raises CellError, naming the state and the line of the step."""
    values = (result,) if isinstance(result, Tensor) else tuple(result) if isinstance(result, (tuple, list)) else ()
    extra = len(values) - len(before)
    if extra not in (0, 1) or not all(isinstance(v, Tensor) for v in values):
        raise _wrong_return(cell, names, result, values)
    nexts = values[extra:]
    for old, new in zip(before, nexts, strict=True):
        if new.shape != old.shape:
            raise _changed_shape(cell, names, before, nexts, extra)
    y = values[0]
    if extra and (y.dim() != 2 or y.shape[0] != before[0].shape[0]):
        raise CellError(
            f"{_step(cell)} returned an output of shape {_shape(y)} for {before[0].shape[0]} rows. "
            f"An output has the shape (rows, width); {_place(_source(cell), len(values), 0)}"
        )
    return y, nexts


def _wrong_return(
    cell: torch.nn.Module, names: tuple[str, ...], result: object, values: tuple[object, ...]
) -> CellError:
    head = f"{_step(cell)} takes the states {', '.join(names)} but returned "
    for v in values or (result,):
        if not isinstance(v, (Tensor, tuple, list)):
            return CellError(
                f"{head}a value of type {type(v).__name__}. {_remedy(names)}; {_place(_source(cell), max(1, len(values)))}"
            )
    missing = names[len(values) :]
    lacks = f", so {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""
    count = f"{len(values)} value{'' if len(values) == 1 else 's'}{lacks}"
    return CellError(f"{head}{count}. {_remedy(names)}; {_place(_source(cell), len(values))}")


def _remedy(names: tuple[str, ...]) -> str:
    states = ", ".join(names)
    return f"Return {states}, or y, {states} when the output is no state"


def _changed_shape(
    cell: torch.nn.Module, names: tuple[str, ...], before: tuple[Tensor, ...], nexts: tuple[Tensor, ...], extra: int
) -> CellError:
    k = next(i for i, (old, new) in enumerate(zip(before, nexts, strict=True)) if old.shape != new.shape)
    return CellError(
        f"{_step(cell)} received {names[k]} {_shape(before[k])} but returned {names[k]} {_shape(nexts[k])}. "
        f"A state keeps its shape from one step to the next; {_place(_source(cell), len(nexts) + extra, k + extra)}"
    )


def _step(cell: torch.nn.Module) -> str:
    return f"{type(cell).__name__}.step"


def _source(cell: torch.nn.Module) -> Callable[..., object]:
    step = cell.step
    return step if callable(step) else type(cell).__init__


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


# ---------------------------------------------------------------------------------------------------- the user's source


def _place(step: Callable[..., object], count: int = 0, value: int | None = None) -> str:
    """Where to look: "see my_lstm.py, line 14: c = f * c[:, :32]".

    The line that last gave the returned value number `value` its name, else the return of `count` values, else `def`.
    """
    code = inspect.unwrap(step).__code__  # type: ignore[attr-defined]
    line = _telling_line(step, count, value) or code.co_firstlineno
    text = linecache.getline(code.co_filename, line).strip()
    return f"see {basename(code.co_filename)}, line {line}" + (f": {text}" if text else "")


def _telling_line(step: Callable[..., object], count: int, value: int | None) -> int | None:
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(step))
        function = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, SyntaxError):
        return None
    shift = first - 1
    if count == 0:
        return shift + function.lineno
    returns = [r for r in ast.walk(function) if isinstance(r, ast.Return) and len(_elements(r.value)) == count]
    if len(returns) != 1:
        return shift + function.lineno
    last = returns[0].lineno
    if value is not None and isinstance(name := _elements(returns[0].value)[value], ast.Name):
        last = max((n.lineno for n in ast.walk(function) if _assigns(n, name.id) and n.lineno < last), default=last)
    return shift + last


def _elements(value: ast.expr | None) -> list[ast.expr]:
    return list(value.elts) if isinstance(value, (ast.Tuple, ast.List)) else [value] if value is not None else []


def _assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)


# --------------------------------------------------------------------------------------------------- arguments of a call


def check_input(name: str, x: Tensor, input_size: int) -> None:
    """x is (T, B, input_size). Raises InputError."""
    if x.dim() != 3 or x.shape[2] != input_size:
        raise InputError(
            f"x has the shape {_shape(x)}, but {name} takes (T, B, {input_size}). "
            f"Give x a last axis of {input_size}, or make the cell with input_size={x.shape[-1] if x.dim() else 1}."
        )


def check_states(
    name: str, sizes: Mapping[str, int], states: object, batch: int, origin: str = ""
) -> tuple[Tensor, ...]:
    """The states as a tuple of (batch, width), one for each name. Raises InputError, or CellError when `origin` made them."""
    error = CellError if origin else InputError
    given = (states,) if isinstance(states, Tensor) else tuple(states) if isinstance(states, (tuple, list)) else None
    source = origin or "the given state"
    if given is None or len(given) != len(sizes) or not all(isinstance(s, Tensor) for s in given):
        count = f"a {type(states).__name__}" if given is None else f"{len(given)} value{'' if len(given) == 1 else 's'}"
        raise error(f"{source} of {name} is {count}, but its states are {', '.join(sizes)}: give one tensor for each.")
    for tensor, (state, width) in zip(given, sizes.items(), strict=True):
        if tensor.shape != (batch, width):
            raise error(
                f"{source} of {name} has {state} of shape {_shape(tensor)}, but a batch of {batch} needs {(batch, width)}. "
                f"A state has one row for each sequence of the batch."
            )
    return given


def check_lengths(lengths: Tensor | Sequence[int] | int, steps: int, batch: int) -> Tensor:
    """The lengths as whole numbers (batch,) on the CPU, each from 0 to `steps`. Raises InputError."""
    given = torch.as_tensor(lengths, device="cpu")
    if given.dtype.is_floating_point and not given.numel():
        given = given.long()  # torch makes an empty list a tensor of floats
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise InputError(f"lengths has the dtype {given.dtype}, but counts steps. Pass whole numbers: lengths.long().")
    if given.shape != (batch,):
        raise InputError(
            f"lengths has the shape {_shape(given)}, but x holds {batch} sequences. Pass one length for each."
        )
    given = given.long()
    if batch and (int(given.max()) > steps or int(given.min()) < 0):
        k = int(((given > steps) | (given < 0)).nonzero()[0])
        if given[k] < 0:
            raise InputError(f"lengths[{k}] is {int(given[k])}. A length is at least 0.")
        raise InputError(
            f"lengths[{k}] is {int(given[k])}, but x has {steps} steps. Pad x to {int(given.max())} steps, or cut lengths to {steps}."
        )
    return given

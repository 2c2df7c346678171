"""What the functions of a cell read from outside the cell: globals of their modules and variables they close over."""

import dis
import random
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

import torch

_NOT_VALUES = (ModuleType, type, BuiltinFunctionType, torch.Tensor, torch.nn.Module)
_ABSENT = object()


def functions(classes: Iterable[type]) -> list[FunctionType]:
    """`step`, `forward` and the methods that these call, of any of the classes; and the user's functions they name."""
    members = [(k, getattr(f, "__func__", f)) for c in classes for k, f in vars(c).items()]
    methods = [(k, f) for k, f in members if isinstance(f, FunctionType) and not k.startswith("__")]
    found = dict.fromkeys(f for k, f in methods if k in ("step", "forward"))
    names: set[str] = set()
    while len(names) < len(names := names.union(*(_names(f.__code__) for f in found))):
        found.update(dict.fromkeys(f for k, f in methods if k in names))
    for f in [*found]:
        values = [v for _, _, v in global_values(f)] + [v for _, v in closed_values(f)]
        found.update(dict.fromkeys(v for v in values if isinstance(v, FunctionType)))
    return [*found]


def _names(code: CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def global_values(f: FunctionType) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """(namespace, name, value) of the globals that f reads, modules, classes and what is PyTorch's apart."""
    for name in dict.fromkeys(i.argval for i in _instructions(f.__code__) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")):
        value = f.__globals__.get(name, _ABSENT)
        if value is not _ABSENT and _is_users(value):
            yield f.__globals__, name, value


def closed_values(f: FunctionType) -> Iterator[tuple[CellType, Any]]:
    """(cell, contents) of the variables that f closes over, with the same exceptions."""
    for cell in f.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not yet given a value
            continue
        if _is_users(value):
            yield cell, value


def hidden_input(f: FunctionType) -> tuple[str, str, int] | None:
    """What f asks for that no trace can see, if anything: (what, file, line)."""
    line = f.__code__.co_firstlineno
    owner: Any = None
    for i in _instructions(f.__code__):
        line = (i.positions.lineno if i.positions else None) or line
        if not isinstance(i.argval, str):
            continue
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            owner = f.__globals__.get(i.argval)
        elif i.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            owner = getattr(owner, i.argval, None) if isinstance(owner, ModuleType) else None
        else:
            continue
        if owner is torch.is_grad_enabled:
            return "asks whether gradients are on (is_grad_enabled)", f.__code__.co_filename, line
        if _is_random(owner):
            return f"draws random numbers ({i.argval})", f.__code__.co_filename, line
    return None


def _is_random(value: Any) -> bool:
    home = value.__name__ if isinstance(value, ModuleType) else type(getattr(value, "__self__", None)).__module__
    return (
        value is random
        or isinstance(getattr(value, "__self__", None), random.Random)
        or home.startswith("numpy.random")
    )


def _is_users(value: Any) -> bool:
    return (
        not isinstance(value, _NOT_VALUES) and (getattr(value, "__module__", None) or "").partition(".")[0] != "torch"
    )


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for inner in code.co_consts:  # lambdas, comprehensions
        if isinstance(inner, CodeType):
            yield from _instructions(inner)

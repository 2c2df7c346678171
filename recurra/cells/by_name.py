"""Cells by their names in small letters, as settings and the command line write them; a person's own by their class."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from recurra import cells
from recurra.cell import Cell
from recurra.errors import InputError, kind_of

NAMES = {name.lower(): name for name in cells.__all__} | {"rnn": "Elman"}  # torch.nn's name for it

_NONE: Mapping[str, type[Cell]] = MappingProxyType({})
_own: ContextVar[Mapping[str, type[Cell]]] = ContextVar("own", default=_NONE)


@contextmanager
def own_cells(given: Mapping[str, type[Cell]] | None) -> Iterator[None]:
    """Within it, cells of these names are of these classes. Raises InputError for what is no class of a cell."""
    for name, kind in (given or {}).items():
        if not isinstance(kind, type) or not issubclass(kind, Cell):
            raise InputError(f"cells[{name!r}] is {kind_of(kind)}; give a class derived from recurra.Cell.")
        if name.lower() in NAMES:
            raise InputError(f"A cell called {name} is one of Recurra's own; give yours another name.")
    token = _own.set({**_own.get(), **(given or {})})
    try:
        yield
    finally:
        _own.reset(token)


def check_named(name: str) -> None:
    """Raises InputError for a name that is neither one of Recurra's cells nor one of `own_cells`."""
    if name not in NAMES and name not in _own.get():
        raise InputError(
            f"The cell {name} is a class of somebody's own, and no code is read from a file; give it, as in "
            f"load(path, cells={{{name!r}: {name}}})."
        )


def kind_named(name: str) -> type[Cell]:
    """The class of that name."""
    check_named(name)
    own: Mapping[str, type[Cell]] = _own.get()
    kind: type[Cell] = own[name] if name in own else getattr(cells, NAMES[name])
    return kind


def takes(name: str, argument: str) -> bool:
    """Whether the cell of that name has an argument: forget_bias, nonlinearity."""
    return argument in inspect.signature(kind_named(name)).parameters


def cell_named(
    name: str, input_size: int, hidden_size: int, forget_bias: float | None = None, nonlinearity: str | None = None
) -> Cell:
    """The cell of that name. What else it must be given (proj_size, output_size) is half the hidden size.

    forget_bias, nonlinearity: for the cells that take them.
    """
    kind = kind_named(name)
    taken = inspect.signature(kind).parameters
    more: dict[str, Any] = {
        p.name: max(1, hidden_size // 2)
        for p in list(taken.values())[2:]
        if p.default is inspect.Parameter.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    if forget_bias is not None and "forget_bias" in taken:
        more["forget_bias"] = forget_bias
    if nonlinearity is not None and "nonlinearity" in taken:
        more["nonlinearity"] = nonlinearity
    cell: Cell = kind(input_size, hidden_size, **more)
    return cell

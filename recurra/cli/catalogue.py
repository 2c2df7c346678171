"""`recurra cells`: the cells that come with Recurra, and each one's equation and program."""

import difflib
import inspect
import json

from rich.console import Console

from recurra import cells
from recurra.cell import Cell
from recurra.cells.by_name import NAMES, cell_named
from recurra.cli.output import show
from recurra.errors import InputError
from recurra.unroll import describe

WIDEST = 4096  # weights are made, to trace the step


def show_all(as_json: bool) -> None:
    """One line a cell: its name and the first line of its equation."""
    lines = {name: (inspect.getdoc(getattr(cells, name)) or "").splitlines()[0] for name in cells.__all__}
    if as_json:
        print(json.dumps(lines, ensure_ascii=False))
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
    print("\nrecurra cells NAME shows one of them whole.")


def show_one(name: str, input_size: int, hidden_size: int, as_json: bool) -> None:
    """Equation, parameters, program and operations of one cell."""
    cell = make(name, input_size, hidden_size)
    console = Console(highlight=False, markup=False)
    if as_json or not console.is_terminal:
        shapes = {name: list(p.shape) for name, p in cell.named_parameters()}
        show(describe(cell), as_json, parameter_shapes=shapes)
    else:  # the user's line, at the right of each operation, is cut where the terminal ends
        console.print(str(describe(cell)), no_wrap=True, overflow="ellipsis")


def make(name: str, input_size: int, hidden_size: int) -> Cell:
    """The cell of that name. Raises InputError for a name or a width that cannot be used."""
    if name.lower() not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, 1)
        hint = f"did you mean {NAMES[near[0]]}?" if near else "there are " + ", ".join(cells.__all__) + "."
        raise InputError(f"There is no cell {name}; {hint}")
    for flag, size in (("--input-size", input_size), ("--hidden-size", hidden_size)):
        if not 1 <= size <= WIDEST:
            raise InputError(f"{flag} is {size}; give 1 to {WIDEST}.")
    return cell_named(name.lower(), input_size, hidden_size)

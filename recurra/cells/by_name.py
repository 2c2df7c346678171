"""Cells by their names in small letters, as settings and the command line write them."""

import inspect

from recurra import cells
from recurra.cell import Cell

NAMES = {name.lower(): name for name in cells.__all__} | {"rnn": "Elman"}  # torch.nn's name for it


def cell_named(name: str, input_size: int, hidden_size: int, forget_bias: float | None = None) -> Cell:
    """The cell of that name. What else it must be given (proj_size, output_size) is half the hidden size.

    forget_bias: for the cells that take one.
    """
    kind = getattr(cells, NAMES[name])
    taken = inspect.signature(kind).parameters
    more: dict[str, float] = {
        p.name: max(1, hidden_size // 2) for p in list(taken.values())[2:] if p.default is inspect.Parameter.empty
    }
    if forget_bias is not None and "forget_bias" in taken:
        more["forget_bias"] = forget_bias
    cell: Cell = kind(input_size, hidden_size, **more)
    return cell

"""The contract of a cell: the class, and the checks of classes, steps and the arguments of a call."""

from recurra.cell.arguments import check_input, check_lengths, check_states
from recurra.cell.base import Cell, initial_states, one_step, output_width
from recurra.cell.steps import split

__all__ = [
    "Cell",
    "check_input",
    "check_lengths",
    "check_states",
    "initial_states",
    "one_step",
    "output_width",
    "split",
]

"""The contract of a cell: the class, and the checks of classes, steps and the arguments of a call."""

from recurra.cell.arguments import (
    autocast_is_on,
    check_dtypes,
    check_input,
    check_lengths,
    check_made_states,
    check_resets,
    check_sides,
    check_states,
    check_tensor,
    no_truth,
)
from recurra.cell.base import (
    Cell,
    call_sides,
    call_with,
    check_made,
    drawn_weights,
    initial_states,
    misshapen,
    one_step,
    output_width,
    places_lock,
    rows_like,
    telling_batches,
    trial_step,
    undisturbed,
    unscriptable,
)
from recurra.cell.frames import has_lines, has_variables, machinery, wrapping
from recurra.cell.gradients import Tapping
from recurra.cell.resets import Resets, reset_side, resetting
from recurra.cell.steps import check_width, split
from recurra.cell.variables import Showing, recordable
from recurra.cell.wrapper import Wrapper, innermost

__all__ = [
    "Cell",
    "Resets",
    "Showing",
    "Tapping",
    "Wrapper",
    "autocast_is_on",
    "call_sides",
    "call_with",
    "check_dtypes",
    "check_input",
    "check_lengths",
    "check_made",
    "check_made_states",
    "check_resets",
    "check_sides",
    "check_states",
    "check_tensor",
    "check_width",
    "drawn_weights",
    "has_lines",
    "has_variables",
    "initial_states",
    "innermost",
    "machinery",
    "misshapen",
    "no_truth",
    "one_step",
    "output_width",
    "places_lock",
    "recordable",
    "reset_side",
    "resetting",
    "rows_like",
    "split",
    "telling_batches",
    "trial_step",
    "undisturbed",
    "unscriptable",
    "wrapping",
]

"""The passes in their order, with verification and printing between them."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor

from recurra.cell import Cell
from recurra.errors import InputError
from recurra.passes.accumulate import accumulate
from recurra.passes.derive import derive
from recurra.passes.distribute import distribute
from recurra.passes.fuse import fuse, fuse_backward
from recurra.passes.hoist import hoist
from recurra.passes.materialise import materialise
from recurra.passes.merge import merge
from recurra.passes.narrow import narrow
from recurra.passes.reassociate import reassociate
from recurra.passes.record import record, unrecorded
from recurra.passes.sink import sink
from recurra.passes.tap import tap
from recurra.passes.variance import variance
from recurra.passes.widen import widen
from recurra.program.plan import Backward, Plan, Step
from recurra.program.text import plan_text, step_text
from recurra.program.trace import outside_transforms, trace
from recurra.program.verify import verify_backward, verify_plan, verify_step

REWRITES: tuple[Callable[[Step], Step], ...] = (variance, distribute, reassociate, merge, widen, narrow, materialise)
SPLIT: tuple[Callable[[Plan], Plan], ...] = (sink, fuse)
PASSES = (
    *("trace", *[p.__name__ for p in REWRITES], "rewrite", "hoist", *[p.__name__ for p in SPLIT]),
    *("accumulate", "schedule"),
)
P = TypeVar("P")


def compile_step(cell: Cell, weights: Mapping[str, Tensor] | None = None) -> tuple[Plan, Backward]:
    """Traces the cell's step and runs every pass. Raises `trace.Untraceable` for a step that cannot be a program.

    weights: stand-ins by name for the cell's own; the plan holds their shapes, never their numbers.
    """
    named = own_weights(cell)
    if weights is not None:
        named |= weights
    with outside_transforms():
        step, _ = trace(cell, named)
    plan = plan_of(step)
    return plan, backward_of(plan)


def own_weights(cell: Cell) -> dict[str, Tensor]:
    """The cell's parameters and buffers by name."""
    return {**dict(cell.named_parameters()), **dict(cell.named_buffers())}


def plan_of(step: Step, tapped: bool = False) -> Plan:
    """The forward passes. tapped: with one input more for each state, whose gradients are those of the states."""
    _check_name()
    _show("trace", step_text, verify_step(step))
    for rewrite in REWRITES:
        step = verify_step(rewrite(step))
        _show(rewrite.__name__, step_text, step)
    _show("rewrite", step_text, step)
    if tapped:  # now, so that no sum is taken apart for it, and every number is made as it is without
        step = verify_step(tap(step))
        _show("tap", step_text, step)
    return split(step)


def split(step: Step) -> Plan:
    """A step as three parts, without rewriting it: what is derived of a plan is written already."""
    plan = verify_plan(hoist(verify_step(step)))
    _show("hoist", plan_text, plan)
    for part in SPLIT:
        plan = verify_plan(part(plan))
        _show(part.__name__, plan_text, plan)
    return plan


def backward_of(plan: Plan) -> Backward:
    """The backward passes."""
    backward = verify_backward(plan, accumulate(plan, derive(plan)))
    _show("accumulate", lambda b: plan_text(plan, b), backward)
    backward = verify_backward(plan, fuse_backward(backward))
    _show("schedule", lambda b: plan_text(plan, b), backward)
    return backward


def recorded(plan: Plan, backward: Backward) -> tuple[Plan, Backward]:
    """A plan, with its backward, that also shows what is watched: see `record`."""
    shown = verify_plan(record(plan))
    _show("record", plan_text, shown)
    return shown, verify_backward(shown, unrecorded(plan, backward))


def _check_name() -> None:
    name = os.environ.get("RECURRA_SHOW", "")
    shown = (*PASSES, "tap", "record")  # the last two where somebody watches
    if name and name not in (*shown, "all"):
        raise InputError(f"RECURRA_SHOW is {name!r}, but the passes are {', '.join(shown)}; or say all.")


def _show(name: str, text: Callable[[P], str], program: P) -> None:
    if os.environ.get("RECURRA_SHOW") in (name, "all"):
        sys.stderr.write(f"# after {name}\n{text(program)}\n")

"""From a cell's step to a plan and its backward: one textbook optimisation a file, each verified after it has run.

    compile_step(cell, weights=None) -> (Plan, Backward)     the whole way
    plan_of(step), backward_of(plan)          its two halves, after trace.trace(cell, weights)
    recorded(plan, backward)                  the two that also show what the step watches
    reverse(plan), history(plan), split(step) what second derivatives are made of
    PASSES                                    the passes in their order

RECURRA_SHOW=<pass> (or all) prints the program after that pass.
"""

from recurra.passes.pipeline import PASSES, backward_of, compile_step, own_weights, plan_of, recorded, split
from recurra.passes.reverse import Reverse, history, reverse
from recurra.passes.tap import ZERO

__all__ = [
    "PASSES", "ZERO", "Reverse", "backward_of", "compile_step", "history", "own_weights", "plan_of", "recorded",
    "reverse", "split",
]  # fmt: skip

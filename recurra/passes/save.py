"""Save or recompute: what the forward pass keeps for the backward one.

One rule: go through the forward values that the backward names, in order. Inputs, states and the output are there
anyway. A few pointwise operations on what is at hand are computed again; what follows a product or a sum over a row, or
takes longer than a row takes to be read, is saved. LSTM: four values a unit and step; GRU: four, three of them over the
hoisted stream; Elman: none.
"""

import math
from collections.abc import Iterable

from recurra.program.graph import ordered
from recurra.program.ops import OPS
from recurra.program.plan import Plan
from recurra.program.values import Value
from recurra.program.views import is_view

# In multiply-adds a number: one function, and a few operations around it, are as fast as memory.
FUNCTIONS = dict.fromkeys("sigmoid tanh exp expm1 log log1p erf softplus".split(), 4)
_MOST = 7


def remembered(
    plan: Plan, values: Iterable[Value], backward: set[Value], ends: Iterable[Value]
) -> tuple[tuple[Value, ...], set[Value]]:
    """What to save, and all that is at hand in the backward parts without computing it again.

    values: everything of the derivative, operands first; backward: those of them that depend on a cotangent.
    """
    forward = ordered([*plan.nexts, plan.output])
    place = {v: k for k, v in enumerate(forward)}
    at_hand = {*plan.inputs.values(), *plan.states.values(), *plan.nexts, plan.output}
    saved: dict[Value, None] = {}
    costs: dict[Value, float] = {}

    def cost(v: Value) -> float:
        """Of computing a value again, as often as it is named on the way."""
        if not v.is_row or v in at_hand or v in saved:
            return 0
        if v not in costs:
            again = not v.is_leaf and OPS[v.op].kind in ("pointwise", "shape")
            own = 0 if is_view(v) else FUNCTIONS.get(v.op, 1)
            costs[v] = own + sum(map(cost, v.args)) if again else math.inf
        return costs[v]

    named = [a for v in values if v in backward for a in v.args] + list(ends)
    for v in sorted(_forward(named, place, backward), key=place.__getitem__):
        if cost(v) > _MOST:
            saved[v] = None
            costs.clear()  # what was out of reach may have come into it
    at_hand |= set(saved)
    return tuple(sorted(saved, key=place.__getitem__)), at_hand


def _forward(named: Iterable[Value], place: dict[Value, int], backward: set[Value]) -> set[Value]:
    """The forward values behind what is named: new operations on forward values stand for their operands."""
    found: set[Value] = set()
    stack = [v for v in named if v not in backward]
    while stack:
        v = stack.pop()
        if v in place:
            found.add(v)
        else:
            stack.extend(v.args)
    return {v for v in found if v.is_row}

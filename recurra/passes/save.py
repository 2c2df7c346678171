"""Save or recompute: what the forward pass keeps for the backward one.

One rule: go through the forward values that the backward names, in order. Inputs, states and the output are there
anyway. A pointwise operation whose operands are at hand is computed again; whatever follows a product or a sum over a
row is saved. LSTM: four values a unit and step; GRU: four, of which three lie over the hoisted stream; Elman: none.

One exception: what hoisting took out of the loop is not brought back into the reverse loop where it takes a function.
minLSTM: keep = σ(softplus(-i) - softplus(-f)) depends on x alone, and is saved too.
"""

from collections.abc import Iterable

from recurra.program.graph import ordered
from recurra.program.ops import OPS
from recurra.program.plan import Plan
from recurra.program.values import Value

FUNCTIONS = ("sigmoid", "tanh", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "erf", "softplus")


def remembered(
    plan: Plan, values: Iterable[Value], backward: set[Value], ends: Iterable[Value], loop: Iterable[Value]
) -> tuple[tuple[Value, ...], set[Value]]:
    """What to save, and all that is at hand in the backward parts without computing it again.

    values: everything of the derivative, operands first; backward: those of them that depend on a cotangent; loop:
    the operations of the reverse loop.
    """
    forward = ordered([*plan.nexts, plan.output])
    place = {v: k for k, v in enumerate(forward)}
    at_hand = {*plan.inputs.values(), *plan.states.values(), *plan.nexts, plan.output}
    saved: dict[Value, None] = {}
    cheap: dict[Value, bool] = {}

    def available(v: Value) -> bool:
        if not v.is_row or v in at_hand or v in saved:
            return True
        if v not in cheap:
            cheap[v] = not v.is_leaf and OPS[v.op].kind in ("pointwise", "shape") and all(map(available, v.args))
        return cheap[v]

    def takes_function(v: Value) -> bool:
        there = v.is_leaf or v in at_hand or v in saved
        return not there and (v.op in FUNCTIONS or any(map(takes_function, v.args)))

    named = [a for v in values if v in backward for a in v.args] + list(ends)
    hoisted = _forward([a for v in loop for a in v.args], place, backward) & set(plan.before)
    for v in sorted(_forward(named, place, backward), key=place.__getitem__):
        if not available(v) or (v in hoisted and takes_function(v)):
            saved[v] = None
            for u in [u for u, yes in cheap.items() if not yes]:  # what was out of reach may have come into it
                del cheap[u]
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

"""Save or recompute: what the forward pass keeps for the backward one.

One rule: go through the forward values that the backward names, in order. Inputs, states and the output are there anyway.
A pointwise operation whose operands are at hand is computed again; whatever follows a product or a sum over a row is saved.
LSTM: four values a unit and step; GRU: four, of which three lie over the hoisted stream; Elman: none.
"""

from collections.abc import Iterable

from recurra.program.graph import ordered
from recurra.program.ops import OPS
from recurra.program.plan import Plan
from recurra.program.values import Value


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
    cheap: dict[Value, bool] = {}

    def available(v: Value) -> bool:
        if not v.is_row or v in at_hand or v in saved:
            return True
        if v not in cheap:
            cheap[v] = not v.is_leaf and OPS[v.op].kind in ("pointwise", "shape") and all(map(available, v.args))
        return cheap[v]

    def keep(v: Value) -> None:
        if available(v):
            return
        if v in place:
            saved[v] = None
            for u in [u for u, yes in cheap.items() if not yes]:  # what was out of reach may have come into it
                del cheap[u]
        else:  # a new operation on forward values: its operands decide
            for a in v.args:
                keep(a)

    named = [a for v in values if v in backward for a in v.args] + list(ends)
    named = [v for v in dict.fromkeys(named) if v.is_row and v not in backward]
    for v in sorted(named, key=lambda v: place.get(v, len(place))):
        keep(v)
    at_hand |= set(saved)
    return tuple(sorted(saved, key=place.__getitem__)), at_hand

"""Reverse: the backward pass of a plan as a plan of its own, in reverse time, so that it can be derived again.

    states    what flows back to the states from later steps
    inputs    the step's inputs, `previous` (its previous states side by side), `d_output`: those of them that it reads
    output    side by side, the rows of which gradients are made

Forward values are computed from the inputs again, all of them ahead of the loop: nothing saved is ever differentiated.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from recurra.passes.derive import Derivative, derive
from recurra.program.graph import Graph, ordered
from recurra.program.plan import Plan, Step, gradients_of
from recurra.program.values import Value
from recurra.program.views import uncut

Columns = tuple[int, int, int]
"""(which of the step's inputs, or behind those which piece of its output; first column; end)."""


@dataclass(frozen=True, slots=True)
class Reverse:
    """A step whose last states are the gradients of the plan's first states, and what its rows mean.

    reads     for each of its inputs, which it is of [*inputs of the plan, previous, d_output]
    pieces    widths of what lies side by side in its output
    d_inputs  where the gradient of each input of the plan lies (None: zero)
    matrices  (place of a static in the plan, left, right): its gradient gains leftᵀ @ right over all rows
    vectors   (place of a static in the plan, rows): its gradient gains the sum over all rows
    """

    step: Step
    reads: tuple[int, ...]
    pieces: tuple[int, ...]
    d_inputs: tuple[Columns | None, ...]
    matrices: tuple[tuple[int, Columns, Columns], ...]
    vectors: tuple[tuple[int, Columns], ...]


def history(plan: Plan) -> Step:
    """The plan's step with all its next states, side by side, as the output."""
    return Step(plan.name, plan.inputs, plan.states, plan.nexts, Graph()("cat", *plan.nexts))


def reverse(plan: Plan) -> Reverse | None:
    """The backward pass of `plan`; None when nothing that flows back reaches a gradient."""
    d, g = derive(plan), Graph()
    leaves, states, new = _leaves(plan, d)
    ends = gradients_of(d)
    _rename([*ends, *[v for v in d.d_states if v is not None]], new)
    ends = [new[v] for v in ends]
    pieces = list(dict.fromkeys(v for v in ends if uncut(v)[0] not in leaves))
    if not pieces:
        return None
    nexts = tuple(
        g("broadcast", 0.0, s.width) if v is None else new[v]
        for v, s in zip(d.d_states, plan.states.values(), strict=True)
    )
    output = g("cat", *pieces)
    # d_output is always among them: how many rows there are is known from an input
    read = {*ordered([*nexts, output]), *[uncut(v)[0] for v in ends], leaves[-1]}
    reads = tuple(k for k, leaf in enumerate(leaves) if leaf in read)
    inputs = [leaves[k] for k in reads]
    places = {v: k for k, v in enumerate([*inputs, *pieces])}

    def where(v: Value) -> Columns:
        v = new[v]
        whole, column = (v, 0) if v in places else uncut(v)
        return places[whole], column, column + v.width

    statics = {s: k for k, s in enumerate(plan.statics)}
    return Reverse(
        step=Step(f"{plan.name} in reverse", {v.name: v for v in inputs}, states, nexts, output),
        reads=reads,
        pieces=tuple(v.width for v in pieces),
        d_inputs=tuple(None if v is None else where(v) for v in d.d_inputs.values()),
        matrices=tuple((statics[s], where(left), where(right)) for s, left, right in d.matrices),
        vectors=tuple((statics[s], where(v)) for s, v in d.vectors),
    )


def _rename(values: Iterable[Value], new: dict[Value, Value]) -> None:
    """Adds to `new` the same operations on what has become of their operands."""
    for v in ordered(values):
        if v not in new:
            new[v] = v if v.is_leaf else replace(v, args=tuple(new[a] for a in v.args))


def _leaves(plan: Plan, d: Derivative) -> tuple[list[Value], dict[str, Value], dict[Value, Value]]:
    """What the reverse step may read, its states, and what becomes of the leaves of the derivative."""
    taken = {*plan.inputs, *plan.states}
    g = Graph()
    previous = g.leaf("input", _fresh("previous", taken), sum(s.width for s in plan.states.values()))
    d_output = g.leaf("input", _fresh("d_output", taken), plan.output.width)
    states = {f"d_{k}": g.leaf("state", f"d_{k}", s.width) for k, s in plan.states.items()}
    new = {v: v for v in plan.inputs.values()}
    at = 0
    for s in plan.states.values():
        new[s] = g("slice", previous, at, at + s.width)
        at += s.width
    new |= dict(zip(d.d_nexts, states.values(), strict=True))
    if d.d_output is not None:
        new[d.d_output] = d_output
    return [*plan.inputs.values(), previous, d_output], states, new


def _fresh(name: str, taken: set[str]) -> str:
    """A name that the plan does not use: derivatives of derivatives have such inputs themselves."""
    while name in taken:
        name = f"{name}_"
    return name

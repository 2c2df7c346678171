"""Tap: rows of zeros are added to the next states, so that their gradients are those of the states.

s_t + τ_t has dL/dτ_t = dL/ds_t, through every later step and through an output that reads s_t within its own: what no
addition outside of the step could see. The zeros are negative: x + (-0) is x to the last bit, also where x is a zero.
"""

from dataclasses import replace

from recurra.passes.rebuild import New, again, rebuild
from recurra.program.graph import Graph
from recurra.program.plan import Step
from recurra.program.values import Value

ZERO = -0.0


def tap(step: Step) -> Step:
    """The step with one input more for each state, as wide, behind the inputs that it has.

    A next state that is an input, or a previous state as it was, is tapped where it becomes the next state and where it
    is the output; every other is tapped for all that reads it.
    """
    inputs = _inputs(step)
    taps: dict[Value, list[Value]] = {}  # of two states that are one value, each has its own
    for v, found in zip(step.nexts, inputs, strict=True):
        taps.setdefault(v, []).append(found)

    def rule(g: Graph, v: Value, new: New) -> Value | None:
        return None if v not in taps else _added(g, again(g, v, new), taps[v])

    moved = rebuild(step, rule)
    ends = {v: _added(Graph(), v, found) for v, found in taps.items() if v.is_leaf}
    return replace(
        moved,
        inputs={**step.inputs, **{t.name: t for t in inputs}},
        nexts=tuple(ends.get(old, new) for old, new in zip(step.nexts, moved.nexts, strict=True)),
        output=ends.get(step.output, moved.output),
        watched=tuple(ends.get(old, new) for old, new in zip(step.watched, moved.watched, strict=True)),
    )


def _inputs(step: Step) -> list[Value]:
    """One for each state."""
    taken, inputs = {*step.inputs, *step.states}, []
    for state, v in step.states.items():
        name = f"tap_{state}"
        while name in taken:
            name = f"tap_{name}"
        taken.add(name)
        inputs.append(Value("input", (), (name,), v.width, name))
    return inputs


def _added(g: Graph, v: Value, taps: list[Value]) -> Value:
    for t in taps:
        v = g("add", v, t)
    return v

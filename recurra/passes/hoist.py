"""Hoist: what depends on inputs and weights only is computed for all rows at once, before the loop."""

from recurra.passes.parts import listing
from recurra.passes.rebuild import everything
from recurra.program.graph import reaches
from recurra.program.plan import Plan, Step, exported_of, streams_of
from recurra.program.text import statics_of
from recurra.program.values import Value
from recurra.program.views import is_view


def hoist(step: Step) -> Plan:
    """Splits a step into before and loop. Everything that depends on a previous state is in the loop for now.

    Views of hoisted values (slices, broadcasts) stay where they are read, or one wide stream would become several.
    """
    recurs = reaches(everything(step), step.states.values())
    roots = [*step.nexts, step.output]
    body = listing(roots, lambda v: v in recurs or is_view(v))
    wanted = [v for v in (*[a for v in body for a in v.args], *roots) if not is_view(v)]
    before = listing(wanted, lambda v: v not in recurs)
    return Plan(
        name=step.name,
        inputs=step.inputs,
        states=step.states,
        nexts=step.nexts,
        output=step.output,
        statics=statics_of([*before, *body]),
        before=before,
        body=body,
        after=(),
        streams=streams_of(before, body, step.inputs.values(), step.nexts),
        exported=exported_of(body, (), step.nexts, step.output),
        linear=linear(step),
        watched=step.watched,
    )


def linear(step: Step) -> str:
    """How the next states depend on the previous ones: "none", "diag" (a scan would do), "dense" (linear), or "no"."""
    rank: dict[Value, int] = dict.fromkeys(step.states.values(), 1)
    for v in everything(step):
        if v not in rank:
            rank[v] = _rank(v, [rank[a] for a in v.args])
    names = {0: "none", 1: "diag", 2: "dense"}
    return names.get(max(rank[v] for v in step.nexts), "no")


def _rank(v: Value, k: list[int]) -> int:
    if not any(k):
        return 0
    if v.op in ("add", "sub", "neg"):
        return max(k)
    if v.op in ("slice", "cat", "broadcast", "rowsum") or v.is_product:
        return max(2, *k)
    if v.op == "mul":
        return 9 if all(k) else max(k)
    if (v.op == "div" and not k[1]) or (v.op == "select" and not k[0]):
        return max(k)
    return 9

"""Reassociate: in a sum, what does not recur is added first, then products, then the rest.

Otherwise a bias on the recurrent weight, or x + (h + b), would stay in the loop.
"""

from recurra.passes.rebuild import New, everything, rebuild, roots, users
from recurra.program.graph import Graph, reaches
from recurra.program.plan import Step
from recurra.program.values import Value


def reassociate(step: Step) -> Step:
    """Orders the terms of every sum whose partial sums nothing else reads."""
    used, out = users(step), roots(step)
    recurs = reaches(everything(step), step.states.values())
    # a partial sum of the same width, read by one other sum alone
    inner = {
        v
        for v in everything(step)
        if v.op == "add"
        and v not in out
        and len(used[v]) == 1
        and used[v][0].op == "add"
        and used[v][0].width == v.width
    }

    def terms(v: Value) -> list[Value]:
        return [t for a in v.args for t in (terms(a) if a in inner else [a])]

    def rank(t: Value) -> int:
        return 0 if t not in recurs else 1 if t.is_product else 2

    def rule(g: Graph, v: Value, new: New) -> Value | None:
        if v.op != "add" or v in inner:
            return None
        first, *rest = sorted(terms(v), key=rank)
        y = new[first]
        for t in rest:
            y = g("add", y, new[t])
        return y

    return rebuild(step, rule)

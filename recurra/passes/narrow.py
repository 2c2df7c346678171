"""Narrow: an operation of which only slices are read is done on slices of its operands.

sigmoid(z)[:, :H] becomes sigmoid(z[:, :H]), so that every gate is H wide. Only in the loop: elsewhere one wide value is
better than four. A sum with a product stays whole: the machine begins the product's accumulator with the other term. So
does an operation with a weight, which would have to be cut at each call, and what is computed of it.
"""

from recurra.passes.rebuild import New, everything, rebuild, roots, users
from recurra.program.graph import Graph, reaches
from recurra.program.ops import OPS
from recurra.program.plan import Step
from recurra.program.values import Value


def narrow(step: Step) -> Step:
    """Pushes slices towards the products."""
    used, out = users(step), roots(step)
    recurs = reaches(everything(step), step.states.values())
    thin: set[Value] = set()
    for v in reversed(everything(step)):
        if v.is_leaf or OPS[v.op].kind != "pointwise" or v in out or v.width == 1:
            continue
        if v not in recurs or any(a.op == "static" and a.shape for a in v.args):
            continue
        if v.op == "add" and any(a.is_product for a in v.args):
            continue
        if all(u.op == "slice" or u in thin for u in used[v]):
            thin.add(v)
    for v in everything(step):  # operands first
        whole = [a for a in v.args if a.width == v.width and a in recurs and a not in thin]
        if any(not a.is_leaf and OPS[a.op].kind == "pointwise" for a in whole):
            thin.discard(v)

    def cut(g: Graph, v: Value, lo: int, hi: int, new: New) -> Value:
        if v.width == 1:
            return new[v]
        if v not in thin:
            return g("slice", new[v], lo, hi)
        operands = [cut(g, a, lo, hi, new) for a in v.args]
        g.line = v.line
        return g(v.op, *operands)

    def rule(g: Graph, v: Value, new: New) -> Value | None:
        return cut(g, v.args[0], int(v.attr[0]), int(v.attr[1]), new) if v.op == "slice" else None

    return rebuild(step, rule)

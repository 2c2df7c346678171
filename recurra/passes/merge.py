"""Merge: products with the same left operand become one product with the weights put together."""

from collections import defaultdict

from recurra.passes.rebuild import New, everything, rebuild
from recurra.program.graph import Graph, ordered
from recurra.program.plan import Step
from recurra.program.values import Call, Expression, Value


def merge(step: Step) -> Step:
    """One wide product instead of several thin ones; what the loop needs and what only the output needs stay apart."""
    needed = set(ordered(step.nexts))
    groups: dict[tuple[Value, bool], list[Value]] = defaultdict(list)
    for v in everything(step):
        if v.is_product:
            groups[v.args[0], v in needed].append(v)

    def rule(g: Graph, v: Value, new: New) -> Value | None:
        if not v.is_product:
            return None
        group = groups[v.args[0], v in needed]
        if len(group) < 2 or v not in group:
            return None
        wide = g("mm", new[v.args[0]], _together(g, group))
        at = sum(p.width for p in group[: group.index(v)])
        return g("slice", wide, at, at + v.width)

    return rebuild(step, rule)


def _together(g: Graph, group: list[Value]) -> Value:
    weights: list[Expression] = []
    for product in group:
        e = product.args[1].expr
        assert e is not None
        weights.append(e if product.op == "mm" else Call("aten.t.default", (e,)))
    shape = (sum(p.width for p in group), group[0].args[0].width)
    return g.static(Call("aten.cat.default", (tuple(weights), 0)), shape)

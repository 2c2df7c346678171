"""Widen: additions to all the slices of one value become one addition to the value.

Four gates written one by one, each with its own bias, become the sum of one product and one bias.
"""

from collections.abc import Sequence

from recurra.passes.rebuild import New, rebuild, roots, users
from recurra.program.graph import Graph
from recurra.program.plan import Step
from recurra.program.values import Call, Expression, Value

Group = tuple[Value, list[tuple[Value, Value]]]
"""A wide value and, slice by slice, (the addition, its other operand)."""


def widen(step: Step) -> Step:
    """Repeated until nothing more can be put together."""
    while True:
        found = _groups(step)
        if not found:
            return step
        step = _apply(step, found)


def _groups(step: Step) -> list[Group]:
    used, out = users(step), roots(step)
    found = []
    for wide, slices in used.items():
        slices = sorted(set(slices), key=lambda s: s.attr) if all(s.op == "slice" for s in slices) else []
        if wide in out or len(slices) < 2 or not _partition(slices, wide.width) or any(s in out for s in slices):
            continue
        adds = [
            used[s][0] for s in slices if len(used[s]) == 1 and used[s][0].op == "add" and used[s][0].width == s.width
        ]
        if len(adds) != len(slices):
            continue
        others = [a.args[1] if a.args[0] is s else a.args[0] for a, s in zip(adds, slices, strict=True)]
        if _joinable(wide, slices, others):
            found.append((wide, list(zip(adds, others, strict=True))))
    taken: set[Value] = set()  # an addition of two slices belongs to two groups: the first has it
    disjoint = []
    for wide, members in found:
        if not taken & {a for a, _ in members}:
            disjoint.append((wide, members))
            taken |= {a for a, _ in members}
    return disjoint


def _partition(slices: Sequence[Value], width: int) -> bool:
    ends = [0, *[int(s.attr[1]) for s in slices]]
    return ends[-1] == width and all(int(s.attr[0]) == end for s, end in zip(slices, ends, strict=False))


def _joinable(wide: Value, slices: Sequence[Value], others: Sequence[Value]) -> bool:
    if all(o.op == "static" and o.shape == (s.width,) for s, o in zip(slices, others, strict=True)):
        return True
    source = others[0].args[0] if others[0].op == "slice" else None
    return source is not None and all(
        source.width == wide.width and o.op == "slice" and o.args[0] is source and o.attr == s.attr
        for s, o in zip(slices, others, strict=True)
    )


def _apply(step: Step, groups: Sequence[Group]) -> Step:
    of = {add: (wide, members) for wide, members in groups for add, _ in members}

    def rule(g: Graph, v: Value, new: New) -> Value | None:
        if v not in of:
            return None
        wide, members = of[v]
        at = sum(a.width for a, _ in members[: [a for a, _ in members].index(v)])
        other = dict(members)[v]
        joined = new[other.args[0]] if other.op == "slice" else _cat(g, [o for _, o in members])
        return g("slice", g("add", new[wide], joined), at, at + v.width)

    return rebuild(step, rule)


def _cat(g: Graph, parts: Sequence[Value]) -> Value:
    exprs: list[Expression] = []
    for p in parts:
        assert p.expr is not None
        exprs.append(p.expr)
    return g.static(Call("aten.cat.default", (tuple(exprs), 0)), (sum(p.width for p in parts),))

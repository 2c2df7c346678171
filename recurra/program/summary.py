"""What a plan does, in numbers and words: for `explain` and for the description of a cell."""

from collections import Counter
from collections.abc import Iterable

from recurra.program.ops import OPS
from recurra.program.plan import Backward, Plan
from recurra.program.values import Value

_VIEWS = ("slice", "broadcast", "cat")


def operations(part: Iterable[Value]) -> str:
    """ "1 mm, 2 sigmoid, 1 fma" ; "nothing" for an empty part."""
    counted = Counter(v.op for v in part if v.op not in _VIEWS)
    return ", ".join(f"{n} {op}" for op, n in counted.items()) or "nothing"


def multiply_adds(part: Iterable[Value]) -> int:
    """Multiply-adds of the products of a part, for one row."""
    return sum(v.args[1].shape[0] * v.args[1].shape[1] for v in part if v.is_product)


def pointwise(part: Iterable[Value]) -> int:
    """Numbers computed one by one in a part, for one row."""
    return sum(max((a.width for a in v.args), default=1) for v in part if OPS[v.op].kind in ("pointwise", "reduction"))


def named(v: Value) -> str:
    """What the user would call a value."""
    return v.name or (v.line.rpartition(": ")[2] if v.line else v.op)


def widths(values: Iterable[Value]) -> str:
    """Numbers a row and step, in all."""
    return str(sum(v.width for v in values))


def part_lines(plan: Plan, backward: Backward | None) -> list[str]:
    """One line for each thing the passes did."""
    fused = sum(v.op == "fma" for part in (plan.before, plan.body, plan.after) for v in part)
    lines = [
        f"before the loop (hoisted): {operations(plan.before)}",
        f"in the loop:               {operations(plan.body)}",
        f"after the loop (sunk):     {operations(plan.after)}",
        f"fused:                     {fused} multiply-add{'' if fused == 1 else 's'}",
        f"operations a step and row: {_numbers(plan)}",
    ]
    if plan.linear in ("none", "diag", "dense"):
        kinds = {"none": "no state is read", "diag": "linear, unit by unit", "dense": "linear"}
        lines.append(f"recurrence:                {kinds[plan.linear]}")
    if backward is not None:
        lines.append(f"saved for the backward:    {widths(backward.saved)} numbers a step and row")
        lines.append(f"in the reverse loop:       {operations(backward.body)}")
    return lines


def _numbers(plan: Plan) -> str:
    parts = (("before", plan.before), ("in", plan.body), ("after", plan.after))
    products = ", ".join(f"{multiply_adds(p):,} {title}" for title, p in parts if multiply_adds(p))
    rest = sum(pointwise(p) for _, p in parts)
    return f"multiply-adds of products: {products or 'none'}; {rest:,} one by one"

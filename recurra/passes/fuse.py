"""Fuse: a product of two numbers that only one sum reads becomes a fused multiply-add with it.

Not where the other term is a matrix product: there the machine begins the accumulator with the rest of the sum.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from recurra.program.graph import ordered
from recurra.program.plan import Backward, Plan, gradients_of
from recurra.program.text import statics_of
from recurra.program.values import Value


def fuse(plan: Plan) -> Plan:
    """The forward parts with multiply-adds."""
    parts = (plan.before, plan.body, plan.after)
    (before, body, after), new = _fused(parts, [*plan.nexts, plan.output, *plan.exported, *plan.streams])
    return replace(
        plan,
        before=before,
        body=body,
        after=after,
        nexts=_map(new, plan.nexts),
        output=new.get(plan.output, plan.output),
        streams=_map(new, plan.streams),
        exported=_map(new, plan.exported),
        statics=statics_of([*before, *body, *after]),
        watched=_carried(new, plan.watched),
    )


def fuse_backward(b: Backward) -> Backward:
    """The backward parts with multiply-adds; what they read of the forward parts stays as it is."""
    d_states = [v for v in b.d_states if v is not None]
    outs = [*d_states, *gradients_of(b), *b.streams, *b.exported, *b.saved]
    (after, body, before), new = _fused((b.after, b.body, b.before), outs)
    return replace(
        b,
        after=after,
        body=body,
        before=before,
        d_states=tuple(None if v is None else new.get(v, v) for v in b.d_states),
        d_inputs={k: None if v is None else new.get(v, v) for k, v in b.d_inputs.items()},
        matrices=tuple((s, new.get(left, left), new.get(right, right)) for s, left, right in b.matrices),
        vectors=tuple((s, new.get(rows, rows)) for s, rows in b.vectors),
        streams=_map(new, b.streams),
        exported=_map(new, b.exported),
    )


def _carried(new: Mapping[Value, Value], watched: Iterable[Value]) -> tuple[Value, ...]:
    """What is watched, of the values as they are now; a product that went into a multiply-add stays for itself."""
    made = dict(new)
    for v in ordered(watched):
        if v not in made:
            moved = any(made[a] is not a for a in v.args)
            made[v] = Value(v.op, _map(made, v.args), v.attr, v.width, v.name, v.line) if moved else v
    return _map(made, watched)


def _map(new: dict[Value, Value], values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(new.get(v, v) for v in values)


def _fused(
    parts: Sequence[tuple[Value, ...]], outs: Iterable[Value]
) -> tuple[list[tuple[Value, ...]], dict[Value, Value]]:
    """The parts again, and which value took which one's place."""
    uses = Counter(a for part in parts for v in part for a in v.args)
    uses.update(outs)
    listed = Counter(v for part in parts for v in part)
    gone: set[Value] = set()
    new: dict[Value, Value] = {}
    for part in parts:
        here = set(part)
        for v in part:
            if v in new:
                continue
            product = next((a for a in v.args if _fusible(a, v, here, uses, listed)), None)
            if product is not None:
                gone.add(product)
                other = v.args[1] if v.args[0] is product else v.args[0]
                operands = (*product.args, other)
                new[v] = Value("fma", _map(new, operands), (), v.width, v.name, v.line)
            elif any(a in new for a in v.args):
                new[v] = Value(v.op, _map(new, v.args), v.attr, v.width, v.name, v.line)
    return [tuple(new.get(v, v) for v in part if v not in gone) for part in parts], new


def _fusible(a: Value, total: Value, here: set[Value], uses: Counter[Value], listed: Counter[Value]) -> bool:
    if total.op != "add" or listed[total] != 1:
        return False
    if a.op != "mul" or a not in here or uses[a] != 1 or listed[a] != 1:
        return False
    other = total.args[1] if total.args[0] is a else total.args[0]
    return not other.is_product

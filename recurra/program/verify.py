"""Checks a program after each pass and after loading: shapes, single assignment, operands at hand, states kept."""

from collections.abc import Iterable

from recurra.errors import ProgramError
from recurra.program.graph import ordered
from recurra.program.ops import OPS
from recurra.program.plan import Backward, Plan, Step, gradients_of
from recurra.program.values import Value


def verify_step(step: Step) -> Step:
    """The step itself, or ProgramError."""
    for v in ordered([*step.nexts, step.output]):
        _operation(v)
    _states(step)
    return step


def verify_plan(plan: Plan) -> Plan:
    """The plan itself, or ProgramError."""
    inputs, states = set(plan.inputs.values()), set(plan.states.values())
    before = _part("before", plan.before, inputs)
    body = _part("loop", plan.body, inputs | states | before)
    after = _part("after", plan.after, inputs | states | before | set(plan.exported) | set(plan.nexts))
    known = inputs | states | before | body | after
    _known("a next state", plan.nexts, inputs | states | before | body)
    _known("the output", [plan.output], known)
    _known("exported", plan.exported, body)
    _known("a stream", plan.streams, before | inputs)
    _statics([*plan.before, *plan.body, *plan.after], plan.statics)
    _states(plan)
    if plan.linear not in ("none", "diag", "dense", "no"):
        raise ProgramError(f"linear is none, diag, dense or no, not {plan.linear!r}")
    return plan


def verify_backward(plan: Plan, b: Backward) -> Backward:
    """The backward itself, or ProgramError."""
    _cotangents(plan, b)
    free = {*plan.inputs.values(), *plan.states.values(), *plan.nexts, plan.output}
    free |= set(b.saved) | ({b.d_output} if b.d_output is not None else set())
    _known("saved", b.saved, {*plan.before, *plan.body, *plan.after})
    after = _part("backward after", b.after, free)
    body = _part("backward loop", b.body, free | set(b.d_nexts) | set(b.streams))
    before = _part("backward before", b.before, free | after | set(b.exported))
    everything = free | after | body | before | set(b.d_nexts)
    _known("the gradient of a state", [v for v in b.d_states if v is not None], everything)
    _known("the gradient of an input or a weight", gradients_of(b), free | after | before | set(b.exported))
    _statics([*b.after, *b.body, *b.before], plan.statics)
    for s, left, right in b.matrices:
        if s.shape != (left.width, right.width):
            raise ProgramError(f"the gradient of {s.shape} cannot be {left.width} x {right.width}")
    for s, rows in b.vectors:
        if (s.shape or (1,)) != (rows.width,):
            raise ProgramError(f"the gradient of {s.shape} cannot be a sum of rows {rows.width} wide")
    for v, d in zip(plan.states.values(), b.d_states, strict=True):
        if d is not None and d.width != v.width:
            raise ProgramError(f"the gradient of the state {v.name} is {d.width} wide instead of {v.width}")
    return b


def _part(title: str, part: Iterable[Value], known: set[Value]) -> set[Value]:
    made: set[Value] = set()
    for v in part:
        if v in made:
            raise ProgramError(f"{title} assigns {v.name or v.op} twice")
        _operation(v)
        for a in v.args:
            if a.is_row and a not in made and a not in known:
                raise ProgramError(f"{title}: {v.op} reads {a!r}, which is not at hand there. {v.line}")
        made.add(v)
    return made


def _known(what: str, values: Iterable[Value], known: set[Value]) -> None:
    for v in values:
        if v not in known:
            raise ProgramError(f"{what} is {v!r}, which is not made where it is needed")


def _cotangents(plan: Plan, b: Backward) -> None:
    if len(b.d_nexts) != len(plan.states):
        raise ProgramError(f"{plan.name} has {len(plan.states)} states and {len(b.d_nexts)} cotangents of them")
    for v, d in zip(plan.states.values(), b.d_nexts, strict=True):
        if v.width != d.width:
            raise ProgramError(f"the cotangent of the state {v.name} is {d.width} wide instead of {v.width}")


def _statics(values: Iterable[Value], statics: tuple[Value, ...]) -> None:
    listed = set(statics)
    for v in values:
        for a in v.args:
            if a.op == "static" and a not in listed:
                raise ProgramError(f"{v.op} reads a weight that is not listed. {v.line}")


def _states(p: Step | Plan) -> None:
    if len(p.nexts) != len(p.states):
        raise ProgramError(f"{p.name} has {len(p.states)} states and {len(p.nexts)} next states")
    for s, v in zip(p.states.values(), p.nexts, strict=True):
        if v.width != s.width:
            raise ProgramError(f"{p.name}: the state {s.name} is {s.width} wide and becomes {v.width} wide. {v.line}")


def _operation(v: Value) -> None:
    """One operation: operands of a kind and shape that it takes, and the width that follows."""
    if v.is_leaf:
        return
    row = OPS.get(v.op)
    if row is None:
        raise ProgramError(f"{v.op!r} is not an operation")
    if row.arity is not None and len(v.args) != row.arity:
        raise ProgramError(f"{v.op} takes {row.arity} operands, not {len(v.args)}. {v.line}")
    expected = _width(v, row.kind)
    if expected != v.width:
        raise ProgramError(f"{v.op} of widths {[a.width for a in v.args]} is {expected} wide, not {v.width}. {v.line}")


def _width(v: Value, kind: str) -> int:
    if kind == "product":
        a, W = v.args
        out, inner = (0, 1) if v.op == "mm" else (1, 0)
        if W.op != "static" or len(W.shape) != 2 or W.shape[inner] != a.width:
            raise ProgramError(f"{v.op} of a row {a.width} wide with {W.shape}. {v.line}")
        return W.shape[out]
    if kind == "reduction":
        return 1
    if v.op == "slice":
        lo, hi = v.attr
        if not (isinstance(lo, int) and isinstance(hi, int) and 0 <= lo < hi <= v.args[0].width):
            raise ProgramError(f"slice {lo} {hi} of a row {v.args[0].width} wide. {v.line}")
        return hi - lo
    if v.op == "broadcast":
        width = int(v.attr[0])
        if v.args[0].width not in (1, width):
            raise ProgramError(f"broadcast of a row {v.args[0].width} wide to {width}. {v.line}")
        return width
    if v.op == "cat":
        return sum(a.width for a in v.args)
    widest = max(a.width for a in v.args)
    for a in v.args:
        if a.width not in (1, widest) or (a.op == "static" and len(a.shape) > 1):
            raise ProgramError(f"{v.op} of widths {[a.width for a in v.args]}. {v.line}")
    return widest

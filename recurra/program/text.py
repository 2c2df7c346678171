"""Programs as text: printing (`step_text`, `plan_text`) and, in `parse.py`, loading.

    program LSTM
    input x:64
    state h:128, c:128
    static @weight_hh (512, 128)
    static @1 (512, 64) = aten.cat.default([@weight_ii, @weight_if], 0)
    before:
      %1:512 = mm x @1               # my_lstm.py, line 14: i = self.wi(x) ...
    loop:
      i:128 = sigmoid %7             # ...
    next h.1, c.1
    output h.1

A row is written name:width. Names are the step's own; a name taken before gets a number (h, then h.1), values without a
name are %1, %2. Statics begin with @, cotangents with ^; numbers stand for constants. Equal programs give equal text.
"""

import math
from collections.abc import Iterable

from recurra.program.graph import ordered
from recurra.program.plan import Backward, Plan, Step
from recurra.program.values import Argument, Call, Expression, Parameter, Value


class Names:
    """Gives every value its name in a text, in the order in which they are met."""

    def __init__(self) -> None:
        self._of: dict[Value, str] = {}
        self._taken: dict[str, int] = {}
        self._statics: dict[Expression, str] = {}

    def __call__(self, v: Value) -> str:
        if v.op == "const":
            number = float(v.attr[0])
            return repr(number) if math.isfinite(number) else f"{number:+}"  # inf alone could be a variable
        if v not in self._of:
            self._of[v] = self._fresh(v)
        return self._of[v]

    def _fresh(self, v: Value) -> str:
        if v.op == "static" and isinstance(v.expr, Parameter):
            return f"@{v.expr.name}"
        base = "@" if v.op == "static" else f"^{v.attr[0]}" if v.op == "cotangent" else v.name or "%"
        count = self._taken.get(base, 0)
        self._taken[base] = count + 1
        if base in "@%":
            return f"{base}{count + 1}"
        return f"{base}.{count}" if count or base in ("inf", "nan") else base

    def row(self, v: Value) -> str:
        """name:width"""
        return f"{self(v)}:{v.width}"


def expression_text(e: Argument) -> str:
    """An operation on weights as text."""
    if isinstance(e, Parameter):
        return f"@{e.name}"
    if isinstance(e, tuple):
        return f"[{', '.join(map(expression_text, e))}]"
    if isinstance(e, Call):
        args = [*map(expression_text, e.args), *[f"{k}={expression_text(a)}" for k, a in e.kwargs]]
        return f"{e.operator}({', '.join(args)})" + ("" if e.result is None else f"[{e.result}]")
    return repr(e)


def _operation(name: Names, v: Value) -> str:
    operands = [name(a) for a in v.args] + [str(n) for n in v.attr]
    text = f"  {name.row(v)} = {v.op} {' '.join(operands)}"
    return text if not v.line else f"{text:<48} # {v.line}"


def _part(name: Names, title: str, values: Iterable[Value]) -> list[str]:
    return [f"{title}:", *[_operation(name, v) for v in values]]


def _head(name: Names, p: Plan | Step, statics: Iterable[Value]) -> list[str]:
    lines = [f"program {p.name}"]
    lines.append("input " + ", ".join(map(name.row, p.inputs.values())))
    lines.append("state " + ", ".join(map(name.row, p.states.values())))
    for s in statics:
        line = f"static {name(s)} {_shape(s)}"
        lines.append(line if s.expr is None or isinstance(s.expr, Parameter) else f"{line} = {expression_text(s.expr)}")
    return lines


def _shape(s: Value) -> str:
    return f"({', '.join(map(str, s.shape))})"


def statics_of(values: Iterable[Value]) -> tuple[Value, ...]:
    """The statics among the operands, in order of appearance."""
    return tuple(dict.fromkeys(a for v in values for a in v.args if a.op == "static"))


def step_text(step: Step) -> str:
    """A step that has not been split."""
    name = Names()
    body = [v for v in ordered([*step.nexts, step.output]) if not v.is_leaf]
    lines = _head(name, step, statics_of(body))
    lines += _part(name, "step", body)
    lines.append("next " + ", ".join(map(name, step.nexts)))
    lines.append("output " + name(step.output))
    return "\n".join(lines) + "\n"


def plan_text(plan: Plan, backward: Backward | None = None) -> str:
    """A plan, and the backward that belongs to it."""
    name = Names()
    lines = _head(name, plan, plan.statics)
    for title, part in (("before", plan.before), ("loop", plan.body), ("after", plan.after)):
        lines += _part(name, title, part)
    lines.append("next " + ", ".join(map(name, plan.nexts)))
    lines.append("output " + name(plan.output))
    lines.append(f"linear {plan.linear}")
    return "\n".join(lines + ([] if backward is None else _backward(name, backward))) + "\n"


def _backward(name: Names, b: Backward) -> list[str]:
    lines = ["backward:", "saved " + (", ".join(map(name, b.saved)) or "nothing")]
    lines.append("cotangent " + ", ".join(map(name.row, b.d_nexts)))
    lines.append("cotangent of output " + ("nothing" if b.d_output is None else name.row(b.d_output)))
    for title, part in (("backward after", b.after), ("backward loop", b.body), ("backward before", b.before)):
        lines += _part(name, title, part)
    lines.append("gradient of states " + ", ".join("nothing" if v is None else name(v) for v in b.d_states))
    lines += [f"gradient {k} = {'nothing' if v is None else name(v)}" for k, v in b.d_inputs.items()]
    lines += [f"gradient {name(s)} += {name(left)} x {name(right)}" for s, left, right in b.matrices]
    lines += [f"gradient {name(s)} += sum {name(rows)}" for s, rows in b.vectors]
    return lines

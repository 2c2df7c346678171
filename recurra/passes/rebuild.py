"""What rewriting passes share: building a step again, operation by operation, and asking who uses a value."""

from collections import defaultdict
from collections.abc import Callable, Mapping

from recurra.program.graph import Graph, ordered
from recurra.program.plan import Step
from recurra.program.values import Value

New = Mapping[Value, Value]
Rule = Callable[[Graph, Value, New], Value | None]
"""(graph, old value, old to new values so far) -> the new value, or None: the same operation on the new operands."""


def everything(step: Step) -> list[Value]:
    """All values of a step, operands first."""
    return ordered([*step.nexts, step.output])


def again(g: Graph, v: Value, new: New) -> Value:
    """The operation of `v` on the new operands, through value numbering and identities."""
    return g(v.op, *[new[a] for a in v.args], *v.attr)


def rebuild(step: Step, rule: Rule) -> Step:
    """The step with every operation replaced as `rule` says; names and lines stay with what replaces them.

    What is watched goes the same way, behind all else: `everything` and `users`, which rules ask, do not know of it.
    """
    g = Graph()
    new: dict[Value, Value] = {}
    for v in ordered([*step.nexts, step.output, *step.watched]):
        if v.op == "const":
            new[v] = g.const(float(v.attr[0]))
        elif v.op == "static":
            assert v.expr is not None
            new[v] = g.static(v.expr, v.shape)
        elif v.is_leaf:
            new[v] = v
        else:
            g.line = v.line
            made = rule(g, v, new)
            new[v] = again(g, v, new) if made is None else made
            if not new[v].name and not new[v].is_leaf:
                new[v].name = v.name
    nexts, watched = (tuple(new[v] for v in values) for values in (step.nexts, step.watched))
    return Step(step.name, step.inputs, step.states, nexts, new[step.output], watched)


def users(step: Step) -> dict[Value, list[Value]]:
    """The operations that read a value, once for each operand."""
    found: dict[Value, list[Value]] = defaultdict(list)
    for v in everything(step):
        for a in v.args:
            found[a].append(v)
    return found


def roots(step: Step) -> set[Value]:
    """What a step hands out."""
    return {*step.nexts, step.output}

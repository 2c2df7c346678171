"""Variance: the sum of (x - mean x)² over a row becomes one reduction of x.

Mean and variance then come out of the same phase; written as two sums the second waits for the first.
"""

from recurra.passes.rebuild import New, rebuild
from recurra.program.graph import Graph
from recurra.program.plan import Step
from recurra.program.values import Value


def variance(step: Step) -> Step:
    """Finds rowsum(d d) where d = x - rowsum(x) / n."""
    return rebuild(step, _rule)


def _rule(g: Graph, v: Value, new: New) -> Value | None:
    square = v.args[0]
    if v.op != "rowsum" or square.op != "mul" or square.args[0] is not square.args[1]:
        return None
    deviation = square.args[0]
    if deviation.op != "sub" or not _is_mean(deviation.args[1], deviation.args[0]):
        return None
    return g("rowdevsq", new[deviation.args[0]])


def _is_mean(v: Value, of: Value) -> bool:
    if v.op not in ("mul", "div"):
        return False
    total, number = v.args
    factor = 1 / of.width if v.op == "mul" else of.width
    return total.op == "rowsum" and total.args[0] is of and number.op == "const" and number.attr[0] == factor

"""Distribute: W [x, h] becomes W_x x + W_h h, so that the part that does not recur can leave the loop."""

from recurra.passes.rebuild import New, rebuild
from recurra.program.graph import Graph
from recurra.program.plan import Step
from recurra.program.values import Call, Value


def distribute(step: Step) -> Step:
    """Splits products over concatenations; the columns of the weight are cut by PyTorch, before the run."""
    return rebuild(step, _split)


def _split(g: Graph, v: Value, new: New) -> Value | None:
    if not v.is_product or new[v.args[0]].op != "cat":
        return None
    a, W = new[v.args[0]], new[v.args[1]]
    total: Value | None = None
    at = 0
    for part in a.args:
        piece = g(v.op, part, _columns(g, W, 1 if v.op == "mm" else 0, at, at + part.width))
        total = piece if total is None else g("add", total, piece)
        at += part.width
    return total


def _columns(g: Graph, W: Value, axis: int, lo: int, hi: int) -> Value:
    assert W.expr is not None
    shape = (W.shape[0], hi - lo) if axis else (hi - lo, W.shape[1])
    return g.static(Call("aten.slice.Tensor", (W.expr, axis, lo, hi)), shape)

"""Derive: the derivative of a whole step by the table of operations, in reverse order of evaluation."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from recurra.program.graph import Graph, ordered
from recurra.program.ops import OPS
from recurra.program.plan import Plan
from recurra.program.values import Value


@dataclass(frozen=True, slots=True)
class Derivative:
    """The gradients of one step, not yet split into parts. Fields as in `plan.Backward`."""

    d_output: Value | None
    d_nexts: tuple[Value, ...]
    d_states: tuple[Value | None, ...]
    d_inputs: dict[str, Value | None]
    matrices: tuple[tuple[Value, Value, Value], ...]
    vectors: tuple[tuple[Value, Value], ...]


class Cotangents:
    """Collects what flows back to each value, slice by slice, so that a sum of slices is not a sum of padded rows."""

    def __init__(self, g: Graph) -> None:
        self.g = g
        self._pieces: dict[Value, list[tuple[int, int, Value]]] = defaultdict(list)

    def add(self, v: Value, d: Value) -> None:
        """d flows back to v; a d 1 wide stands for all of v."""
        if v.width == 1 < d.width:
            d = row_sum(self.g, d)
        self._pieces[v].append((0, v.width, d))

    def add_slice(self, v: Value, d: Value) -> None:
        """d flows back to the slice v."""
        self._pieces[v.args[0]].append((int(v.attr[0]), int(v.attr[1]), d))

    def total(self, v: Value) -> Value | None:
        """All that flows back to v; None when nothing does."""
        pieces = self._pieces.get(v)
        if not pieces:
            return None
        cuts = sorted({0, v.width, *[c for lo, hi, _ in pieces for c in (lo, hi)]})
        segments = [self._segment(lo, hi, pieces) for lo, hi in pairwise(cuts)]
        if len(segments) == 1:
            return segments[0]
        widths = [hi - lo for lo, hi in pairwise(cuts)]
        return self.g("cat", *[self.g("broadcast", s, n) for s, n in zip(segments, widths, strict=True)])

    def _segment(self, lo: int, hi: int, pieces: Iterable[tuple[int, int, Value]]) -> Value:
        total: Value | None = None
        for a, b, d in pieces:
            if a <= lo and hi <= b:
                part = d if d.width == 1 != b - a else self.g("slice", d, lo - a, hi - a)
                total = part if total is None else self.g("add", total, part)
        return self.g.const(0.0) if total is None else total


def row_sum(g: Graph, d: Value) -> Value:
    """The sum over a row; a factor that is the same for all of it is multiplied by one number afterwards."""
    if d.op == "neg":
        return g("neg", row_sum(g, d.args[0]))
    if d.op == "mul" and d.args[1].width == 1:
        return g("mul", row_sum(g, d.args[0]), d.args[1])
    if d.op == "mul" and d.args[0].width == 1:
        return g("mul", row_sum(g, d.args[1]), d.args[0])
    return g("rowsum", d)


def derive(plan: Plan) -> Derivative:
    """What the cotangents of the output and of the next states become at inputs, previous states and weights."""
    forward = ordered([*plan.nexts, plan.output])
    g = Graph()
    g.adopt(forward)
    flow = Cotangents(g)
    d_output = Value("cotangent", (), ("output",), plan.output.width, "output")
    d_nexts = tuple(Value("cotangent", (), (k,), s.width, k) for k, s in plan.states.items())
    for v, d in zip(plan.nexts, d_nexts, strict=True):
        flow.add(v, d)
    flow.add(plan.output, d_output)
    matrices: list[tuple[Value, Value, Value]] = []
    vectors: list[tuple[Value, Value]] = []
    for v in reversed(forward):
        if not v.is_leaf:
            _step_back(g, flow, v, matrices, vectors)
    totals = [flow.total(s) for s in plan.states.values()]
    d_states = tuple(
        None if d is None else g("broadcast", d, s.width) for d, s in zip(totals, plan.states.values(), strict=True)
    )
    totals = [flow.total(x) for x in plan.inputs.values()]
    d_inputs = {
        k: None if d is None else g("broadcast", d, x.width)
        for d, (k, x) in zip(totals, plan.inputs.items(), strict=True)
    }
    return Derivative(d_output, d_nexts, d_states, d_inputs, tuple(matrices), tuple(vectors))


def _step_back(
    g: Graph,
    flow: Cotangents,
    v: Value,
    matrices: list[tuple[Value, Value, Value]],
    vectors: list[tuple[Value, Value]],
) -> None:
    d = flow.total(v)
    if d is None:
        return
    if v.op == "slice":
        flow.add_slice(v, g("broadcast", d, v.width))
        return
    if v.is_product:
        d = g("broadcast", d, v.width)
        a, W = v.args
        matrices.append((W, d, a) if v.op == "mm" else (W, a, d))
    for a, da in zip(v.args, OPS[v.op].derivative(g, v, d, *v.args), strict=True):
        if da is None or a.op == "const":
            continue
        if a.op != "static":
            flow.add(a, da)
        else:
            da = g("rowsum", da) if a.width == 1 < da.width else da
            vectors.append((a, g("broadcast", da, a.width)))

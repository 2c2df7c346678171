"""Record: named values of a step join the output, so that a call hands them out for every t.

The plan is extended after all other passes, and what it computed before, it computes as before: outputs, states and
gradients keep their bits. A value that is one of the plan's is written from where it is made. One that the passes have
dissolved (a product inside a multiply-add), and one that the machine would have to make in another way if it had one
more reader, is computed a second time.
"""

from collections.abc import Iterable
from dataclasses import replace

from recurra.passes.parts import listing
from recurra.program.plan import Backward, Plan, exported_of, gradients_of, reads, streams_of
from recurra.program.text import statics_of
from recurra.program.values import Value
from recurra.program.views import copied, is_view, source


def record(plan: Plan) -> Plan:
    """The plan whose output is the plan's own, with what is watched to the right of it, name after name."""
    copies = _Copies(plan, late=False)
    if late := copies.after_the_loop():
        copies = _Copies(plan, late=True)
    output, loop = copies.output, {*plan.body}
    fresh = listing([output], lambda v: v is output or v in copies.made or copies.floats(v))
    if late:
        body = (*plan.body, *copies.brought)
        after = (*plan.after, *[v for v in fresh if v not in plan.after])
    else:
        body, after = (*plan.body, *[v for v in fresh if v not in loop]), ()
    return replace(
        plan,
        output=output,
        body=body,
        after=after,
        streams=streams_of(plan.before, body, plan.inputs.values(), plan.nexts),
        exported=exported_of(body, after, plan.nexts, output),
        statics=statics_of([*plan.before, *body, *after]),
        watched=(),
    )


def unrecorded(plan: Plan, backward: Backward) -> Backward:
    """The plan's own backward, for a call of the recorded plan: what it reads of the output is saved beside it."""
    parts = [*backward.after, *backward.body, *backward.before]
    ends = [*gradients_of(backward), *[v for v in backward.d_states if v is not None]]
    if plan.output.is_leaf or plan.output in plan.nexts or plan.output not in reads(parts, ends):
        return backward
    return replace(backward, saved=(*backward.saved, plan.output))


class _Copies:
    """What is watched, as values that may be read once more.

    late      whether they are read after the loop
    output    the plan's output and what is watched, side by side
    made      values of no part, in the order of evaluation
    brought   values for the end of the loop: a slice of what the loop makes lies nowhere after it
    """

    def __init__(self, plan: Plan, late: bool) -> None:
        self.late, self._loop = late, {*plan.body}
        self._after = {v for v in plan.after if not self.floats(v)} - self._loop
        parts = (plan.before, plan.body, plan.after)
        disturbed = {v for part in parts for v in _disturbed(part)}
        self._kept = {v for part in parts for v in part} - disturbed
        self.made: dict[Value, None] = {}
        self.brought: list[Value] = []
        self._copy: dict[Value, Value] = {}
        self._slices: dict[Value, list[Value]] = {}
        for v in dict.fromkeys(v for part in parts for v in part):
            if v.op == "slice":
                self._slices.setdefault(v.args[0], []).append(v)
        pieces = [plan.output, *[p for v in plan.watched for p in self._pieces(v)]]
        self.output = Value("cat", tuple(pieces), (), sum(p.width for p in pieces), "recorded")

    def floats(self, v: Value) -> bool:
        """Whether v is a view of what is made elsewhere than in the loop: it stands wherever it is read."""
        return is_view(v) and source(v) not in self._loop

    def after_the_loop(self) -> bool:
        """Whether something has to be made after the loop: it reads what is made there, or is a product of all rows."""
        made = [self.output, *self.made]
        return any(v.is_product or any(not self._after.isdisjoint((a, source(a))) for a in v.args) for v in made)

    def _pieces(self, v: Value) -> list[Value]:
        """The value, or the slices that make it up where the plan has just these."""
        slices = sorted(self._slices.get(v, []), key=lambda s: s.attr)
        ends = [0, *[s.attr[1] for s in slices]]
        whole = ends[-1] == v.width and all(s.attr[0] == end for s, end in zip(slices, ends, strict=False))
        split = v not in self._kept and whole and self._kept.issuperset(slices)
        return [self._readable(piece) for piece in (slices if split else [v])]

    def _readable(self, v: Value) -> Value:
        lost = self.late and is_view(v) and v in self._loop and not self.floats(v)
        if v.is_leaf or (v in self._kept and not lost):
            return v
        found = self._copy.get(v)
        if found is None and v in self._kept:
            found = copied(v)
            self.brought.append(found)
        elif found is None:
            args = tuple(self._readable(a) for a in v.args)
            found = Value(v.op, args, v.attr, v.width, v.name, v.line)
            self.made[found] = None
        self._copy[v] = found
        return found


def _disturbed(part: Iterable[Value]) -> set[Value]:
    """Values of a part that the machine would make in another way if they had one more reader.

    They end in a product, which the machine begins with the other term of a sum, or makes slice by slice: only where
    the sum, or the slices, are all that reads it. (What another part reads lies in memory, and may be read by anyone.)
    """
    part = list(part)
    ends: set[Value] = set()
    for v in part:
        if v.is_product or (v.op in ("slice", "add") and any(a in ends for a in v.args)):
            ends.add(v)
    return ends & {a for v in part if v.op in ("add", "slice") for a in v.args}

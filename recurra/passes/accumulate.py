"""Accumulate: the derivative in three parts, so that the reverse loop holds only what recurs.

Weight gradients are sums over all steps: one wide product after the loop instead of a thin one a step. What depends on
the output's cotangent alone goes ahead of the loop. Forward values are saved, or computed again where they are read.
"""

from dataclasses import replace

from recurra.passes.derive import Derivative
from recurra.passes.parts import listing
from recurra.passes.save import remembered
from recurra.program.graph import ordered, reaches
from recurra.program.plan import Backward, Plan, gradients_of, reads, reverse_exported_of, reverse_streams_of
from recurra.program.values import Value
from recurra.program.views import is_view, source


def accumulate(plan: Plan, d: Derivative) -> Backward:
    """Splits a derivative; verified by `verify_backward`."""
    states = [v for v in d.d_states if v is not None]
    ends = gradients_of(d)
    values = ordered([*states, *ends])
    recurs = reaches(values, d.d_nexts)
    early = reaches(values, [d.d_output] if d.d_output is not None else []) - recurs
    saved, at_hand = remembered(plan, values, recurs | early, ends)

    def again(v: Value) -> bool:
        """Computed in every part that reads it: forward values not at hand, and views of what other parts make."""
        if v.is_leaf or v in at_hand:
            return False
        return (v not in recurs and v not in early) or (is_view(v) and source(v) not in recurs)

    body = listing(states, lambda v: (v in recurs and not v.is_leaf) or again(v))
    inside = {v for v in body if v in recurs}
    body = listing(states, lambda v: v in inside or again(v))
    late = listing(ends, lambda v: (v in recurs and v not in inside and not v.is_leaf) or again(v))
    wanted = [v for v in reads([*body, *late], [*states, *ends]) if v in early]
    ahead = listing(wanted, lambda v: (v in early and not v.is_leaf) or again(v))
    split = Backward(
        saved=saved,
        d_output=d.d_output if any(v is d.d_output for v in values) else None,
        d_nexts=d.d_nexts,
        after=ahead,
        body=body,
        before=late,
        d_states=d.d_states,
        d_inputs=d.d_inputs,
        matrices=d.matrices,
        vectors=d.vectors,
        streams=(),
        exported=(),
    )
    return replace(split, streams=reverse_streams_of(split), exported=reverse_exported_of(split))

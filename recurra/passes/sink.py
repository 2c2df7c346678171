"""Sink: what the next states do not need leaves the loop and is computed for all rows at once, after it."""

from dataclasses import replace

from recurra.passes.parts import listing
from recurra.program.plan import Plan, exported_of, streams_of
from recurra.program.values import Value
from recurra.program.views import is_view, source


def sink(plan: Plan) -> Plan:
    """Moves operations of the loop that only the output needs behind the loop."""
    loop = set(plan.body)

    def floats(v: Value) -> bool:  # a view of what is made elsewhere stands wherever it is read
        return is_view(v) and source(v) not in loop

    body = listing(plan.nexts, lambda v: v in loop)
    stays = set(body)
    after = listing([plan.output], lambda v: v in loop and (v not in stays or floats(v)))
    return replace(
        plan,
        body=body,
        after=after,
        streams=streams_of(plan.before, body, plan.inputs.values(), plan.nexts),
        exported=exported_of(body, after, plan.nexts, plan.output),
    )

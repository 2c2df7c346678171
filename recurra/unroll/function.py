"""The sequence operation under autograd: forward and backward on an executor.

Saved values are hints and are never differentiated: with create_graph the backward starts again from the inputs, on the
machine (`second`), or in PyTorch where the machine cannot, or where gradients come in batches.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.machine import plain
from recurra.program.layout import Layout
from recurra.unroll.compiled import Compiled
from recurra.unroll.notes import refuse_derivatives_in_strict
from recurra.unroll.second import Derived


class SequenceOperation(torch.autograd.Function):
    """apply(compiled, layout, ends, *inputs, *first states or None, *statics) -> output, *last states.

    ends: where, among the tensors, the inputs end and the states end.
    """

    @staticmethod
    def forward(ctx: Any, compiled: Compiled | Derived, layout: Layout, ends: tuple[int, int], *given: Any) -> Any:
        a, b = ends
        assert compiled.executor is not None
        output, last, ctx.kept = compiled.executor.forward(layout, given[:a], given[b:], given[a:b], True)
        ctx.compiled, ctx.layout, ctx.ends = compiled, layout, ends
        ctx.save_for_backward(output, *given)
        ctx.set_materialize_grads(False)
        return (output, *last)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, *d_last: Tensor | None) -> Any:
        output, *given = ctx.saved_tensors
        if torch.is_grad_enabled() or not ctx.layout.N or is_mapped((d_output, *d_last)):
            return None, None, None, *again(ctx, given, output, (d_output, *d_last))
        return None, None, None, *gradients(ctx, ctx.compiled.executor, ctx.kept, given, output, (d_output, *d_last))


class RecordedOperation(torch.autograd.Function):
    """The same with a recorded plan: apply(compiled, layout, ends, width of what is recorded, ...) -> output, what is
    recorded, *last states.

    A loss that does not read what is recorded has the gradients, and the time, of a call that records nothing. One that
    does costs a second forward call, by the plan that saves what the whole output's backward needs.
    """

    @staticmethod
    def forward(ctx: Any, compiled: Compiled, layout: Layout, ends: tuple[int, int], recorded: int, *given: Any) -> Any:
        a, b = ends
        assert compiled.executor is not None
        whole, last, ctx.kept = compiled.executor.forward(layout, given[:a], given[b:], given[a:b], True)
        width = whole.shape[1] - recorded
        output = whole[:, :width].contiguous()
        ctx.compiled, ctx.layout, ctx.ends, ctx.recorded = compiled, layout, ends, recorded
        ctx.save_for_backward(output, *given)
        ctx.set_materialize_grads(False)
        return (output, whole[:, width:], *last)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, d_seen: Tensor | None, *d_last: Tensor | None) -> Any:
        output, *given = ctx.saved_tensors
        head = None, None, None, None
        if d_seen is None and not (torch.is_grad_enabled() or not ctx.layout.N or is_mapped((d_output, *d_last))):
            return *head, *gradients(ctx, ctx.compiled.executor, ctx.kept, given, output, (d_output, *d_last))
        d_output = torch.zeros_like(output) if d_output is None else d_output
        d_seen = output.new_zeros(len(output), ctx.recorded) if d_seen is None else d_seen
        d = (torch.cat([d_output, d_seen], 1), *d_last)
        if torch.is_grad_enabled() or not ctx.layout.N or is_mapped(d):
            return *head, *again(ctx, given, output, d)
        (a, b), executor = ctx.ends, ctx.compiled.whole
        whole, _, kept = executor.forward(ctx.layout, given[:a], given[b:], given[a:b], True)
        return *head, *gradients(ctx, executor, kept, given, whole, d)


def gradients(
    ctx: Any,
    executor: Any,
    kept: Any,
    given: Sequence[Tensor | None],
    output: Tensor,
    d: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of inputs, states and statics by an executor's backward."""
    (a, b), need = ctx.ends, ctx.needs_input_grad[-len(given) :]
    states, (d_output, *d_last) = given[a:b], [_dense(t) for t in d]
    d_inputs, d_statics, d_states = executor.backward(
        ctx.layout, kept, given[:a], given[b:], states, output, d_output, d_last, need[:a], need[b:]
    )
    return [*d_inputs, *[None if s is None else d for s, d in zip(states, d_states, strict=True)], *d_statics]


def is_mapped(d: Sequence[Tensor | None]) -> bool:
    """Whether gradients come wrapped, without memory of their own: vmap, or is_grads_batched."""
    return torch._C._are_functorch_transforms_active() or not all(t is None or torch._C._has_storage(t) for t in d)


def _dense(d: Tensor | None) -> Tensor | None:
    """Gradients may arrive expanded, with strides of zero."""
    return None if d is None else d.contiguous()


def again(ctx: Any, given: Sequence[Tensor | None], output: Tensor, d: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients from the inputs anew: on the machine, to be derived again, or in PyTorch."""
    need, second = ctx.needs_input_grad[-len(given) :], ctx.compiled.second
    if ctx.layout.N and not is_mapped(d):
        if not second.reason:
            found: list[Tensor | None] = second.gradients(
                SequenceOperation.apply, ctx.layout, ctx.ends, given, output, need, d
            )
            return found
        refuse_derivatives_in_strict(ctx.compiled.plan.name, second.reason)
    return _in_pytorch(ctx, given, need, d)


def _in_pytorch(
    ctx: Any, given: Sequence[Tensor | None], need: Sequence[bool], d: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients as differentiable PyTorch: the plan is run once more, from the inputs."""
    create, (a, b) = torch.is_grad_enabled(), ctx.ends
    with torch.enable_grad():
        # Each by a name of its own: two may be parts of one tensor (two layers' states), of which one was read by what
        # made another; autograd would then walk that part of the caller's graph too, and free it.
        given = [t.view_as(t) if n and t is not None else t for t, n in zip(given, need, strict=True)]
        wanted = [t for t, n in zip(given, need, strict=True) if n and t is not None]
        output, last = run_in_pytorch(ctx.compiled, ctx.layout, given[:a], given[a:b], given[b:])
        pairs = [(y, g) for y, g in zip((output, *last), d, strict=True) if g is not None and y.requires_grad]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs], wanted, [g for _, g in pairs], create_graph=create, allow_unused=True
            )
            if pairs and wanted
            else [None] * len(wanted)
        )
    return [next(found) if n and t is not None else None for t, n in zip(given, need, strict=True)]


def run_in_pytorch(
    compiled: Compiled | Derived,
    layout: Layout,
    inputs: Sequence[Any],
    states: Sequence[Tensor | None],
    statics: Sequence[Any],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The plan as ordinary PyTorch: what higher derivatives, forward mode and vmap go through."""
    plan = compiled.plan
    assert plan is not None
    widths = [s.width for s in plan.states.values()]
    first = [inputs[0].new_zeros(layout.B, n) if s is None else s for s, n in zip(states, widths, strict=True)]
    return plain.run(plan, layout, inputs, statics, first)

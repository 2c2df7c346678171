"""A plan run by PyTorch: any device, any dtype, every operation.

`run` is ordinary differentiable PyTorch: second derivatives, forward mode and vmap go through it. `PlainExecutor` runs
a plan and its backward as written, without autograd: what the native machine must reproduce.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.program.layout import Layout
from recurra.program.ops import OPS
from recurra.program.plan import Backward, Plan
from recurra.program.values import Value

Env = dict[Value, Tensor]


def run(
    plan: Plan, layout: Layout, inputs: Sequence[Tensor], statics: Sequence[Tensor], states: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output (N, m) and last states (B, n) of inputs (N, n), statics as listed in the plan and first states (B, n)."""
    env, last = _forward(plan, layout, inputs, statics, states, ())
    return env[plan.output], last


def _forward(
    plan: Plan,
    layout: Layout,
    inputs: Sequence[Tensor],
    statics: Sequence[Tensor],
    states: Sequence[Tensor],
    saved: Sequence[Value],
) -> tuple[Env, tuple[Tensor, ...]]:
    """All rows of inputs, nexts, output, `saved`, and of previous states; and the last states."""
    like = inputs[0]
    weights = dict(zip(plan.statics, statics, strict=True))
    env = weights | dict(zip(plan.inputs.values(), inputs, strict=True))
    evaluate(plan.before, env, layout.N, like)
    leaves = tuple(plan.states.values())
    made = set(plan.body)
    wanted = dict.fromkeys([*leaves, *plan.nexts, *plan.exported, *[v for v in saved if v in made]])
    times = range(layout.T)[:: -1 if layout.reverse else 1]
    last, rows = _loop(layout, times, plan.body, leaves, plan.nexts, states, env, wanted, like)
    env |= rows
    evaluate(plan.after, env, layout.N, like)
    env[plan.output] = _rows(_value(plan.output, env, like), layout.N, plan.output.width)
    return env, last


def _loop(
    layout: Layout,
    times: Iterable[int],
    body: Sequence[Value],
    leaves: Sequence[Value],
    nexts: Sequence[Value | None],
    first: Sequence[Tensor],
    env: Env,
    wanted: Iterable[Value],
    like: Tensor,
) -> tuple[tuple[Tensor, ...], Env]:
    """Runs `body` at each time on the active rows: what the leaves carry becomes `nexts`.

    Returns what is carried in the end, and the rows of the wanted values.
    """
    carried = list(first)
    collected: dict[Value, dict[int, Tensor]] = {v: {} for v in wanted}
    made = {*body, *leaves}
    reads = {a for v in body for a in v.args} | {v for v in [*nexts, *collected] if v is not None}
    rows = {v: _rows(_value(v, env, like), layout.N, v.width) for v in reads if v not in made and v.is_row}
    statics = {v: env[v] for v in reads if v.op == "static"}
    offsets, sizes = layout.offsets, layout.sizes()
    for t in times:
        n = sizes[t]
        here = statics | {v: r[offsets[t] : offsets[t] + n] for v, r in rows.items()}
        here |= {v: h[:n] for v, h in zip(leaves, carried, strict=True)}
        evaluate(body, here, n, like)
        for v, at in collected.items():
            at[t] = _rows(_value(v, here, like), n, v.width)
        for k, w in enumerate(nexts):
            new = like.new_zeros(n, leaves[k].width) if w is None else _rows(_value(w, here, like), n, w.width)
            carried[k] = new if n == layout.B else torch.cat([new, carried[k][n:]])
    joined = {
        v: torch.cat([at[t] for t in range(layout.T)]) if at else like.new_zeros(0, v.width)
        for v, at in collected.items()
    }
    return tuple(carried), joined


def evaluate(part: Iterable[Value], env: Env, n: int, like: Tensor) -> None:
    """Adds the values of a part, of n rows, to `env`. What depends on no row may be a single row."""
    for v in part:
        args: list[Any] = [_value(a, env, like) for a in v.args]
        if v.op == "cat":
            args = [_rows(a, n, w.width) for a, w in zip(args, v.args, strict=True)]
        env[v] = OPS[v.op].value(*args, *v.attr)


def _value(v: Value, env: Env, like: Tensor) -> Tensor:
    if v.op == "const" and v not in env:
        env[v] = like.new_tensor(v.attr[0])
    return env[v]


def _rows(t: Tensor, n: int, width: int) -> Tensor:
    """(n, width), also of a number or of one row."""
    return t if t.dim() == 2 and t.shape[1] == width and t.shape[0] == n else t.expand(n, width)


class PlainExecutor:
    """The plan and its backward in PyTorch, with the interface of the native machine."""

    name = "PyTorch"

    def __init__(self, plan: Plan, backward: Backward | None) -> None:
        self.plan, self.derivative = plan, backward

    def forward(
        self,
        layout: Layout,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        keep: bool,
    ) -> tuple[Tensor, list[Tensor], Env]:
        """(output (N, m), last states (B, n), what `backward` needs). A state None is zero."""
        first = self._states(layout, inputs[0], states)
        saved = self.derivative.saved if keep and self.derivative is not None else ()
        with torch.no_grad():
            env, last = _forward(self.plan, layout, inputs, statics, first, saved)
        kept = {v: _rows(env[v], layout.N, v.width) for v in (*saved, *self.plan.states.values(), *self.plan.nexts)}
        return env[self.plan.output], list(last), kept

    def _states(self, layout: Layout, like: Tensor, states: Sequence[Tensor | None]) -> list[Tensor]:
        sizes = [s.width for s in self.plan.states.values()]
        return [like.new_zeros(layout.B, n) if s is None else s for s, n in zip(states, sizes, strict=True)]

    def backward(
        self,
        layout: Layout,
        saved: Env,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        output: Tensor,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        need_inputs: Sequence[bool],
        need_statics: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """Gradients of inputs, statics and first states; None where they are not asked for."""
        plan, b = self.plan, self.derivative
        assert b is not None
        like = inputs[0]
        with torch.no_grad():
            env: Env = saved | dict(zip(plan.statics, statics, strict=True)) | {plan.output: output}
            env |= dict(zip(plan.inputs.values(), inputs, strict=True))
            if b.d_output is not None:
                env[b.d_output] = torch.zeros_like(output) if d_output is None else d_output
            evaluate(b.after, env, layout.N, like)
            times = range(layout.T)[:: 1 if layout.reverse else -1]
            first = self._states(layout, like, d_last)
            d_states, rows = _loop(layout, times, b.body, b.d_nexts, b.d_states, first, env, b.exported, like)
            env |= rows
            evaluate(b.before, env, layout.N, like)
            d_inputs = [
                None if v is None or not needed else _rows(_value(v, env, like), layout.N, v.width)
                for v, needed in zip(b.d_inputs.values(), need_inputs, strict=True)
            ]
            return d_inputs, self._weights(b, layout, env, statics, need_statics, like), list(d_states)

    def _weights(
        self, b: Backward, layout: Layout, env: Env, statics: Sequence[Tensor], need: Sequence[bool], like: Tensor
    ) -> list[Tensor | None]:
        wanted = {s for s, n in zip(self.plan.statics, need, strict=True) if n}
        total: Env = {}

        def gain(s: Value, d: Tensor) -> None:
            total[s] = total[s] + d if s in total else d

        for s, left, right in b.matrices:
            if s in wanted:
                a, c = (_rows(_value(v, env, like), layout.N, v.width) for v in (left, right))
                gain(s, a.mT @ c)
        for s, v in b.vectors:
            if s in wanted:
                gain(s, _rows(_value(v, env, like), layout.N, v.width).sum(0).reshape(s.shape))
        return [
            (total.get(s) if s in total else torch.zeros_like(w)) if s in wanted else None
            for s, w in zip(self.plan.statics, statics, strict=True)
        ]

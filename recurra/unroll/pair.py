"""Two calls side by side: as one operation under autograd, so that their backwards run side by side too."""

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from recurra.machine import native
from recurra.machine.program import beside
from recurra.unroll.call import States
from recurra.unroll.function import again, gradients, is_mapped
from recurra.unroll.notes import note, somebody_asks
from recurra.unroll.running import Work, differentiable, in_pytorch, rows, run, visit_of

_FEW = 8  # sequences: as many, or more, fill two threads with sequences of their own
_IN_CACHE = 768 << 10  # bytes that the second-level cache of one core keeps from step to step
_TOO_SMALL = 1 << 14  # multiply-adds of a step that more than two threads do not share to advantage
_SHORT = 8  # rows: no more are done before another thread is awake


def pays(one: Work, two: Work) -> bool:
    """Whether two threads do more with a call each than all threads do with one call after the other."""
    threads = native.threads()[0]
    if one.compiled.device.type != "cpu":
        return False
    return threads > 1 and not in_pytorch() and _light(one, threads) and _light(two, threads)


def _light(work: Work, threads: int) -> bool:
    """Whether one thread alone does a call well: few sequences, whose step finds its weights in that core's cache.

    Measured with two threads. More are better at whatever is outside of the loop, and at the loop where they share it.
    """
    layout, executor = work.layout, work.way.executor
    if work.call.record is not None or work.call.thrifty or layout.B >= _FEW or layout.N <= _SHORT:
        return False
    inside, outside = int(executor.weights_inside), int(executor.weights_outside)
    if threads == 2:
        return inside * work.compiled.dtype.itemsize <= _IN_CACHE
    return inside * layout.B <= _TOO_SMALL and outside <= 2 * inside


class Half:
    """One call of a pair: what its own context under autograd would hold."""

    kept: Any = None
    needs_input_grad: Sequence[bool] = ()

    def __init__(self, work: Work) -> None:
        self.compiled, self.layout = work.way, work.layout
        self.ends = len(work.inputs), len(work.inputs) + len(work.first)
        self.results = 1 + len(work.first)  # the output and the last states

    def forward(self, given: Sequence[Any], keep: bool) -> list[Tensor]:
        """The output and the last states."""
        (a, b), executor = self.ends, self.compiled.executor
        y, last, self.kept = executor.forward(self.layout, given[:a], given[b:], given[a:b], keep)
        return [y, *last]

    def backward(self, given: Sequence[Any], y: Tensor, d: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """The gradients of what was given; none where nobody read what came of it."""
        if all(t is None for t in d):
            return [None] * len(given)
        if torch.is_grad_enabled() or is_mapped(d):
            return again(self, given, y, d)
        return gradients(self, self.compiled.executor, self.kept, given, y, d)


class PairOperation(torch.autograd.Function):
    """apply(one, two, end, *given to one, *given to two) -> output, *last states of one, output, *last states of two.

    end: how many tensors one is given.
    """

    @staticmethod
    def forward(ctx: Any, one: Half, two: Half, end: int, *given: Any) -> Any:
        ctx.halves, ctx.end = (one, two), end
        results, others = beside(partial(one.forward, given[:end], True), partial(two.forward, given[end:], True))
        ctx.save_for_backward(results[0], others[0], *given)
        ctx.set_materialize_grads(False)
        return (*results, *others)

    @staticmethod
    def backward(ctx: Any, *d: Tensor | None) -> Any:
        (one, two), end = ctx.halves, ctx.end
        y, other, *given = ctx.saved_tensors
        one.needs_input_grad, two.needs_input_grad = ctx.needs_input_grad[3 : 3 + end], ctx.needs_input_grad[3 + end :]
        first = partial(one.backward, given[:end], y, d[: one.results])
        second = partial(two.backward, given[end:], other, d[one.results :])
        in_turn = torch.is_grad_enabled() or is_mapped(d)  # PyTorch's own operations, and the graph they make
        found = (first(), second()) if in_turn else beside(first, second)
        return None, None, None, *found[0], *found[1]


_apply: Callable[..., Any] = PairOperation.apply


def run_both(one: Work, two: Work) -> tuple[tuple[Tensor, States], tuple[Tensor, States]]:
    """What `run` gives for each, to the same bits."""
    graded = [torch.is_grad_enabled() and differentiable((*w.inputs, *w.first, *w.statics)) for w in (one, two)]
    refused = "int8" in (one.call.precision, two.call.precision) and any(graded)
    if refused or graded[0] != graded[1]:  # one operation would make all its results differentiable
        return run(one), run(two)
    if not somebody_asks():
        return _run_both(one, two, graded[0])
    begun = perf_counter()
    results = _run_both(one, two, graded[0])
    seconds = perf_counter() - begun
    for work in (one, two):
        note(visit_of(work, seconds, lambda: tuple(y for y, _ in _run_both(one, two, graded[0])), True))
    return results


def _run_both(one: Work, two: Work, graded: bool) -> tuple[tuple[Tensor, States], tuple[Tensor, States]]:
    given, halves = [], []
    for work in (one, two):
        inputs = [t.contiguous() for t in rows(work.layout, work.inputs)]
        given.append([*inputs, *work.first, *work.statics])
        halves.append(Half(work))
    if graded:
        # Backwards: so gradients of what both read add up as those of two operations, the later one's first.
        got = _apply(halves[1], halves[0], len(given[1]), *given[1], *given[0])
        back, ahead = got[: halves[1].results], got[halves[1].results :]
    else:
        ahead, back = beside(partial(halves[0].forward, given[0], False), partial(halves[1].forward, given[1], False))
    return (ahead[0], tuple(ahead[1:])), (back[0], tuple(back[1:]))

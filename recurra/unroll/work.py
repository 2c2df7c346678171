"""What a call wants of the native machine, and how it gets it: by itself, or side by side with another."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor

from recurra.machine import native
from recurra.machine.program import Prepared
from recurra.program.layout import Layout
from recurra.unroll.call import States
from recurra.unroll.compiled import Compiled
from recurra.unroll.function import SequenceOperation
from recurra.unroll.pair import Half, PairOperation

_apply: Callable[..., Any] = SequenceOperation.apply
_apply_both: Callable[..., Any] = PairOperation.apply
_FEW = 8  # sequences: as many, or more, fill two threads with sequences of their own
_IN_CACHE = 768 << 10  # bytes that the second-level cache of one core keeps from step to step
_TOO_SMALL = 1 << 14  # multiply-adds of a step that more than two threads do not share to advantage

Result = TypeVar("Result", bound=tuple[Any, ...])
Other = TypeVar("Other", bound=tuple[Any, ...])


class Work:
    """A call of the native machine, and what came of it.

    graded    whether somebody wants a gradient
    y, last   once it has run; beside: whether another ran at the same time
    """

    __slots__ = ("beside", "compiled", "graded", "inputs", "last", "layout", "states", "statics", "y")
    y: Tensor
    last: States

    def __init__(
        self,
        compiled: Compiled,
        layout: Layout,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor | None],
        statics: Sequence[Tensor],
        graded: bool,
    ) -> None:
        self.compiled, self.layout, self.graded = compiled, layout, graded
        self.inputs, self.states, self.statics = inputs, states, statics
        self.beside = False

    @property
    def ends(self) -> tuple[int, int]:
        """Where, among the tensors given, the inputs end and the states end."""
        return len(self.inputs), len(self.inputs) + len(self.states)

    def run(self) -> None:
        """The work by itself."""
        if self.graded:
            given = *self.inputs, *self.states, *self.statics
            self.y, *last = _apply(self.compiled, self.layout, self.ends, *given)
        else:
            self.y, last, _ = self._forward().run()
        self.last = tuple(last)

    def run_beside(self, other: "Work") -> None:
        """Both at the same time, as one operation."""
        if self.graded:
            # Backwards: so gradients of what both read add up as those of two operations, the later one's first.
            works = other, self
            given = [(*w.inputs, *w.states, *w.statics) for w in works]
            one, two = (Half(w.compiled, w.layout, w.ends, len(g)) for w, g in zip(works, given, strict=True))
            results = _apply_both(one, two, *given[0], *given[1])
            self._take(*results[one.results :])
            other._take(*results[: one.results])
        else:
            (y, last, _), (y2, last2, _) = self._forward().run_beside(other._forward())
            self._take(y, *last)
            other._take(y2, *last2)

    def _forward(self) -> Prepared[tuple[Tensor, list[Tensor], Any]]:
        executor = self.compiled.executor
        assert executor is not None
        return executor.forward(self.layout, self.inputs, self.statics, self.states, False)

    def _take(self, y: Tensor, *last: Tensor) -> None:
        self.y, self.last, self.beside = y, last, True


class Pending(Generic[Result]):
    """A call as far as it goes without the native machine: its work, or None, and what gives the result after that."""

    __slots__ = ("_result", "work")

    def __init__(self, work: Work | None, result: Callable[[], Result]) -> None:
        self.work, self._result = work, result

    def then(self, more: Callable[..., Other]) -> "Pending[Other]":
        """The call with more to do to its result."""
        result = self._result
        return Pending(self.work, lambda: more(*result()))

    def finish(self) -> Result:
        """Runs the call to its end, by itself."""
        if self.work is not None and not self.work.beside:
            self.work.run()
        return self._result()


def finish_both(one: Pending[Result], two: Pending[Other]) -> tuple[Result, Other]:
    """Runs two calls, of which neither reads what the other gives: side by side where that is faster, and to the same
    bits as one after the other."""
    if one.work is not None and two.work is not None and _pays(one.work, two.work):
        one.work.run_beside(two.work)
    return one.finish(), two.finish()


def _pays(one: Work, two: Work) -> bool:
    """Whether two threads do more with a call each than all threads do with one call after the other."""
    threads = native.threads()[0]
    return threads > 1 and one.graded == two.graded and _light(one, threads) and _light(two, threads)


def _light(work: Work, threads: int) -> bool:
    """Whether one thread alone does a call well: few sequences, whose step finds its weights in that core's cache.

    Measured with two threads. More are better at whatever is outside of the loop, and at the loop where they share it.
    """
    layout, executor = work.layout, work.compiled.executor
    assert executor is not None
    if not layout.N or layout.B >= _FEW:
        return False
    inside, outside = executor.weights_inside, executor.weights_outside
    if threads == 2:
        return inside * work.compiled.dtype.itemsize <= _IN_CACHE
    return inside * layout.B <= _TOO_SMALL and outside <= 2 * inside

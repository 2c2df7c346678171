"""The native machine as an executor: fp32 and fp64 on the CPU."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.machine.backward import BackwardProgram, Saved
from recurra.machine.blocks import block_size
from recurra.machine.forward import ForwardProgram
from recurra.machine.operands import Unsupported
from recurra.machine.program import available, library, threads
from recurra.machine.shape import Shape, shape_of
from recurra.program.layout import Layout
from recurra.program.plan import Backward, Plan
from recurra.program.values import Value

Needs = tuple[bool, ...]  # for each input, whether its gradient is asked for


def prepare(plan: Plan, backward: Backward | None, precision: str = "") -> "NativeExecutor":
    """The executor of a plan; Unsupported, with the user's line, where the machine cannot run it.

    precision: a name of `recurra.machine.precision`; "": the arithmetic of the rows.
    """
    if reason := available():
        raise Unsupported(reason)
    return NativeExecutor(plan, backward, precision)


class NativeExecutor:
    """Runs a plan, and its backward, as native programs.

    weights_inside, weights_outside: how many numbers of weights a step of the loop reads, and a row outside of it.
    """

    name = "native machine"

    def __init__(self, plan: Plan, backward: Backward | None, precision: str = "") -> None:
        self.plan, self._derivative, self.precision = plan, backward, precision
        self.weights_inside = weights_of(plan.body)
        self.weights_outside = weights_of((*plan.before, *plan.after))
        self._forward = ForwardProgram(plan, backward, 1, precision)
        self._reverse: ForwardProgram | None = None
        self._backward: dict[tuple[bool, Needs], BackwardProgram] = {}
        if backward is not None:
            self._backward_program(False, (True,) * len(plan.inputs))  # what the machine cannot run is refused now

    def _forward_program(self, reverse: bool) -> ForwardProgram:
        if not reverse:
            return self._forward
        if self._reverse is None:
            self._reverse = ForwardProgram(self.plan, self._derivative, -1, self.precision)
        return self._reverse

    def _backward_program(self, reverse: bool, need_inputs: Needs) -> BackwardProgram:
        found = self._backward.get((reverse, need_inputs))
        if found is None:
            assert self._derivative is not None
            found = BackwardProgram(self._forward_program(reverse), self._derivative, need_inputs)
            self._backward[reverse, need_inputs] = found
        return found

    def forward(
        self,
        layout: Layout,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        keep: bool,
    ) -> tuple[Tensor, list[Tensor], Saved]:
        """Output, last states (B, n), and what backward needs.

        inputs: those of the plan, with N rows; states (B, n), or None for zeros; all contiguous. The output has the
        first input's shape but for its width.
        """
        program = self._forward_program(layout.reverse)
        output, last, block = program.run(layout, inputs, statics, states, keep)
        return output, last, Saved(block)

    def backward(
        self,
        layout: Layout,
        saved: Saved,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        output: Tensor,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        need_inputs: Needs,
        need_statics: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor]]:
        """Gradients of inputs, statics and first states; None where not asked for, or where nothing depends on it."""
        program = self._backward_program(layout.reverse, need_inputs)
        return program.run(layout, saved, inputs, statics, states, output, d_output, d_last, need_statics)

    def shapes(
        self,
        layout: Layout,
        dtype: torch.dtype,
        threads: int,
        first: Sequence[bool],
        need_inputs: Needs,
        need_statics: Sequence[bool],
        keep: bool,
    ) -> list[Shape]:
        """What a forward call, and the backward after it if one is kept for, would do with so many threads.

        first: which first states are given.
        """
        size = dtype.itemsize
        forward = self._forward_program(layout.reverse).shape(layout, dtype, threads, keep, first)
        shapes = [shape_of(forward, layout, size)]
        if keep:
            program = self._backward_program(layout.reverse, need_inputs)
            shapes.append(shape_of(program.shape(layout, dtype, threads, first, need_statics), layout, size))
        return shapes

    def kept_widths(self, reverse: bool) -> list[int]:
        """The widths of the arrays that a call keeps for its backward, in one block."""
        return [v.width for _, v in self._forward_program(reverse).lasting]

    def kept_size(self, reverse: bool, rows: int) -> int:
        """How many numbers that block has."""
        return block_size(self.kept_widths(reverse), rows)

    def session(self, batch: int, statics: Sequence[Tensor], states: Sequence[Tensor]) -> "NativeSession":
        """A handle for streaming: `states` are read and written in place."""
        return NativeSession(self._forward, batch, statics, states)


def weights_of(values: Iterable[Value]) -> int:
    """How many numbers of matrices the products among them read for each row."""
    return sum(math.prod(v.args[1].shape) for v in values if v.op == "mm")


class NativeSession:
    """One step a call. The weights are packed once, and held, as the states are, by this object."""

    def __init__(
        self, forward: ForwardProgram, batch: int, statics: Sequence[Tensor], states: Sequence[Tensor]
    ) -> None:
        statics, strides = forward.program.addressable(statics)
        arrays = forward.blank(False)
        for i, j, s in zip(forward.initial, forward.last, states, strict=True):
            arrays[i] = arrays[j] = s.data_ptr()
        self._held: Any = (statics, states)
        handle = forward.program.handle(states[0].dtype)
        addresses = [s.data_ptr() for s in statics]
        self._native = library.Session(handle, batch, arrays, addresses, strides, forward.inputs[0], forward.output)
        self.step = self._native.step


__all__ = ["NativeExecutor", "NativeSession", "Unsupported", "available", "prepare", "threads"]

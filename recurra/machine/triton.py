"""Generated Triton kernels as an executor: fp32 and fp64 on a GPU, with the interface of the native machine."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recurra.machine.backward import BackwardProgram
from recurra.machine.forward import ForwardProgram
from recurra.machine.native import Needs, weights_of
from recurra.machine.operands import Unsupported
from recurra.machine.program import TRANSIENT as NOT_KEPT
from recurra.machine.triton_functions import INTERPRETED, missing
from recurra.machine.triton_program import TRANSIENT, Arrays, TritonProgram, cut_for
from recurra.program.layout import Layout
from recurra.program.plan import Backward, Plan

Kept = list[Tensor]  # what a forward call keeps for its backward beside its input and output


def available(device: torch.device) -> str:
    """ "" where kernels can run on that device, else why not, and what to do."""
    if missing:
        return missing
    if device.type != "cuda" and not INTERPRETED:
        return f"Triton's kernels run on CUDA, not on {device.type}"
    return ""


def prepare(plan: Plan, backward: Backward | None, device: torch.device) -> "TritonExecutor":
    """The executor of a plan; Unsupported where kernels cannot run there, or not this plan."""
    if reason := available(device):
        raise Unsupported(reason)
    return TritonExecutor(plan, backward)


class TritonExecutor:
    """Runs a plan, and its backward, as PyTorch's products and generated kernels.

    weights_inside, weights_outside: as NativeExecutor's.
    """

    name = "Triton"

    def __init__(self, plan: Plan, backward: Backward | None) -> None:
        self.plan, self._derivative = plan, backward
        self.weights_inside = weights_of(plan.body)
        self.weights_outside = weights_of((*plan.before, *plan.after))
        self._forwards: dict[bool, ForwardProgram] = {}
        self._backwards: dict[tuple[bool, Needs], BackwardProgram] = {}
        self._forward(False)
        if backward is not None:
            self._backward(False, (True,) * len(plan.inputs))  # what cannot be run is refused now

    def _forward(self, reverse: bool) -> ForwardProgram:
        found = self._forwards.get(reverse)
        if found is None:
            # two loads of one number may be two threads', so that nothing is written over what is read
            order = -1 if reverse else 1
            found = ForwardProgram(self.plan, self._derivative, order, "", TritonProgram, overwrites=False)
            self._forwards[reverse] = found
        return found

    def _backward(self, reverse: bool, need_inputs: Needs) -> BackwardProgram:
        found = self._backwards.get((reverse, need_inputs))
        if found is None:
            assert self._derivative is not None
            found = BackwardProgram(self._forward(reverse), self._derivative, need_inputs)
            self._backwards[reverse, need_inputs] = found
        return found

    def forward(
        self,
        layout: Layout,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        keep: bool,
    ) -> tuple[Tensor, list[Tensor], Kept]:
        """As NativeExecutor.forward."""
        f, x, N = self._forward(layout.reverse), inputs[0], layout.N
        arrays: Arrays = [TRANSIENT if a == NOT_KEPT else None for a in f.blank(keep)]
        for i, rows in zip(f.inputs, inputs):
            arrays[i] = rows.reshape(N, rows.shape[-1])
        if f.output_is_input:
            output = inputs[f.inputs.index(f.output)].clone()
        else:
            output = x.new_empty(*x.shape[:-1], f.output_width)
            arrays[f.output] = output.view(N, f.output_width)
        last = [x.new_empty(layout.B, w) for w in f.state_widths]
        for i, s, j, t in zip(f.initial, states, f.last, last):
            arrays[i], arrays[j] = s, t
        kept: Kept = []
        if keep:
            kept = [x.new_empty(N, v.width) for _, v in f.lasting]
            for (i, _), rows in zip(f.lasting, kept):
                arrays[i] = rows
        f.program.run(layout, arrays, statics, x)
        return output, last, kept

    def backward(
        self,
        layout: Layout,
        saved: Kept,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        output: Tensor,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        need_inputs: Needs,
        need_statics: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor]]:
        """As NativeExecutor.backward."""
        b, N = self._backward(layout.reverse, need_inputs), layout.N
        arrays: Arrays = [TRANSIENT if a == NOT_KEPT else None for a in b.blank]
        for i, place in b.given:
            arrays[i] = saved[place]
        for i, rows in zip(b.inputs, inputs):
            arrays[i] = rows
        arrays[b.output] = output
        if b.d_output >= 0:
            arrays[b.d_output] = torch.zeros_like(output) if d_output is None else d_output
        d_first = [output.new_empty(layout.B, w) for w in b.forward.state_widths]
        for numbers, tensors in ((b.initial, states), (b.d_last, d_last), (b.d_first, d_first)):
            for i, t in zip(numbers, tensors, strict=True):
                arrays[i] = t
        d_inputs = [None if v is None else output.new_empty(N, v.width) for v in b.d_inputs]
        given_away = {v: d for v, d in zip(b.d_inputs, d_inputs, strict=True) if d is not None}
        for i, v in b.lasting:
            arrays[i] = given_away[v] if v in given_away else output.new_empty(N, v.width)
        found: list[Tensor | None] = [None] * len(statics)
        for i in b.targets:
            if need_statics[i]:
                found[i] = statics[i].new_empty(statics[i].shape)
        b.program.run(layout, arrays, statics, output, [found[i] for i in b.targets])
        return d_inputs, found, d_first

    def programs(self) -> list[TritonProgram]:
        """Those of a forward call, and of the backward call that wants everything."""
        found = [self._forward(False).program]
        if self._derivative is not None:
            found.append(self._backward(False, (True,) * len(self.plan.inputs)).program)
        return found

    def laid_out(self, B: int, dtype: torch.dtype, device: torch.device) -> str:
        """How the loop over B sequences lies on the GPU, in words."""
        program = self.programs()[0]
        n = next(n for n, stage in enumerate(program.procedure.stages) if stage.loop)
        kernel = program.loop(n, frozenset())
        numbers = sum(math.prod(self.plan.statics[i].shape) for kind, i in kernel.arguments if kind == "static")
        cut = cut_for(kernel, B, numbers * dtype.itemsize, dtype, device)
        blocks = -(-B // cut.rows)
        count = blocks * cut.across
        some = f"{count} program instance{'' if count == 1 else 's'}"
        told = f"one kernel for all steps, {some} of {min(B, cut.rows)} sequences"
        if cut.across == 1:
            return told
        return f"{told} and a part of the columns: {cut.across} of them meet after each phase of a step"

    def kept_widths(self, reverse: bool) -> list[int]:
        """The widths of the arrays that a call keeps for its backward."""
        return [v.width for _, v in self._forward(reverse).lasting]

    def kept_size(self, reverse: bool, rows: int) -> int:
        """How many numbers these have."""
        return sum(self.kept_widths(reverse)) * rows

"""A plan as one native program: before, body and after, and the memory that a call of it needs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.machine.blocks import Block, empty
from recurra.machine.encode import PartEncoder, State
from recurra.machine.operands import Memory
from recurra.machine.program import HERE, TRANSIENT, NativeProgram
from recurra.program.layout import Layout
from recurra.program.plan import Backward, Plan, gradients_of
from recurra.program.values import Value
from recurra.program.views import is_view, source


def reads(values: Sequence[Value], more: Iterable[Value] = ()) -> dict[Value, None]:
    """The rows that a part, and whoever wants `more`, reads and the part does not compute."""
    inside = set(values)
    wanted = [source(a) for v in values if not is_view(v) for a in v.args] + [source(v) for v in more]
    return {v: None for v in wanted if v.is_row and v not in inside}


def _read_later(plan: Plan, backward: Backward | None) -> tuple[dict[Value, None], list[Value], list[Value]]:
    """All rows that a backward reads, where previous states are next ones a step earlier; those next states; and the
    previous states that it reads where there is no loop."""
    if backward is None:
        return {}, [], []
    parts = (*backward.after, *backward.body, *backward.before)
    later = reads(parts, gradients_of(backward))
    states = tuple(plan.states.values())
    history = [n for s, n in zip(states, plan.nexts, strict=True) if s in later or n in later]
    outside = reads((*backward.after, *backward.before))
    return later | dict.fromkeys(history), history, [s for s in states if s in outside]


class ForwardProgram:
    """The three parts for one direction of time. Saved rows are written over the stream they came from where nothing
    reads it later; streams that the backward pass does not need live for a chunk of rows only.

    lasting   (array, value) of what a call keeps for its backward
    over      (array, array): saved columns, and the stream's array whose memory they share
    kept      the values whose rows a backward finds, with array and first column: all others live for a chunk of rows
    """

    def __init__(
        self,
        plan: Plan,
        backward: Backward | None,
        order: int,
        precision: str = "",
        program: Callable[..., Any] = NativeProgram,
        overwrites: bool = True,
    ) -> None:
        """program: what the stages are made into. overwrites: whether a tile is written only after all read it."""
        self.plan, self.order, self.precision, self.make = plan, order, precision, program
        self.memory = memory = Memory(plan.statics)
        stored, states = memory.stored, tuple(plan.states.values())
        self.inputs = [memory.store(v) for v in plan.inputs.values()]
        self.initial = [memory.array(s.width) for s in states]
        self.last = [memory.array(s.width) for s in states]
        self.output = stored[plan.output][0] if plan.output in stored else memory.store(plan.output)
        self.output_is_input = self.output in self.inputs
        self.output_width, self.state_widths = plan.output.width, [s.width for s in states]

        later, history, previous = _read_later(plan, backward)
        between = reads(plan.after, [plan.output])  # what the last part reads of the others, or of previous states
        scratch = [v for v in dict.fromkeys([*plan.streams, *between]) if v not in stored]
        saved = [v for v in (backward.saved if backward else ()) if v not in stored]
        kept = [v for v in dict.fromkeys([*saved, *history, *previous]) if v not in stored and v not in scratch]
        wanted = [*scratch, *kept] if self.output_is_input else [*scratch, *kept, plan.output]
        before, body, after = self._encoders(wanted, kept)

        free = [s for s in plan.streams if s in scratch and s not in later and s not in saved and s not in between]
        beneath = [v for v in saved if v in kept and v in body.kept and v not in history] if overwrites else []
        over = body.overwritten(beneath, free)
        arrays = [(memory.store(v), v) for v in scratch]
        self.over = self._share(over)
        under = {a for _, a in self.over}
        lasting = [(a, v) for a, v in arrays if a in under or v in later or v in saved]
        self.lasting = [*lasting, *((memory.store(v), v) for v in kept if v not in stored)]
        self.places = {a: n for n, (a, _) in enumerate(self.lasting)}  # in the block that a call keeps
        self.places |= {a: self.places[lower] for a, lower in self.over}
        there = {*self.inputs, self.output, *self.places} - under
        self.kept = {v: place for v, place in stored.items() if place[0] in there}
        self._transient = [a for a, _ in arrays], [a for a, v in arrays if (a, v) not in lasting]
        stages = [e.encode() for e in (before, body, after) if e.values or e.loop]
        self.program = program(memory, stages, plan.statics, precision=precision)
        self._blank = self.blank(False), self.blank(True)

    def _encoders(self, wanted: Sequence[Value], kept: Sequence[Value]) -> tuple[PartEncoder, PartEncoder, PartEncoder]:
        """Of the three parts, each with those wanted values that are its own; a call may do without those kept."""
        plan, memory = self.plan, self.memory
        in_before, in_after = set(plan.before), set(plan.after)
        in_body = [v for v in wanted if v not in in_before and v not in in_after]
        loop = [State(*s) for s in zip(plan.states.values(), plan.nexts, self.initial, self.last, strict=True)]
        return (
            PartEncoder(memory, plan.before, [v for v in wanted if v in in_before], kept),
            PartEncoder(memory, plan.body, in_body, kept, loop=True, order=self.order, states=loop),
            PartEncoder(memory, plan.after, [v for v in wanted if v in in_after], kept),
        )

    def _share(self, over: dict[Value, tuple[Value, int]]) -> list[tuple[int, int]]:
        """Arrays for saved values that lie over columns of a stream."""
        names: dict[Value, int] = {}
        for v, (stream, column) in over.items():
            if stream not in names:
                names[stream] = self.memory.array(stream.width)
            self.memory.stored[v] = (names[stream], column)
        return [(array, self.memory.stored[stream][0]) for stream, array in names.items()]

    def blank(self, keep: bool) -> list[int]:
        """The addresses of a call before any are known."""
        blank = [0] * len(self.memory.array_widths)
        for i in self._transient[keep]:
            blank[i] = TRANSIENT
        return blank

    def shape(
        self, layout: Layout, dtype: torch.dtype, threads: int, keep: bool, first: Sequence[bool]
    ) -> dict[str, Any]:
        """What a call would do, as `NativeProgram.shape` tells it. first: which first states are given."""
        arrays = self._blank[keep].copy()
        given = [i for i, there in zip(self.initial, first, strict=True) if there]
        kept = [*(i for i, _ in self.lasting), *(i for i, _ in self.over)] if keep else []
        for i in (*self.inputs, self.output, *self.last, *given, *kept):
            arrays[i] = HERE
        told: dict[str, Any] = self.program.shape(layout, arrays, dtype, threads)
        return told

    def run(
        self,
        layout: Layout,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        keep: bool,
    ) -> tuple[Tensor, list[Tensor], Block | None]:
        """Output (one row for each of x's), last states, and the lasting arrays if they are to be kept."""
        arrays = self._blank[keep].copy()
        x = inputs[0]
        for i, rows in zip(self.inputs, inputs):
            arrays[i] = rows.data_ptr()
        if self.output_is_input:
            output = inputs[self.inputs.index(self.output)].clone()
        else:
            output = empty(x, *x.shape[:-1], self.output_width)
            arrays[self.output] = output.data_ptr()
        last = [x.new_empty(layout.B, w) for w in self.state_widths]
        for i, s, j, t in zip(self.initial, states, self.last, last):
            arrays[i], arrays[j] = 0 if s is None else s.data_ptr(), t.data_ptr()
        block = None
        if keep:
            block = Block([v.width for _, v in self.lasting], layout.N, x.dtype)
            for (i, _), address in zip(self.lasting, block.pointers):
                arrays[i] = address
            for i, under in self.over:
                arrays[i] = arrays[under]
        self.program.run(layout, arrays, statics, x.dtype)
        return output, last, block

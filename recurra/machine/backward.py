"""The derivative of a plan as one native program, the products in which weights gather their gradients included."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from recurra.machine.blocks import Block, empty
from recurra.machine.encode import PartEncoder, State
from recurra.machine.forward import ForwardProgram, reads
from recurra.machine.operands import NOTHING, Memory, Operand, Place
from recurra.machine.program import HERE, TRANSIENT
from recurra.program.layout import Layout
from recurra.program.plan import Backward
from recurra.program.values import Value
from recurra.program.views import copied, source, uncut


class Saved:
    """What a forward call keeps for its backward beside its input and output: one block of rows."""

    def __init__(self, block: Block | None) -> None:
        self._block = block

    @property
    def block(self) -> Block:
        """The rows that were kept."""
        assert self._block is not None, "this forward call was told to keep nothing"
        return self._block


def _needed(values: Sequence[Value], wanted: Sequence[Value]) -> list[Value]:
    """The values of a part on which `wanted` depends."""
    needed, kept = set(wanted), []
    for v in reversed(values):
        if v in needed:
            needed.update(v.args)
            kept.append(v)
    return kept[::-1]


class BackwardProgram:
    """The three backward parts, against the forward's direction of time, with gradients of those inputs that need them.

    lasting   values whose rows are needed after the parts; all other arrays live for a chunk of rows only
    gains     (left, right) -> the statics whose gradient gains leftᵀ @ right over all rows; left None: ones
    """

    def __init__(self, forward: ForwardProgram, backward: Backward, need_inputs: Sequence[bool]) -> None:
        self.forward, self.backward = forward, backward
        self.memory = memory = Memory(forward.plan.statics)
        self._place_forward_arrays()
        self.d_output = memory.store(backward.d_output) if backward.d_output is not None else -1
        self.d_last = [memory.array(w) for w in forward.state_widths]
        self.d_first = [memory.array(w) for w in forward.state_widths]

        before = self._choose_ends(need_inputs)
        wanted = [v for v in (*[v for pair in self.gains for v in pair], *self.d_inputs) if v is not None]
        loop, before = self._parts(_needed(before, wanted))
        made = self._store(loop, before, wanted)
        self._gather(self._encoded(loop, before, made))

    def _parts(self, before: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """The reverse loop, which writes what is joined of its own values piece by piece, and the last part."""
        in_body = set(self.backward.body)
        joined = [v for v in before if v.op == "cat" and in_body.issuperset(v.args)]
        in_loop = in_body.union(joined)
        return [*self.backward.body, *joined], [v for v in before if v not in in_loop]

    def _store(self, loop: Sequence[Value], before: Sequence[Value], wanted: Sequence[Value]) -> list[Value]:
        """Arrays for the rows that one part makes and another reads, or that are wanted in the end: the values."""
        memory = self.memory
        computed = {*self.backward.after, *loop, *before, *self.backward.d_nexts}
        last_wanted = dict.fromkeys(source(v) for v in wanted)
        crossing = reads(loop) | reads(before, wanted) | last_wanted
        arrays = [(memory.store(v), v) for v in crossing if v in computed and v not in memory.stored]
        self.lasting = [(a, v) for a, v in arrays if v in last_wanted]
        self.blank = [0] * len(memory.array_widths)
        for a, v in arrays:
            self.blank[a] = 0 if v in last_wanted else TRANSIENT
        return [v for _, v in arrays]

    def _encoded(self, loop: Sequence[Value], before: Sequence[Value], made: Sequence[Value]) -> list[list[int]]:
        """The parts as stages of the program, each writing those of the stored values that are its own."""
        memory, backward = self.memory, self.backward
        after, in_loop, rest = set(backward.after), {*loop, *backward.d_nexts}, set(before)
        carried = [State(*s) for s in zip(backward.d_nexts, backward.d_states, self.d_last, self.d_first, strict=True)]
        stages = []
        if backward.after:
            stages.append(PartEncoder(memory, backward.after, [v for v in made if v in after]).encode())
        with self._previous_states_by_step():
            kept = [v for v in made if v in in_loop and v not in after]
            stages.append(PartEncoder(memory, loop, kept, (), True, -self.forward.order, carried).encode())
        if before:
            kept = [v for v in made if v in rest and v not in after]
            stages.append(PartEncoder(memory, before, kept).encode())
        return stages

    def _choose_ends(self, need_inputs: Sequence[bool]) -> list[Value]:
        """Chooses the rows that gains read and inputs are given; the last part, with copies where those are no rows."""
        backward, memory = self.backward, self.memory
        made = {*backward.after, *backward.body, *backward.before}
        in_rows = made | set(memory.stored) | set(memory.shifted_of) | set(backward.d_nexts)
        copies: dict[Value, Value] = {}

        def rows(v: Value) -> Value:
            whole, _ = uncut(v)
            return v if whole in in_rows and whole.op != "broadcast" else copies.setdefault(v, copied(v))

        self.gains: dict[tuple[Value | None, Value], list[Value]] = {}
        for static, left, right in backward.matrices:
            self.gains.setdefault((rows(left), rows(right)), []).append(static)
        for static, value in backward.vectors:
            self.gains.setdefault((None, rows(value)), []).append(static)
        own = {v for v in made if v.op not in ("slice", "broadcast")}  # each may be given away once
        self.d_inputs: list[Value | None] = []
        for d, needed in zip(backward.d_inputs.values(), need_inputs, strict=True):
            given = None if d is None or not needed else d if d in own else copied(d)
            self.d_inputs.append(given)
            own.discard(given)
        given_copies = [d for d in self.d_inputs if d is not None and d not in made]
        return [*backward.before, *copies.values(), *given_copies]

    def _gather(self, stages: Sequence[list[int]]) -> None:
        """The program: the stages, and then the gains, whose targets are the gradients of statics."""
        statics = self.forward.plan.statics
        places = {s: i for i, s in enumerate(statics)}
        gaining = dict.fromkeys(places[s] for to in self.gains.values() for s in to)
        number = {i: k for k, i in enumerate(gaining)}
        gains = [self._gain(pair, [number[places[s]] for s in to]) for pair, to in self.gains.items()]
        self.targets = [*gaining]
        precision = self.forward.precision
        self.program = self.forward.make(self.memory, stages, statics, gains, len(self.targets), precision)

    def _gain(self, pair: tuple[Value | None, Value], targets: list[int]) -> list[int]:
        left, right = pair
        operands = [*(NOTHING if left is None else self._rows(left)), *self._rows(right)]
        return [1 if left is None else left.width, right.width, *operands, len(targets), *targets]

    def _rows(self, v: Value) -> Operand:
        """Where the rows of a value lie."""
        column = 0
        while v.op == "slice" and v not in self.memory.stored:
            column, v = column + int(v.attr[0]), v.args[0]
        operand = self.memory.operand(v, column, 0)
        assert operand is not None and operand[0] in (Place.ROWS, Place.SHIFTED), f"{v} has no rows"
        return operand

    def _place_forward_arrays(self) -> None:
        """The forward program's arrays that outlive a call, under numbers of ours; previous states are next ones a step
        earlier. What lived for a chunk of rows only is computed anew."""
        memory, forward = self.memory, self.forward
        ours: dict[int, int] = {}  # by the forward program's number of an array
        for v, (theirs, column) in forward.kept.items():
            if theirs not in ours:
                ours[theirs] = memory.array(forward.memory.array_widths[theirs])
            memory.stored[v] = (ours[theirs], column)
        self.inputs, self.output = [ours[i] for i in forward.inputs], ours[forward.output]
        self.given = [(mine, forward.places[theirs]) for theirs, mine in ours.items() if theirs in forward.places]
        self.initial = [memory.array(w) for w in forward.state_widths]
        plan = forward.plan
        for s, n, first in zip(plan.states.values(), plan.nexts, self.initial, strict=True):
            if n in memory.stored:
                memory.shifted_of[s] = memory.shift(memory.stored[n][0], first, forward.order)

    @contextmanager
    def _previous_states_by_step(self) -> Iterator[None]:
        """Inside the loop previous states are read by step, even where their rows are stored as well."""
        stored = self.memory.stored
        taken = {s: stored.pop(s) for s in self.memory.shifted_of if s in stored}
        yield
        stored.update(taken)

    def shape(
        self, layout: Layout, dtype: torch.dtype, threads: int, first: Sequence[bool], need_statics: Sequence[bool]
    ) -> dict[str, Any]:
        """What a call would do that is given the gradient of the output only, as `NativeProgram.shape` tells it."""
        arrays = self.blank.copy()
        given = [i for i, there in zip(self.initial, first, strict=True) if there]
        there = [*self.inputs, self.output, *(mine for mine, _ in self.given), *(i for i, _ in self.lasting)]
        for i in (*there, *given, *self.d_first, *([self.d_output] if self.d_output >= 0 else ())):
            arrays[i] = HERE
        targets = [HERE if need_statics[i] else 0 for i in self.targets]
        told: dict[str, Any] = self.program.shape(layout, arrays, dtype, threads, targets)
        return told

    def run(
        self,
        layout: Layout,
        saved: Saved,
        inputs: Sequence[Tensor],
        statics: Sequence[Tensor],
        states: Sequence[Tensor | None],
        output: Tensor,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        need_statics: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor]]:
        """Gradients of the inputs, of the statics and of the first states."""
        arrays, kept = self.blank.copy(), saved.block.pointers
        for ours, place in self.given:
            arrays[ours] = kept[place]
        for i, given in zip(self.inputs, inputs):
            arrays[i] = given.data_ptr()
        arrays[self.output] = output.data_ptr()
        if self.d_output >= 0:
            d_output = output.new_zeros(layout.N, output.shape[-1]) if d_output is None else d_output
            arrays[self.d_output] = d_output.data_ptr()
        d_first = [output.new_empty(layout.B, w) for w in self.forward.state_widths]
        for numbers, tensors in ((self.initial, states), (self.d_last, d_last), (self.d_first, d_first)):
            for i, t in zip(numbers, tensors, strict=True):
                arrays[i] = 0 if t is None else t.data_ptr()
        block = Block([v.width for _, v in self.lasting if v not in self.d_inputs], layout.N, output.dtype)
        pointers = iter(block.pointers)
        d_inputs = [None if v is None else empty(output, layout.N, v.width) for v in self.d_inputs]
        given_away = {v: d.data_ptr() for v, d in zip(self.d_inputs, d_inputs, strict=True) if d is not None}
        for i, v in self.lasting:
            arrays[i] = given_away[v] if v in given_away else next(pointers)
        found: list[Tensor | None] = [None] * len(statics)
        for i in self.targets:
            if need_statics[i]:
                # each weight has memory of its own: clipping scales gradients in place, one after the other
                found[i] = statics[i].new_empty(statics[i].shape)
        targets = [0 if (t := found[i]) is None else t.data_ptr() for i in self.targets]
        self.program.run(layout, arrays, statics, output.dtype, targets, (block, d_output, d_last, d_first))
        return d_inputs, found, d_first

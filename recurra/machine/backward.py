"""The derivative of a plan as one native program, and the products in which weights gather their gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from recurra.machine.blocks import Block
from recurra.machine.encode import PartEncoder, State
from recurra.machine.forward import ForwardProgram, base, reads, roots
from recurra.machine.operands import Memory
from recurra.machine.program import TRANSIENT, NativeProgram, product
from recurra.program.layout import Layout
from recurra.program.plan import Backward
from recurra.program.values import Value


class Saved:
    """What a forward call keeps for its backward beside its input and output: one block of rows."""

    def __init__(self, forward: ForwardProgram, block: Block | None) -> None:
        self._places, self._block = forward.places, block

    @property
    def block(self) -> Block:
        """The rows that were kept."""
        assert self._block is not None, "this forward call was told to keep nothing"
        return self._block

    def view(self, array: int) -> Tensor:
        """One of the forward program's arrays, as a tensor."""
        return self.block.view(self._places[array])


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

    lasting   values whose rows are needed after the call; all other arrays live for a chunk of rows only
    """

    def __init__(self, forward: ForwardProgram, backward: Backward, need_inputs: Sequence[bool]) -> None:
        self.forward, self.backward = forward, backward
        self.memory = memory = Memory(forward.plan.statics)
        self._place_forward_arrays()
        of_inputs = zip(backward.d_inputs.values(), need_inputs, strict=True)
        self.d_inputs = [d if needed else None for d, needed in of_inputs]
        self.d_output = memory.store(backward.d_output) if backward.d_output is not None else -1
        self.d_last = [memory.array(w) for w in forward.state_widths]
        self.d_first = [memory.array(w) for w in forward.state_widths]

        wanted = roots(backward, need_inputs)
        before = _needed(backward.before, wanted)
        in_after, in_body = set(backward.after), set(backward.body)
        joined = [
            v for v in before if v.op == "cat" and in_body.issuperset(v.args)
        ]  # written by the loop, piece by piece
        in_body.update(joined)
        loop, before = [*backward.body, *joined], [v for v in before if v not in in_body]
        computed = in_after | in_body | set(before) | set(backward.d_nexts)
        crossing = reads(loop) | reads(before, wanted) | dict.fromkeys(base(v) for v in wanted)
        made = [v for v in crossing if v in computed and v not in memory.stored]
        arrays = [(memory.store(v), v) for v in made]
        last_wanted = {base(v) for v in wanted}
        self._given_away = {d for d in self.d_inputs if d is not None}
        self.lasting = [(a, v) for a, v in arrays if v in last_wanted]
        self._blank = [0] * len(memory.array_widths)
        for a, v in arrays:
            self._blank[a] = 0 if v in last_wanted else TRANSIENT

        carried = [State(*s) for s in zip(backward.d_nexts, backward.d_states, self.d_last, self.d_first, strict=True)]
        of_loop = [v for v in made if v not in in_after and (v in in_body or v in backward.d_nexts)]
        stages = []
        if backward.after:
            stages.append(PartEncoder(memory, backward.after, [v for v in made if v in in_after]).encode())
        with self._previous_states_by_step():
            stages.append(PartEncoder(memory, loop, of_loop, (), True, -forward.order, carried).encode())
        if before:
            rest = [v for v in made if v in before and v not in in_after]
            stages.append(PartEncoder(memory, before, rest).encode())
        self.program = NativeProgram(memory, stages, forward.plan.statics)

    def _place_forward_arrays(self) -> None:
        """The forward program's arrays that outlive a call, under numbers of ours; previous states are next ones a step
        earlier. What lived for a chunk of rows only is computed anew."""
        memory, ours = self.memory, self.forward.memory
        numbers: dict[int, int] = {}
        for v, (array, column) in self.forward.kept.items():
            if array not in numbers:
                numbers[array] = memory.array(ours.array_widths[array])
            memory.stored[v] = (numbers[array], column)
        forward = self.forward
        self._inputs, self._output = [numbers[i] for i in forward.inputs], numbers[forward.output]
        self._given = [(ours, forward.places[theirs]) for theirs, ours in numbers.items() if theirs in forward.places]
        self.initial = [memory.array(w) for w in self.forward.state_widths]
        plan = self.forward.plan
        for s, n, first in zip(plan.states.values(), plan.nexts, self.initial, strict=True):
            if n in memory.stored:
                memory.shifted_of[s] = memory.shift(memory.stored[n][0], first, self.forward.order)

    @contextmanager
    def _previous_states_by_step(self) -> Iterator[None]:
        """Inside the loop previous states are read by step, even where their rows are stored as well."""
        stored = self.memory.stored
        taken = {s: stored.pop(s) for s in self.memory.shifted_of if s in stored}
        yield
        stored.update(taken)

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
        arrays, kept = self._blank.copy(), saved.block.pointers
        for ours, place in self._given:
            arrays[ours] = kept[place]
        for i, given in zip(self._inputs, inputs):
            arrays[i] = given.data_ptr()
        arrays[self._output] = output.data_ptr()
        if self.d_output >= 0:
            d_output = output.new_zeros(layout.N, output.shape[-1]) if d_output is None else d_output
            arrays[self.d_output] = d_output.data_ptr()
        d_first = [output.new_empty(layout.B, w) for w in self.forward.state_widths]
        for numbers, tensors in ((self.initial, states), (self.d_last, d_last), (self.d_first, d_first)):
            for i, t in zip(numbers, tensors, strict=True):
                arrays[i] = 0 if t is None else t.data_ptr()
        block = Block([v.width for _, v in self.lasting if v not in self._given_away], layout.N, output.dtype)
        rows = Rows(self.forward, layout, saved, inputs, output, states)
        if d_output is not None and self.backward.d_output is not None:
            rows.tensors[self.backward.d_output] = d_output
        place = 0
        for i, v in self.lasting:
            if v in self._given_away:
                rows.tensors[v] = own = output.new_empty(layout.N, v.width)
                arrays[i] = own.data_ptr()
            else:
                rows.made[v] = (block, place)
                arrays[i] = block.pointers[place]
                place += 1
        self.program.run(layout, arrays, statics, output.dtype)
        d_statics = self._of_statics(rows, statics, need_statics)
        return rows.each_own(self.d_inputs), d_statics, d_first

    def _of_statics(self, rows: "Rows", statics: Sequence[Tensor], need: Sequence[bool]) -> list[Tensor | None]:
        found: list[Tensor | None] = [None] * len(statics)

        def gain(i: int, d: Tensor) -> None:
            known = found[i]
            found[i] = d if known is None else known + d

        place = self.memory.static_index
        for static, left, right in self.backward.matrices:
            if need[place[static]]:
                gain(place[static], rows.product(left, right))
        sums: dict[Value, Tensor] = {}
        for static, value in self.backward.vectors:
            i = place[static]
            if need[i]:
                # each weight has memory of its own: clipping scales gradients in place, one after the other
                total = sums[value].clone() if value in sums else rows.of(value).sum(0)
                sums[value] = total
                gain(i, (total if total.numel() == statics[i].numel() else total.sum()).reshape(statics[i].shape))
        return found


class Rows:
    """The rows (N, width) of values after a backward run, as tensors.

    tensors  rows that have memory of their own
    made     rows in a block, and their place in it
    """

    def __init__(
        self,
        forward: ForwardProgram,
        layout: Layout,
        saved: Saved,
        inputs: Sequence[Tensor],
        output: Tensor,
        states: Sequence[Tensor | None],
    ) -> None:
        self._plan, self._stored = forward.plan, forward.kept
        self._layout, self._saved, self._states, self._like = layout, saved, states, output
        self._ends = {forward.output: output, **dict(zip(forward.inputs, inputs, strict=True))}
        self.tensors: dict[Value, Tensor] = {}
        self.made: dict[Value, tuple[Block, int]] = {}

    def of(self, v: Value) -> Tensor:
        """A value's rows."""
        if v in self.tensors:
            return self.tensors[v]
        if v in self.made:
            block, place = self.made[v]
            return block.view(place)
        if v in self._stored:
            array, column = self._stored[v]
            if array in self._ends:
                return self._ends[array].reshape(self._layout.N, v.width)
            rows = self._saved.view(array)
            return rows if rows.shape[1] == v.width else rows[:, column : column + v.width]
        if v.op == "slice":
            return self.of(v.args[0])[:, int(v.attr[0]) : int(v.attr[1])]
        if v.op == "broadcast":
            return self.of(v.args[0]).expand(-1, v.width)
        if v.op == "cat":
            return torch.cat([self.of(a) for a in v.args], 1)
        if v.op == "const":
            return self._like.new_full((self._layout.N, 1), float(v.attr[0]))
        return self._earlier(*self._history(v))

    def each_own(self, values: Sequence[Value | None]) -> list[Tensor | None]:
        """The values' rows, each in memory of its own, the same value twice included."""
        found: list[Tensor | None] = []
        for k, v in enumerate(values):
            rows = None if v is None else self.of(v)
            if rows is None or (v in self.tensors and v.op not in ("slice", "broadcast") and v not in values[:k]):
                found.append(rows)
            else:
                found.append(rows.clone())
        return found

    def _history(self, state: Value) -> tuple[Tensor, Tensor | None]:
        i = list(self._plan.states.values()).index(state)
        return self.of(self._plan.nexts[i]), self._states[i]

    def product(self, left: Value, right: Value) -> Tensor:
        """leftᵀ @ right over all rows. Where lengths are equal, previous states are read a step earlier in place."""
        layout = self._layout
        if right.op != "state" or right in self._stored or layout.batch_sizes is not None:
            return product(self.of(left), self.of(right))
        d, (history, first), B = self.of(left), self._history(right), layout.B
        if layout.T == 1:
            return d.new_zeros(d.shape[1], right.width) if first is None else product(d, first)
        head, tail = slice(0, layout.N - B), slice(B, layout.N)
        start, inner, earlier = slice(0, B), tail, head
        if layout.reverse:
            start, inner, earlier = slice(layout.N - B, layout.N), head, tail
        gradient = product(d[inner], history[earlier])
        return gradient if first is None else product(d[start], first, gradient)

    def _earlier(self, history: Tensor, first: Tensor | None) -> Tensor:
        """Rows of the state before each step."""
        first = history.new_zeros(self._layout.B, history.shape[1]) if first is None else first
        return torch.cat([*self._steps(history, first)])

    def _steps(self, history: Tensor, first: Tensor) -> Iterator[Tensor]:
        layout = self._layout
        offsets, sizes = layout.offsets, layout.sizes()
        for t in range(layout.T):
            before = t + 1 if layout.reverse else t - 1
            known = min(sizes[t], sizes[before]) if 0 <= before < layout.T else 0
            if known:
                yield history[offsets[before] : offsets[before] + known]
            yield first[known : sizes[t]]

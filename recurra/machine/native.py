"""The native machine as an executor: programs for it, and the memory each call hands to it.

A plan becomes two native programs. The forward one runs before, body and after; the backward one the three backward
parts, whose rows then meet in one product a weight, in PyTorch. Saved rows are written over the stream they came from
where nothing reads it later.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recurra.machine.encode import Memory, PartEncoder, State, Unsupported, procedure
from recurra.program.layout import Layout
from recurra.program.plan import Backward, Plan
from recurra.program.values import Value


def _load() -> Any:
    try:
        return importlib.import_module("recurra._native")
    except ImportError:
        return None


_native = _load()
_TRANSIENT = 1  # the address of an array that is needed only while a chunk of rows goes through the stages


def available() -> str:
    """"" where the native machine can run here, else why not."""
    if _native is None:
        return "this installation has no native part (recurra._native)"
    return "" if _native.isa() else "this processor has no AVX2"


def prepare(plan: Plan, backward: Backward | None) -> "NativeExecutor":
    """The executor of a plan; Unsupported with the user's line where the machine cannot run it."""
    if reason := available():
        raise Unsupported(reason)
    return NativeExecutor(plan, backward)


def _reads(values: Sequence[Value], more: Sequence[Value] = ()) -> dict[Value, None]:
    """What a part, and whoever wants `more`, reads that the part does not compute; slices are looked through."""
    inside = set(values)
    found: dict[Value, None] = {}

    def visit(v: Value) -> None:
        if v.op in ("slice", "broadcast") and v.is_row:
            visit(v.args[0])
        elif v.is_row and v not in inside:
            found[v] = None

    for v in values:
        for a in v.args:
            visit(a)
    for v in more:
        visit(v)
    return found


def _base(v: Value) -> Value:
    """What a slice or a broadcast is a view of."""
    return _base(v.args[0]) if v.op in ("slice", "broadcast") else v


def _prune(values: Sequence[Value], wanted: Sequence[Value]) -> list[Value]:
    """The values of a part that `wanted` depends on."""
    needed = set(wanted)
    kept = []
    for v in reversed(values):
        if v in needed:
            needed.update(v.args)
            kept.append(v)
    return kept[::-1]


class _Program:
    """A native program, and where each tensor of a call goes in it."""

    def __init__(self, memory: Memory, stages: list[list[int]], statics: Sequence[Value]) -> None:
        self.code, self.memory = procedure(memory, stages), memory
        self.matrices = [next(i for i, s in enumerate(statics) if s is m) for m in memory.matrices]
        self.vectors = [next(i for i, s in enumerate(statics) if s is v) for v in memory.vectors]
        self.handles: dict[torch.dtype, Any] = {}

    def handle(self, dtype: torch.dtype) -> Any:
        if dtype not in self.handles:
            self.handles[dtype] = _native.Program(self.code, self.memory.constants, dtype is torch.float64)
        return self.handles[dtype]

    def run(self, layout: Layout, arrays: list[int], statics: Sequence[Tensor], dtype: torch.dtype) -> None:
        matrices = [_matrix(statics[i]) for i in self.matrices]
        vectors = [statics[i].contiguous() for i in self.vectors]
        handle = self.handles.get(dtype) or self.handle(dtype)
        handle.run(layout.T, layout.B, layout.N, _offsets(layout), torch.get_num_threads(), tuple(arrays),
                   tuple([m.data_ptr() for m in matrices]), tuple([m.stride(0) for m in matrices]), tuple([v.data_ptr() for v in vectors]))


def _matrix(w: Tensor) -> Tensor:
    return w if w.stride(1) == 1 or w.shape[1] == 1 and w.is_contiguous() else w.contiguous()


def _offsets(layout: Layout) -> int:
    if layout.batch_sizes is None:
        return 0
    if layout.handle is None:
        layout.handle = torch.tensor(layout.offsets, dtype=torch.int64)
    assert isinstance(layout.handle, Tensor)
    return layout.handle.data_ptr()


class _Spare:
    """Large allocations of calls that are over, for the next ones: fresh memory costs a page fault every 4 KiB."""

    LEAST, MOST = 1 << 16, 4  # elements worth keeping; blocks kept

    def __init__(self) -> None:
        self.blocks: dict[int, Tensor] = {}  # by address; one operation each, so that threads cannot share a block

    def take(self, size: int, dtype: torch.dtype) -> Tensor:
        if size >= self.LEAST:
            for address, block in list(self.blocks.items()):
                if block.dtype is dtype and size <= block.numel() <= 2 * size and self.blocks.pop(address, None) is not None:
                    return block
        return torch.empty(size, dtype=dtype)

    def give(self, block: Tensor) -> None:
        if block.numel() >= self.LEAST:
            self.blocks[block.data_ptr()] = block
            for oldest in list(self.blocks)[: -self.MOST]:
                self.blocks.pop(oldest, None)


_spare = _Spare()


class _Block:
    """One allocation for several arrays of N rows, each beginning on a cache line."""

    __slots__ = ("memory", "pointers", "rows", "starts", "widths")

    def __init__(self, widths: Sequence[int], rows: int, dtype: torch.dtype) -> None:
        starts, total = [], 0
        for width in widths:
            starts.append(total)
            total += -(-width * rows // 16) * 16
        self.memory = _spare.take(total, dtype)
        self.widths, self.starts, self.rows = widths, starts, rows
        base, size = self.memory.data_ptr(), dtype.itemsize
        self.pointers = [base + size * s for s in starts]

    def __del__(self) -> None:
        _spare.give(self.memory)

    def view(self, i: int) -> Tensor:
        return self.memory[self.starts[i] : self.starts[i] + self.rows * self.widths[i]].view(self.rows, self.widths[i])


class _Forward:
    """The forward program of a plan for one direction of time."""

    def __init__(self, plan: Plan, backward: Backward | None, order: int) -> None:
        self.plan, self.order = plan, order
        memory = Memory()
        stored = memory.stored
        nexts = list(dict.fromkeys(plan.nexts))
        after_reads = _reads(plan.after, [plan.output])
        later = _backward_reads(plan, backward) if backward is not None else {}
        saved = list(backward.saved) if backward is not None else []
        history = self._history(plan, later)
        previous = [s for s in plan.states.values() if s in after_reads or s in _row_reads(backward)]

        self.inputs = [memory.store(v) for v in plan.inputs.values()]
        self.initial = [memory.array(s.width) for s in plan.states.values()]
        self.last = [memory.array(s.width) for s in plan.states.values()]
        self.output_input = next((i for i, v in enumerate(plan.inputs.values()) if v is plan.output), None)
        self.output = memory.store(plan.output) if plan.output not in stored else stored[plan.output][0]

        in_before, in_body, in_after = set(plan.before), set(plan.body), set(plan.after)
        scratch: list[Value] = []   # always there
        kept: list[Value] = []      # there when the backward pass will come
        for v in [*plan.streams, *after_reads]:
            if v not in stored and v not in scratch and v.op not in ("slice", "broadcast", "cat", "state") or v.op == "cat" and v in in_before | in_body and v not in stored:
                scratch.append(v)
        scratch += [s for s in previous if s in after_reads]
        for v in [*saved, *history, *previous]:
            if v not in stored and v not in scratch and v not in kept:
                kept.append(v)
        before = PartEncoder(memory, plan.before, [v for v in [*scratch, *kept, plan.output] if v in in_before], [v for v in kept if v in in_before])
        states = [State(s, n, i, f) for s, n, i, f in zip(plan.states.values(), plan.nexts, self.initial, self.last, strict=True)]
        of_body = [v for v in [*scratch, *kept, plan.output] if v in in_body or v.op == "state"]
        body = PartEncoder(memory, plan.body, dict.fromkeys(of_body), [v for v in kept if v in in_body or v.op == "state"], True, order, states)
        read_later = {*after_reads, *later, *saved}
        free = [s for s in plan.streams if s in scratch and s not in read_later]
        over = body.overwritten([v for v in saved if v in kept and v in in_body and v not in history], free)
        self.scratch = [(memory.store(v), v) for v in scratch if v not in stored]
        self.over: list[tuple[int, int]] = []  # array for saved columns, the stream's array under it
        alias: dict[Value, int] = {}
        for v, (stream, column) in over.items():
            if stream not in alias:
                alias[stream] = memory.array(stream.width)
                self.over.append((alias[stream], stored[stream][0]))
            stored[v] = (alias[stream], column)
        self.kept = [(memory.store(v), v) for v in kept if v not in stored]
        after = PartEncoder(memory, plan.after, [v for v in [*kept, plan.output] if v in in_after], [v for v in kept if v in in_after])
        stages = [e.encode() for e, values in ((before, plan.before), (body, plan.nexts), (after, plan.after)) if values]
        self.program = _Program(memory, stages, plan.statics)
        under = {a for _, a in self.over}
        lasting = [(a, v) for a, v in self.scratch if a in under or v in read_later]
        self.kept = [*lasting, *self.kept]
        self.transient = [a for a, _ in self.scratch], [a for a, _ in self.scratch if (a, _) not in lasting]
        self.out_width = plan.output.width
        self.state_widths = [s.width for s in plan.states.values()]

    @staticmethod
    def _history(plan: Plan, later: dict[Value, None]) -> list[Value]:
        """Next states of which the backward pass reads the rows, as next or as previous states."""
        pairs = zip(plan.states.values(), plan.nexts, strict=True)
        return [n for s, n in pairs if s in later or n in later]

    def run(self, layout: Layout, inputs: Sequence[Tensor], statics: Sequence[Tensor], states: Sequence[Tensor | None], keep: bool,
            ) -> tuple[Tensor, list[Tensor], _Block | None]:
        like = inputs[0]
        output = inputs[self.output_input].clone() if self.output_input is not None else torch.empty(layout.N, self.out_width, dtype=like.dtype)
        last = [torch.empty(layout.B, w, dtype=like.dtype) for w in self.state_widths]
        block = _Block([v.width for _, v in self.kept], layout.N, like.dtype) if keep else None
        arrays = [0] * len(self.program.memory.array_widths)
        for i in self.transient[keep]:
            arrays[i] = _TRANSIENT
        for i, x in zip(self.inputs, inputs, strict=True):
            arrays[i] = x.data_ptr()
        for i, s in zip(self.initial, states, strict=True):
            arrays[i] = s.data_ptr() if s is not None else 0
        for i, s in zip(self.last, last, strict=True):
            arrays[i] = s.data_ptr()
        if self.output_input is None:
            arrays[self.output] = output.data_ptr()
        if block is not None:
            for (i, _), p in zip(self.kept, block.pointers, strict=True):
                arrays[i] = p
            for i, under in self.over:
                arrays[i] = arrays[under]
        self.program.run(layout, arrays, statics, like.dtype)
        return output, last, block


def _backward_reads(plan: Plan, backward: Backward) -> dict[Value, None]:
    """Forward rows, and previous states, that any part of the backward pass or the products after it read."""
    computed = [*backward.after, *backward.body, *backward.before]
    wanted = [v for _, a, b in backward.matrices for v in (a, b)] + [r for _, r in backward.vectors]
    return _reads(computed, [*wanted, *(d for d in backward.d_inputs.values() if d is not None)])


def _row_reads(backward: Backward | None) -> dict[Value, None]:
    """What the backward parts without time read: previous states among it must be there as rows."""
    return {} if backward is None else _reads([*backward.after, *backward.before])


class _Backward:
    """The backward program of a plan, for one direction of time and with or without gradients of the inputs."""

    def __init__(self, forward: _Forward, backward: Backward, need_inputs: bool) -> None:
        plan, memory = forward.plan, Memory()
        self.forward, self.backward, stored = forward, backward, memory.stored
        ours = forward.program.memory
        self.given: list[tuple[int, int]] = []  # our array, the forward program's array
        arrays: dict[int, int] = {}
        for v, (array, column) in ours.stored.items():
            if array not in arrays:
                arrays[array] = memory.array(ours.array_widths[array])
                self.given.append((arrays[array], array))
            stored[v] = (arrays[array], column)
        self.initial = [memory.array(s.width) for s in plan.states.values()]
        for i, (s, n) in enumerate(zip(plan.states.values(), plan.nexts, strict=True)):
            if n in stored:
                memory.shifted_of[s] = memory.shift(stored[n][0], self.initial[i], forward.order)
        previous = {s: stored.pop(s) for s in plan.states.values() if s in stored}  # rows of previous states: outside the loop only

        self.d_inputs = [d if need_inputs else None for d in backward.d_inputs.values()]
        wanted = [v for _, a, b in backward.matrices for v in (a, b)] + [r for _, r in backward.vectors] + [d for d in self.d_inputs if d is not None]
        before = _prune(backward.before, wanted)
        self.d_output = memory.store(backward.d_output) if backward.d_output is not None else None
        self.d_last = [memory.array(s.width) for s in plan.states.values()]
        self.d_first = [memory.array(s.width) for s in plan.states.values()]
        in_after, in_body = set(backward.after), set(backward.body)
        joined = [v for v in before if v.op == "cat" and in_body.issuperset(v.args)]  # written by the loop piece by piece
        in_body.update(joined)
        loop, before = [*backward.body, *joined], [v for v in before if v not in in_body]
        in_before = set(before)
        all_reads = {**_reads(before, wanted), **_reads(loop)}
        self.made = [v for v in dict.fromkeys([*all_reads, *wanted]) if v not in stored
                     and (v in in_after or v in in_body or v in in_before or v in backward.d_nexts) and v.op not in ("slice", "broadcast")]
        self.arrays = [memory.store(v) for v in self.made]
        outputs = set(self.made)
        states = [State(c, d, i, f) for c, d, i, f in zip(backward.d_nexts, backward.d_states, self.d_last, self.d_first, strict=True)]
        stored.update(previous)
        shifted = dict(memory.shifted_of)
        after_code = PartEncoder(memory, backward.after, [v for v in backward.after if v in outputs]).encode() if backward.after else None
        for s in previous:
            del stored[s]
        memory.shifted_of.update(shifted)
        in_loop = [v for v in self.made if v in in_body or v in backward.d_nexts]
        body_code = PartEncoder(memory, loop, [v for v in in_loop if v not in in_after], (), True, -forward.order, states).encode()
        stored.update(previous)
        before_code = PartEncoder(memory, before, [v for v in before if v in outputs and v not in in_body and v not in in_after]).encode() if before else None
        self.program = _Program(memory, [c for c in (after_code, body_code, before_code) if c is not None], plan.statics)
        lasting = {_base(v) for v in wanted}
        self.lasting = [v for v in self.made if v in lasting]
        self.transient = [a for a, v in zip(self.arrays, self.made, strict=True) if v not in lasting]
        self.widths = [v.width for v in self.lasting]

    def run(self, layout: Layout, saved: "_Saved", inputs: Sequence[Tensor], statics: Sequence[Tensor], states: Sequence[Tensor | None], output: Tensor,
            d_output: Tensor | None, d_last: Sequence[Tensor | None], need_statics: Sequence[bool],
            ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        forward, like = self.forward, inputs[0]
        arrays = [0] * len(self.program.memory.array_widths)
        theirs = saved.arrays(inputs, output)
        for i, j in self.given:
            arrays[i] = theirs[j].data_ptr() if j in theirs else 0
        if self.d_output is not None:
            d_output = torch.zeros(layout.N, forward.out_width, dtype=like.dtype) if d_output is None else d_output
            arrays[self.d_output] = d_output.data_ptr()
        d_first = [torch.empty(layout.B, w, dtype=like.dtype) for w in forward.state_widths]
        for i, t in zip((*self.initial, *self.d_last, *self.d_first), (*states, *d_last, *d_first), strict=True):
            arrays[i] = t.data_ptr() if t is not None else 0
        made = _Block(self.widths, layout.N, like.dtype)
        separate = {v: torch.empty(layout.N, v.width, dtype=like.dtype) for v in self.d_inputs if v is not None}
        for i in self.transient:
            arrays[i] = _TRANSIENT
        for v, p in zip(self.lasting, made.pointers, strict=True):
            arrays[self.program.memory.stored[v][0]] = separate[v].data_ptr() if v in separate else p
        self.program.run(layout, arrays, statics, like.dtype)
        rows = _Rows(self, layout, theirs, made, separate, states)
        d_inputs = [separate[v] if v is not None and v in separate else rows.of(v).clone() if v is not None else None for v in self.d_inputs]
        return d_inputs, self._d_statics(rows, statics, need_statics), list(d_first)

    def _d_statics(self, rows: "_Rows", statics: Sequence[Tensor], need: Sequence[bool]) -> list[Tensor | None]:
        position = {s: i for i, s in enumerate(self.forward.plan.statics)}
        out: list[Tensor | None] = [None] * len(statics)
        for static, left, right in self.backward.matrices:
            i = position[static]
            if need[i]:
                product = rows.product(left, right)
                out[i] = product if out[i] is None else out[i] + product
        sums: dict[Value, Tensor] = {}
        for static, value in self.backward.vectors:
            i = position[static]
            if need[i]:
                if value not in sums:
                    sums[value] = rows.of(value).sum(0)
                d = sums[value].reshape(statics[i].shape) if sums[value].numel() == statics[i].numel() else sums[value].sum().reshape(statics[i].shape)
                out[i] = d if out[i] is None else out[i] + d
        return out


class _Saved:
    """What a forward call keeps for its backward: one block of memory, written once."""

    def __init__(self, forward: _Forward, block: _Block | None) -> None:
        self.forward, self.block = forward, block

    def arrays(self, inputs: Sequence[Tensor], output: Tensor) -> dict[int, Tensor]:
        f = self.forward
        found = dict(zip(f.inputs, inputs, strict=True))
        found.setdefault(f.output, output)
        assert self.block is not None, "this forward call kept nothing for a backward one"
        for n, (i, _) in enumerate(f.kept):
            found[i] = self.block.view(n)
        for i, under in f.over:
            found[i] = found[under]
        return found


class _Rows:
    """The rows of values after a backward run, as tensors, for the products with which weights gather their gradients."""

    def __init__(self, program: _Backward, layout: Layout, theirs: dict[int, Tensor], made: _Block, separate: dict[Value, Tensor], states: Sequence[Tensor | None]) -> None:
        self.program, self.layout, self.theirs, self.made, self.separate, self.states = program, layout, theirs, made, separate, states
        self.index = {v: n for n, v in enumerate(program.lasting)}

    def of(self, v: Value) -> Tensor:
        """(N, width)."""
        if v in self.separate:
            return self.separate[v]
        if v in self.index:
            return self.made.view(self.index[v])
        stored = self.program.forward.program.memory.stored
        if v in stored:
            array, column = stored[v]
            return self.theirs[array][:, column : column + v.width]
        if v.op == "slice":
            return self.of(v.args[0])[:, int(v.attr[0]) : int(v.attr[1])]
        if v.op == "broadcast":
            return self.of(v.args[0]).expand(-1, v.width)
        if v.op == "cat":
            return torch.cat([self.of(a) for a in v.args], 1)
        if v.op == "const":
            return self.made.memory.new_full((self.layout.N, 1), float(v.attr[0]))
        history, initial = self._history(v)
        return _previous(self.layout, history, initial)

    def _history(self, state: Value) -> tuple[Tensor, Tensor | None]:
        plan = self.program.forward.plan
        i = list(plan.states.values()).index(state)
        return self.of(plan.nexts[i]), self.states[i]

    def product(self, left: Value, right: Value) -> Tensor:
        """leftᵀ @ right over all N rows. Previous states are read one step earlier in place where lengths are equal."""
        stored = self.program.forward.program.memory.stored
        if right.op != "state" or right in stored or self.layout.batch_sizes is not None:
            return self.of(left).t() @ self.of(right)
        d, (history, initial), B = self.of(left), self._history(right), self.layout.B
        inner, first = (slice(B, None), slice(0, B)) if not self.layout.reverse else (slice(0, -B), slice(-B, None))
        earlier = slice(0, -B) if not self.layout.reverse else slice(B, None)
        if initial is None:
            return d[inner].t() @ history[earlier]
        return torch.addmm(d[first].t() @ initial, d[inner].t(), history[earlier])


def _previous(layout: Layout, history: Tensor, initial: Tensor | None) -> Tensor:
    """Rows of the state before each step."""
    if initial is None:
        initial = history.new_zeros(layout.B, history.shape[1])
    offsets, sizes = layout.offsets, layout.sizes()
    out = torch.empty_like(history)
    for t in range(layout.T):
        earlier = t + 1 if layout.reverse else t - 1
        known = min(sizes[t], sizes[earlier]) if 0 <= earlier < layout.T else 0
        out[offsets[t] : offsets[t] + known] = history[offsets[earlier] : offsets[earlier] + known] if known else initial[:0]
        out[offsets[t] + known : offsets[t + 1]] = initial[known : sizes[t]]
    return out


class NativeExecutor:
    """Runs a plan and its backward on the native machine: fp32 and fp64 on the CPU."""

    name = "native"

    def __init__(self, plan: Plan, backward: Backward | None) -> None:
        self.plan, self.backward_plan = plan, backward
        self._forward = {order: _Forward(plan, backward, order) for order in (1, -1)}
        self._backward: dict[tuple[int, bool], _Backward] = {}
        if backward is not None:
            for order in (1, -1):
                self._backward[order, True] = _Backward(self._forward[order], backward, True)

    def forward(self, layout: Layout, inputs: Sequence[Tensor], statics: Sequence[Tensor], states: Sequence[Tensor | None], keep: bool,
                ) -> tuple[Tensor, list[Tensor], _Saved]:
        """(output (N, n), last states (B, n), what backward needs). inputs (N, n), states (B, n) or None for zero, contiguous."""
        forward = self._forward[-1 if layout.reverse else 1]
        output, last, block = forward.run(layout, inputs, statics, states, keep)
        return output, last, _Saved(forward, block)

    def backward(self, layout: Layout, saved: _Saved, inputs: Sequence[Tensor], statics: Sequence[Tensor], states: Sequence[Tensor | None], output: Tensor,
                 d_output: Tensor | None, d_last: Sequence[Tensor | None], need_inputs: bool, need_statics: Sequence[bool],
                 ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """Gradients of inputs, statics and first states (None where not asked for, or zero)."""
        order = -1 if layout.reverse else 1
        program = self._backward.get((order, need_inputs))
        if program is None:
            assert self.backward_plan is not None
            program = self._backward[order, need_inputs] = _Backward(self._forward[order], self.backward_plan, need_inputs)
        return program.run(layout, saved, inputs, statics, states, output, d_output, d_last, need_statics)

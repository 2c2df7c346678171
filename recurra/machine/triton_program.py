"""A program of the machine on a GPU: PyTorch's products over all rows, a generated kernel for the loop, others between.

Generated modules are files, because Triton reads a kernel's source from the file it stands in. They lie in a folder of
this process alone: nothing that an earlier one left is ever imported.
"""

import atexit
import hashlib
import importlib.util
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recurra.machine.operands import Memory, Operand, Place
from recurra.machine.triton_functions import INTERPRETED, REALS
from recurra.machine.triton_source import COPY, Homes, Kernel, loop_kernel, wide_kernel
from recurra.machine.triton_stages import Gain, Gate, Instruction, Phase, Stage, decoded
from recurra.program.layout import Layout
from recurra.program.values import Value

TRANSIENT = "transient"  # an array that only the stages themselves read
Arrays = list[Any]  # tensors; None: left out; TRANSIENT
_importing = threading.Lock()


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="recurra-triton-")  # readable and writable by this user only
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _imported(text: str) -> Any:
    name = "recurra_kernel_" + hashlib.sha256(text.encode()).hexdigest()[:16]
    file = _folder() / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


def function_of(kernel: Kernel) -> Any:
    """The Triton function of a generated text."""
    with _importing:
        return _imported(kernel.text)


@dataclass(frozen=True, slots=True)
class Cut:
    """How a loop is laid out on a GPU.

    rows     sequences of one program instance
    across   instances that share the columns of every phase of the same sequences
    columns  of a tile, for each phase
    depth    of the pieces that products are made of
    apart    whether every phase of every step is a launch of its own
    """

    rows: int
    across: int
    columns: tuple[int, ...]
    depth: int
    apart: bool = False


_ONE_ALONE = 1 << 17  # bytes of weights that one multiprocessor reads about as fast as others are met, for each phase


def cut_for(kernel: Kernel, B: int, weight_bytes: int, dtype: torch.dtype, device: torch.device) -> Cut:
    """The layout for B sequences. Estimated from an H100's sizes, bandwidths and latencies; not measured yet."""
    rows = min(64, max(16, _power(B)))
    blocks = -(-B // rows)
    across = 1
    widest = max((w for w, _ in kernel.tiles), default=1)
    if not INTERPRETED and weight_bytes > _ONE_ALONE * max(1, kernel.parts):
        across = max(1, min(_multiprocessors(device) // blocks, -(-widest // 16)))
    most = [_most_columns(gates, rows, dtype.itemsize) for _, gates in kernel.tiles]
    columns = tuple(min(n, max(16, _power(-(-w // across)))) for n, (w, _) in zip(most, kernel.tiles))
    used = max((-(-w // c) for (w, _), c in zip(kernel.tiles, columns)), default=1)
    return Cut(rows, min(across, used), columns, 128 // dtype.itemsize)


def _most_columns(gates: int, rows: int, itemsize: int) -> int:
    """Of a tile: its values stay in registers, three pieces of all weights that it multiplies in shared memory."""
    if not gates:
        return max(16, 2048 // rows)
    room = (256 if rows <= 32 else 128) * 4 // itemsize // gates
    return min(64, max(16, 1 << max(0, room.bit_length() - 1)))


def meta_of(cut: Cut, like: Tensor) -> dict[str, Any]:
    """What a loop's kernel is compiled for."""
    tiles = {f"TILE{p}": c for p, c in enumerate(cut.columns)}
    shape = {"ROWS": cut.rows, "ACROSS": cut.across, "WIDER": _power(cut.across), "DEPTH": cut.depth}
    return {**tiles, **shape, "PRECISION": _precision(like), "REAL": REALS[like.dtype]}


def _power(n: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(0, n - 1).bit_length()


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


class TritonProgram:
    """What a call hands over: the layout, arrays, the statics of the plan in their order, and targets of the gains."""

    def __init__(
        self,
        memory: Memory,
        stages: Sequence[list[int]],
        statics: Sequence[Value],
        gains: Sequence[list[int]] = (),
        targets: int = 0,
        precision: str = "",
    ) -> None:
        self.procedure = decoded(memory.procedure(stages, gains, targets))
        self.constants = list(memory.constants)
        self.strides = [s.shape[1] if len(s.shape) == 2 else 0 for s in statics]
        self._loops: dict[tuple[int, frozenset[int]], Kernel] = {}
        self._wide: dict[tuple[int, frozenset[int]], list[_Step]] = {}

    def run(
        self,
        layout: Layout,
        arrays: Arrays,
        statics: Sequence[Tensor],
        like: Tensor,
        targets: Sequence[Tensor | None] = (),
    ) -> None:
        """One call. like: has its dtype and device."""
        with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]  # where Triton launches
            self._run(layout, arrays, statics, like, targets)

    def _run(
        self,
        layout: Layout,
        arrays: Arrays,
        statics: Sequence[Tensor],
        like: Tensor,
        targets: Sequence[Tensor | None],
    ) -> None:
        widths = self.procedure.widths
        arrays = [like.new_empty(layout.N, w) if a is TRANSIENT else a for a, w in zip(arrays, widths, strict=True)]
        call = _Call(self, layout, arrays, [s.contiguous() for s in statics], like)
        for n, stage in enumerate(self.procedure.stages):
            if stage.loop:
                call.loop(n, stage)
            elif layout.N:
                call.wide(n, stage)
        call.gather(targets)

    def loop(self, n: int, absent: frozenset[int]) -> Kernel:
        """The kernel of a stage that is a loop, for calls that leave those arrays out."""
        found = self._loops.get((n, absent))
        if found is None:
            stage = self.procedure.stages[n]
            found = loop_kernel(self.procedure, stage, self.constants, self.strides, absent)
            self._loops[n, absent] = found
        return found

    def wide(self, n: int, absent: frozenset[int]) -> "list[_Step]":
        """What is done for another stage: products, and a kernel, in turn."""
        found = self._wide.get((n, absent))
        if found is None:
            found = self._wide[n, absent] = self._steps(self.procedure.stages[n], absent)
        return found

    def _steps(self, stage: Stage, absent: frozenset[int]) -> "list[_Step]":
        runs: list[list[tuple[Phase, Homes]]] = []
        for phase in stage.phases:
            homes, left = _homes(phase, absent)
            if phase.gates or not runs:
                runs.append([])
            runs[-1].append((Phase(phase.width, phase.gates, left), homes))
        steps = []
        for run in runs:
            rest = [(p, h) for p, h in run if p.instructions]
            kernel = wide_kernel(self.procedure, stage, self.constants, self.strides, absent, rest) if rest else None
            steps.append(_Step(run[0][0], run[0][1], kernel))
        return steps


@dataclass(frozen=True, slots=True)
class _Step:
    """Products of a phase, whose results lie in their homes, and the kernel that follows them."""

    phase: Phase
    homes: Homes
    kernel: Kernel | None


def _homes(phase: Phase, absent: frozenset[int]) -> tuple[Homes, tuple[Instruction, ...]]:
    """Where the products of a phase over all rows are written, and the operations that are left to do."""
    homes: Homes = {g.slot: None for g in phase.gates}
    left: list[Instruction] = []
    for i in phase.instructions:
        copies = i.code == COPY and i.to[0] == Place.SLOT and i.operands == (i.to,) and i.to[1] in homes
        there = i.also[0] == Place.LOCAL or (i.also[0] == Place.ROWS and i.also[1] not in absent)
        first = copies and not any(e.to == i.to for e in left)  # later on the slot is somebody else's
        if first and there and homes[i.to[1]] is None:
            homes[i.to[1]] = i.also
        elif not copies or there:
            left.append(i)
    return homes, tuple(left)


class _Call:
    """One call of a program on its tensors."""

    def __init__(
        self, program: TritonProgram, layout: Layout, arrays: Arrays, statics: Sequence[Tensor], like: Tensor
    ) -> None:
        self.program, self.layout, self.arrays, self.statics, self.like = program, layout, arrays, statics, like
        self.absent = frozenset(i for i, a in enumerate(arrays) if a is None)

    def _bound(self, kernel: Kernel, kinds: dict[str, Callable[[int], Tensor]]) -> list[Tensor]:
        """The tensors of a kernel's arguments."""
        own: dict[str, Callable[[int], Tensor]] = {
            "array": lambda i: self.arrays[i],
            "static": lambda i: self.statics[i],
            **kinds,
        }
        return [own[kind](i) for kind, i in kernel.arguments]

    # ---- the loop

    def loop(self, n: int, stage: Stage) -> None:
        """All steps, in as few launches as the cut allows."""
        T, B, like = self.layout.T, self.layout.B, self.like
        buffers = []
        for width, initial, _ in stage.states:
            both = like.new_empty(2, B, width)
            first = self.arrays[initial]
            both[0] = 0 if first is None else first
            buffers.append(both)
        if T and B:
            self._launch(n, stage, buffers)
        for both, (_, _, final) in zip(buffers, stage.states):
            if self.arrays[final] is not None:
                self.arrays[final].copy_(both[T % 2])

    def _launch(self, n: int, stage: Stage, buffers: Sequence[Tensor]) -> None:
        T, B, like, device = self.layout.T, self.layout.B, self.like, self.like.device
        kernel = self.program.loop(n, frozenset(i for i in self.absent if self.program.procedure.widths[i]))
        weights = {i for kind, i in kernel.arguments if kind == "static"}
        cut = cut_for(kernel, B, sum(self.statics[i].nbytes for i in weights), like.dtype, device)
        scratch = {i: like.new_empty(B, w) for i, w in enumerate(stage.locals)}
        arguments = self._bound(
            kernel, {"state": lambda i: buffers[i], "local": lambda i: scratch[i], "shifted": self._first_rows}
        )
        blocks = -(-B // cut.rows)
        partial = like.new_empty(max(1, 3 * kernel.sums * cut.across * B))
        meetings = torch.zeros(blocks, dtype=torch.int64, device=device)
        meta = meta_of(cut, like)
        if cut.across > 1 and not cut.apart:
            meta["launch_cooperative_grid"] = True
        launch, offsets = function_of(kernel)[cut.across, blocks], self._offsets()
        numbers = [*arguments, offsets, partial, meetings, T, B]
        if not cut.apart:
            launch(*numbers, 0, T, PART=-1, **meta)
            return
        for step in range(T):
            for part in range(max(1, kernel.parts)):
                launch(*numbers, step, step + 1, PART=part, **meta)

    def _first_rows(self, initial: int) -> Tensor:
        first: Tensor | None = self.arrays[initial]
        return self.like.new_zeros(self.layout.B, self.program.procedure.widths[initial]) if first is None else first

    def _offsets(self) -> Tensor:
        """Where the rows of each step begin, on the device."""
        handle = self.layout.handle
        if not isinstance(handle, Tensor) or handle.device != self.like.device:
            handle = torch.tensor(self.layout.offsets, dtype=torch.int64, device=self.like.device)
            self.layout.handle = handle
        return handle

    # ---- over all rows

    def wide(self, n: int, stage: Stage) -> None:
        """PyTorch's products, and a kernel after each."""
        scratch = {i: self.like.new_empty(self.layout.N, w) for i, w in enumerate(stage.locals)}
        for step in self.program.wide(n, self.absent):
            made: dict[int, Tensor] = {}
            for gate in step.phase.gates:
                home = step.homes[gate.slot]
                width = step.phase.width
                to = self.like.new_empty(self.layout.N, width) if home is None else self._rows(home, width, scratch)
                self._product(gate, width, made, to, scratch)
                made[gate.slot] = to
            if step.kernel is not None:
                kinds: dict[str, Callable[[int], Tensor]] = {
                    "local": lambda i: scratch[i],
                    "gate": made.__getitem__,
                }
                self._over_rows(step.kernel, self._bound(step.kernel, kinds))

    def _over_rows(self, kernel: Kernel, arguments: Sequence[Tensor]) -> None:
        rows = _power(min(self.layout.N, 1 << 14)) if INTERPRETED else 8
        meta: dict[str, Any] = {f"TILE{p}": min(256, _power(w)) for p, (w, _) in enumerate(kernel.tiles)}
        launch = function_of(kernel)[(-(-self.layout.N // rows),)]
        launch(*arguments, self.layout.N, ROWS=rows, REAL=REALS[self.like.dtype], **meta)

    def _rows(self, o: Operand, width: int, scratch: dict[int, Tensor]) -> Tensor:
        place, index, column, spread = o
        whole = self.arrays[index] if place == Place.ROWS else scratch[index]
        rows: Tensor = whole[:, column : column + (1 if spread else width)]
        return rows.expand(-1, width)

    def _product(self, gate: Gate, width: int, made: dict[int, Tensor], to: Tensor, scratch: dict[int, Tensor]) -> None:
        weights = self.statics[gate.matrix]
        columns = slice(gate.column, gate.column + width)
        right = weights[: gate.depth, columns] if gate.transposed else weights[columns, : gate.depth].mT
        left = self._rows(gate.left, gate.depth, scratch)
        place, index, column, spread = gate.start
        if place == Place.NONE:
            torch.mm(left, right, out=to)
            return
        if place == Place.SLOT:
            start = made[index]
        elif place == Place.CONSTANT:
            start = to.new_full((1, 1), self.program.constants[index])
        elif place == Place.VECTOR:
            start = self.statics[index].reshape(-1)[column : column + (1 if spread else width)]
        else:
            start = self._rows(gate.start, width, scratch)
        torch.addmm(start, left, right, out=to)

    # ---- what weights gain

    def gather(self, targets: Sequence[Tensor | None]) -> None:
        """Each wanted target: the sum of its gains."""
        written: set[int] = set()
        for gain in self.program.procedure.gains:
            wanted = [k for k in gain.targets if targets[k] is not None]
            if not wanted:
                continue
            found = self._gained(gain)
            for k in wanted:
                target = targets[k]
                assert target is not None
                if k in written:
                    target += found.view_as(target)
                else:
                    target.copy_(found.view_as(target))
                written.add(k)

    def _gained(self, gain: Gain) -> Tensor:
        right = self._history(gain.right, gain.C)
        if gain.left[0] == Place.NONE:
            return right.sum(0)
        return self._history(gain.left, gain.R).mT @ right

    def _history(self, o: Operand, width: int) -> Tensor:
        """The rows of an operand of a gain, which may be those one step earlier."""
        place, index, column, _ = o
        if place == Place.ROWS:
            return self._rows(o, width, {})
        assert place == Place.SHIFTED
        array, initial, order = self.program.procedure.shifted[index]
        columns = slice(column, column + width)
        rows, first = self.arrays[array][:, columns], self._first_rows(initial)[:, columns]
        layout, B = self.layout, self.layout.B
        if layout.batch_sizes is None:
            return torch.cat([first, rows[: layout.N - B]] if order > 0 else [rows[B:], first])
        return torch.cat([first, rows]).index_select(0, self._before(order))

    def _before(self, order: int) -> Tensor:
        """Where the row one step earlier lies, among the first states and, behind them, all rows."""
        layout, offsets = self.layout, self._offsets()
        sizes = offsets.diff()
        step = torch.repeat_interleave(torch.arange(layout.T, device=offsets.device), sizes, output_size=layout.N)
        row = torch.arange(layout.N, device=offsets.device) - offsets[step]
        before = step - order
        inside = before.clamp(0, layout.T - 1)
        known = (before == inside) & (row < sizes[inside])
        return torch.where(known, layout.B + offsets[inside] + row, row)


def _precision(like: Tensor) -> str:
    """What PyTorch's own products on this device do in single precision."""
    exact = like.dtype is not torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact else "tf32"

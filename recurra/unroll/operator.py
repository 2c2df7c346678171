"""The sequence operation as two operators of PyTorch, for those who write operations down: torch.compile, torch.export.

    recurra::run(program, inputs, states, statics, lengths, reverse, keep, precision) -> [y, *last states, what is kept]
    recurra::run_backward(...) -> [*gradients of inputs, of states, of statics]

The program is its text, so that an exported file stands alone; `lengths` are data, and T and B may be anything.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from recurra.cell import check_lengths
from recurra.errors import InputError, ProgramError
from recurra.machine import native
from recurra.machine.backward import Saved
from recurra.machine.blocks import Block
from recurra.machine.operands import Unsupported
from recurra.program.layout import Layout
from recurra.program.parse import parse
from recurra.unroll.precision import NARROW, refusal
from recurra.unroll.rounding import Rounding
from recurra.unroll.rows import Packing, pack


class _Loaded:
    """A program's text as what runs it."""

    def __init__(self, text: str, precision: str) -> None:
        self.plan, self.backward = parse(text)
        exact = None
        if precision:
            self._check(precision)
        try:
            self.executor = native.prepare(self.plan, None if precision == "int8" else self.backward, precision)
            exact = native.prepare(self.plan, None) if precision == "int8" else None
        except Unsupported as refused:
            raise InputError(f"This program was written for Recurra's native machine, and {refused.reason}.") from None
        self.rounding = None if exact is None else Rounding(self.plan, exact, self.executor)
        self.states = [s.width for s in self.plan.states.values()]

    def _check(self, precision: str) -> None:
        if precision not in NARROW:
            raise ProgramError(f"program {self.plan.name} asks for the precision {precision!r}, which there is not")
        if told := refusal(precision):
            raise InputError(f"This program was written for {precision!r}, and {told}. Export it in one of these.")

    def check(self, inputs: Sequence[Tensor], states: Sequence[Tensor], statics: Sequence[Tensor]) -> None:
        """The machine reads memory as the text says, and anybody may have written the text. Raises ProgramError."""
        if statics and inputs[0].dtype is not statics[0].dtype:
            raise InputError(
                f"x is {inputs[0].dtype} and the weights of program {self.plan.name} are {statics[0].dtype}. "
                "Convert one of them."
            )
        T, B, _ = inputs[0].shape
        wanted: list[tuple[int, ...]] = [(T, B, v.width) for v in self.plan.inputs.values()]
        wanted += [(B, n) for n in self.states[: len(states)]]
        self._compare([*inputs, *states, *statics], [*wanted, *(s.shape for s in self.plan.statics)])

    def check_results(self, x: Tensor, y: Tensor, gradients: Sequence[Tensor], kept: Tensor, size: int) -> None:
        """The same of what a backward call reads beside that."""
        T, B, _ = x.shape
        output = T, B, self.plan.output.width
        self._compare([y, *gradients, kept[:size]], [output, output, *[(B, n) for n in self.states], (size,)])

    def _compare(self, given: Sequence[Tensor], wanted: Sequence[tuple[int, ...]]) -> None:
        for shape, t in zip(wanted, given):
            if tuple(t.shape) != tuple(shape) or t.dtype != given[0].dtype or t.device.type != "cpu":
                raise ProgramError(
                    f"program {self.plan.name} takes {tuple(shape)} of {given[0].dtype} on the CPU, and is given "
                    f"{tuple(t.shape)} of {t.dtype} on {t.device}"
                )
        if len(given) != len(wanted):
            raise ProgramError(f"program {self.plan.name} takes {len(wanted)} tensors, and is given {len(given)}")


_loaded = lru_cache(maxsize=256)(_Loaded)


class _Rows:
    """How the rows of a call lie: as they came, or packed where lengths differ."""

    def __init__(self, x: Tensor, lengths: Tensor | None, reverse: bool) -> None:
        self.T, self.B, _ = x.shape
        self.packing: Packing | None = None
        if lengths is not None:
            self.packing = pack(check_lengths(lengths, self.T, self.B), self.T, reverse, x.device)
        self.layout = Layout(self.T, self.B, None, reverse) if self.packing is None else self.packing.layout

    def taken(self, t: Tensor) -> Tensor:
        """(T, B, n) -> (N, n)."""
        return t.reshape(self.T * self.B, t.shape[-1]).contiguous() if self.packing is None else self.packing.rows(t)

    def given(self, rows: Tensor) -> Tensor:
        """(N, n) -> (T, B, n)."""
        return rows.view(self.T, self.B, rows.shape[-1]) if self.packing is None else self.packing.padded(rows, self.T)

    def sorted(self, states: Sequence[Tensor]) -> list[Tensor]:
        """(B, n) each, as the program takes them."""
        return [s.contiguous() for s in (states if self.packing is None else self.packing.sorted(tuple(states)))]

    def unsorted(self, states: Sequence[Tensor]) -> list[Tensor]:
        """(B, n) each, as they came."""
        return list(states if self.packing is None else self.packing.unsorted(tuple(states)))


@torch.library.custom_op("recurra::run", mutates_args=())
def run(
    program: str,
    inputs: list[Tensor],
    states: list[Tensor],
    statics: list[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    keep: bool,
    precision: str,
) -> list[Tensor]:
    """y (T, B, m), the last states (B, n), and what the backward needs, of inputs (T, B, n).

    states: those to begin with; none: zeros. keep: whether a backward will follow. precision: one that has executors
    of its own, or "".
    """
    loaded, rows = _loaded(program, precision), _Rows(inputs[0], lengths, reverse)
    loaded.check(inputs, states, statics)
    first = rows.sorted(states) if states else [None] * len(loaded.states)
    taken, whole = [rows.taken(t) for t in inputs], [s.contiguous() for s in statics]
    if loaded.rounding is not None:
        loaded.rounding.error(loaded.plan.name, whole)
    y, last, saved = loaded.executor.forward(rows.layout, taken, whole, first, keep)
    size = loaded.executor.kept_size(reverse, rows.T * rows.B) if keep else 0
    return [rows.given(y), *rows.unsorted(last), saved.block.released(size) if keep else y.new_empty(0)]


@run.register_fake
def _(
    program: str,
    inputs: list[Tensor],
    states: list[Tensor],
    statics: list[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    keep: bool,
    precision: str,
) -> list[Tensor]:
    loaded, x = _loaded(program, precision), inputs[0]
    T, B, _ = x.shape
    size = loaded.executor.kept_size(reverse, T * B) if keep else 0
    return [
        x.new_empty(T, B, loaded.plan.output.width),
        *[x.new_empty(B, n) for n in loaded.states],
        x.new_empty(size),
    ]


@torch.library.custom_op("recurra::run_backward", mutates_args=())
def run_backward(
    program: str,
    inputs: list[Tensor],
    states: list[Tensor],
    statics: list[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    y: Tensor,
    kept: Tensor,
    gradients: list[Tensor],
    needed: list[bool],
    precision: str,
) -> list[Tensor]:
    """The gradients of inputs, states and statics, empty where they are not needed, from those of y and last states."""
    loaded, rows = _loaded(program, precision), _Rows(inputs[0], lengths, reverse)
    executor, a, b = loaded.executor, len(inputs), len(inputs) + len(states)
    loaded.check(inputs, states, statics)
    loaded.check_results(inputs[0], y, gradients, kept, executor.kept_size(reverse, rows.layout.N))
    first = rows.sorted(states) if states else [None] * len(loaded.states)
    d_inputs, d_statics, d_states = executor.backward(
        rows.layout,
        Saved(Block(executor.kept_widths(reverse), rows.layout.N, kept.dtype, kept)),
        [rows.taken(t) for t in inputs],
        [s.contiguous() for s in statics],
        first,
        rows.taken(y),
        rows.taken(gradients[0]),
        rows.sorted(gradients[1:]),
        tuple(needed[:a]),
        needed[b:],
    )
    found = [
        *[None if d is None else rows.given(d) for d in d_inputs],
        *(rows.unsorted(d_states) if states else []),
        *d_statics,
    ]
    given = *inputs, *states, *statics
    return [
        t.new_empty(0) if not n else torch.zeros_like(t) if d is None else d
        for d, t, n in zip(found, given, needed, strict=True)
    ]


@run_backward.register_fake
def _(program: str, inputs: list[Tensor], states: list[Tensor], statics: list[Tensor], *rest: Any) -> list[Tensor]:
    given, needed = (*inputs, *states, *statics), rest[5]
    return [t.new_empty(t.shape if n else 0) for t, n in zip(given, needed, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.program, rows, states, statics, lengths, ctx.reverse, ctx.keep, ctx.precision = inputs
    ctx.ends = len(rows), len(rows) + len(states)
    ctx.save_for_backward(lengths, output[0], output[-1], *rows, *states, *statics)


def _backward(ctx: Any, d: list[Tensor]) -> Any:
    lengths, y, kept, *given = ctx.saved_tensors
    if not ctx.keep:
        raise InputError(
            "This program was written down without gradients, and one is asked for. Export it where they are enabled."
        )
    a, b = ctx.ends
    needs = ctx.needs_input_grad
    needed = [bool(n) for group in needs[1:4] for n in group]
    inputs, states, statics = given[:a], given[a:b], given[b:]
    found = run_backward(
        ctx.program, inputs, states, statics, lengths, ctx.reverse, y, kept, list(d[:-1]), needed, ctx.precision
    )
    grads = [g if n else None for g, n in zip(found, needed, strict=True)]
    return None, grads[:a], grads[a:b], grads[b:], None, None, None, None


run.register_autograd(_backward, setup_context=_setup)

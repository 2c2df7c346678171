"""Random masks as pure functions: of a key, of the stream a mask is for, of a row (t, b) and of a unit of the row.

Every number is one of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, doi 10.1145/2660193.2660195): a key seeds the
streams, a stream its steps t, a step its sequences b, and that generator gives the numbers of a row, two units of 32
bits each. Nothing is remembered, so a pass that is run again sees the same masks, and so does one whose rows come
padded, packed or in pieces. `native/masks.h` fills rows with the same bits, fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.compiler import is_compiling

from recurra.machine.operands import FLOATS
from recurra.machine.program import library

_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # as signed numbers: PyTorch's whole numbers of 64 bits wrap around
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_WORD = 2**32
_first = ContextVar("first", default=0)  # the place of row 0 in the whole batch


@contextmanager
def rows_from(first: int) -> Iterator[None]:
    """Under it the rows of a batch are those of a larger one from its row `first` on, and draw the masks of these."""
    before = _first.set(first)
    try:
        yield
    finally:
        _first.reset(before)


def places(rows: int, device: torch.device) -> Tensor:
    """Where the rows of a batch are in the whole one (rows,): the b of their masks."""
    first = 0 if is_compiling() else _first.get()  # compilers cannot read it; a compiled call has its whole batch
    return torch.arange(first, first + rows, device=device)


def new_key() -> Tensor:
    """A key (), drawn from PyTorch's default generator."""
    return torch.randint(-(2**63), 2**63 - 1, ())


def number(seed: Tensor, index: Tensor) -> Tensor:
    """Number `index` (from 0) of the generator with that seed, 64 bits as int64. The arguments are broadcast."""
    z = seed + (index + 1) * _GAMMA
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """z >> bits, zeros coming in from the left."""
    shifted: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def row_seeds(key: Tensor, stream: int, t: Tensor, b: Tensor) -> Tensor:
    """The seeds of rows (t, b), whole numbers that are broadcast: what `masks` makes rows of."""
    return number(number(number(key.to(t.device), torch.full_like(key, stream, device=t.device)), t), b)


def masks(seeds: Tensor, width: int, rate: float, dropped: float, kept: float, dtype: torch.dtype) -> Tensor:
    """(*seeds.shape, width), each unit `dropped` with the probability `rate`, else `kept`."""
    if library is None or seeds.device.type != "cpu" or dtype not in FLOATS or type(seeds) is not Tensor or _watched():
        return in_pytorch(seeds, width, rate, dropped, kept, dtype)
    seeds = seeds.contiguous()
    to = torch.empty(*seeds.shape, width, dtype=dtype)
    if to.numel():
        library.masks(
            dtype is torch.float64, seeds.data_ptr(), seeds.numel(), width, _threshold(rate), dropped, kept,
            to.data_ptr(),
        )  # fmt: skip
    return to


def dropout(x: Tensor, rate: float, key: Tensor, stream: int = 0, batch_sizes: Tensor | None = None) -> Tensor:
    """m ∘ x, m ~ Bernoulli(1 - rate) / (1 - rate): x (T, B, D), (B, D), (D,), or packed with `batch_sizes` (T,).

    A number of m is a function of the key, the stream, the step t, the row's place in the batch, and the unit.
    """
    if rate == 1:
        return x * 0
    width, like = x.shape[-1], x.dtype if x.dtype in FLOATS else torch.float32
    if batch_sizes is not None:
        t, b = _packed(batch_sizes, x.device)
    else:
        t = torch.arange(x.shape[0] if x.dim() == 3 else 1, device=x.device)[:, None]
        b = places(x.shape[-2], x.device) if x.dim() > 1 else t[0]
    mask = masks(row_seeds(key, stream, t, b), width, rate, 0.0, 1 / (1 - rate), like)
    return x * mask.view(x.shape).to(x.dtype)


def _packed(batch_sizes: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Step and place of each packed row (N,): at step t the rows 0 … batch_sizes[t] - 1 stand side by side."""
    steps, rows = len(batch_sizes), places(int(batch_sizes[0]), batch_sizes.device)
    there = torch.arange(len(rows), device=rows.device) < batch_sizes[:, None]
    t = torch.arange(steps, device=rows.device)[:, None].expand_as(there)
    return t[there].to(device), rows.expand_as(there)[there].to(device)


def _threshold(rate: float) -> int:
    return round(rate * _WORD)


def _watched() -> bool:
    """Whether somebody looks at PyTorch's operations: a compiler, a recorder, a function transform."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or bool(torch._C._len_torch_dispatch_stack())
    )


def in_pytorch(seeds: Tensor, width: int, rate: float, dropped: float, kept: float, dtype: torch.dtype) -> Tensor:
    """The same in PyTorch, on any device: the meaning of the native function."""
    pairs = number(seeds[..., None], torch.arange((width + 1) // 2, device=seeds.device))
    words = torch.stack([pairs & (_WORD - 1), _shifted(pairs, 32)], -1).flatten(-2)[..., :width]
    yes, no = (torch.tensor(v, dtype=dtype, device=seeds.device) for v in (dropped, kept))
    return torch.where(words < _threshold(rate), yes, no)

"""What several test files measure with: a loss of every number, lengths in any order, numbers, gradients, closeness."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recurra import Cell
from recurra.machine import native
from recurra.unroll import Recording, unroll

needs_machine = pytest.mark.skipif(bool(native.available()), reason="the native machine is not there")


def contracting(cell: Cell) -> Cell:
    """No matrix longer than 0.9: an error of rounding must not grow from step to step over hundreds of steps."""
    with torch.no_grad():
        for p in cell.parameters():
            if p.dim() == 2:
                p.mul_(min(1.0, 0.9 / float(torch.linalg.matrix_norm(p, 2))))
    return cell


def random_lengths(T: int, B: int) -> Tensor:
    """Any order; with zeros, full lengths and repeats where there is room."""
    lengths = torch.randint(0, T + 1, (B,))
    lengths[B // 2] = 0
    lengths[0] = T if B > 1 else max(T - 1, 0)
    return lengths


def few_lengths(T: int, B: int) -> Tensor:
    """Those of at most four rows: full, none, two steps less, one."""
    return torch.tensor([T, 0, max(T - 2, 0), 1 if T else 0][:B])


def flip(x: Tensor, lengths: list[int]) -> Tensor:
    """Each row turned round within its length; what lies past it stays."""
    rows = [torch.cat([x[:n, b].flip(0), x[n:, b]]) for b, n in enumerate(lengths)]
    return torch.stack(rows, 1)


def weighed(*tensors: Tensor) -> Tensor:
    """A loss that reads every number, each in its own way: the same for every executor and dtype."""
    loss = sum((t * _weights_of(t)).sum() for t in tensors)
    assert isinstance(loss, Tensor)
    return loss


def _weights_of(t: Tensor) -> Tensor:
    return torch.cos(torch.arange(1, t.numel() + 1, dtype=torch.float64)).to(t.dtype).view_as(t)


def filled(of: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """Zeros for what no gradient came to."""
    return [torch.zeros_like(t) if d is None else d for t, d in zip(of, gradients, strict=True)]


def everything(
    cell: Cell, x: Tensor, lengths: Tensor | None, reverse: bool, record: Recording | None = None
) -> list[Tensor]:
    """Outputs, last states, and every gradient; masks that are drawn are the same every time."""
    torch.manual_seed(1)
    y, last = unroll(cell, x, None, lengths, reverse, record=record)
    wanted = [x, *cell.parameters()]
    return [y, *last, *filled(wanted, torch.autograd.grad(weighed(y, *last), wanted, allow_unused=True))]


def numbers(*shape: int, seed: int = 1) -> Tensor:
    """Random ones in double precision, the same for a seed."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def alike(actual: object, expected: object, exact: float = 1e-12) -> None:
    """Tensors, or trees of them, that are equal but for rounding in double precision."""
    torch.testing.assert_close(actual, expected, rtol=exact, atol=exact)


def close(ours: Tensor, truth: Tensor, exact: float) -> None:
    """To within so much of the largest value."""
    assert ours.shape == truth.shape
    if truth.numel():
        assert float((ours.double() - truth.double()).abs().max()) <= exact * max(float(truth.abs().max()), 1e-30)

"""Padded sequences to rows in PackedSequence's order, and back; rows one step earlier."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recurra.program.layout import Layout


@dataclass(frozen=True, slots=True)
class Packing:
    """How B sequences of unequal length lie in a padded (T, B, n) tensor and in the rows of `layout`.

    index   (N,): row of the padded tensor, seen as (T * B, n), for each row of the layout
    order   (B,): the sequences by falling length; back undoes it
    """

    layout: Layout
    index: Tensor
    order: Tensor
    back: Tensor

    def rows(self, x: Tensor) -> Tensor:
        """(T, B, n) -> (N, n)."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self.index)

    def padded(self, rows: Tensor, T: int) -> Tensor:
        """(N, n) -> (T, B, n), zero past each length."""
        B, n = len(self.order), rows.shape[-1]
        return rows.new_zeros(T * B, n).index_copy(0, self.index, rows).view(T, B, n)

    def sorted(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """States (B, n) in the order of the layout."""
        return tuple(s.index_select(0, self.order) for s in states)

    def unsorted(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """States (B, n) in the order of the batch."""
        return tuple(s.index_select(0, self.back) for s in states)


def pack(lengths: Tensor, T: int, reverse: bool, device: torch.device) -> Packing | None:
    """The packing of lengths (B,) within T steps; None when all have T steps."""
    B = len(lengths)
    if not B or int(lengths.min()) == T:
        return None
    by_length, order = lengths.sort(descending=True, stable=True)
    active = torch.arange(T)[:, None] < by_length  # (T, B)
    sizes = active.sum(1).tolist()
    steps = next((t for t, n in enumerate(sizes) if not n), T)
    index = (torch.arange(T)[:, None] * B + order)[active]
    layout = Layout(steps, B, tuple(sizes[:steps]), reverse)
    return Packing(layout, index.to(device), order.to(device), order.argsort().to(device))


def earlier(layout: Layout, rows: Tensor, first: Tensor) -> Tensor:
    """Rows (N, n) of a state before each step, from its rows after each step (N, n) and the first ones (B, n).

    Ordinary differentiable PyTorch.
    """
    if layout.batch_sizes is None:
        B, N = layout.B, layout.N
        return torch.cat([rows[B:], first] if layout.reverse else [first, rows[: N - B]])
    return torch.cat([first, rows]).index_select(0, _places_before(layout).to(rows.device))


def _places_before(layout: Layout) -> Tensor:
    """For each row, where the state before it lies, among the B first states and, behind them, the N rows."""
    sizes, offsets = torch.tensor(layout.sizes()), torch.tensor(layout.offsets)
    step = torch.repeat_interleave(torch.arange(layout.T), sizes)
    row = torch.arange(layout.N) - offsets[step]
    before = step + 1 if layout.reverse else step - 1
    inside = before.clamp(0, layout.T - 1)
    known = (before == inside) & (row < sizes[inside])
    return torch.where(known, layout.B + offsets[inside] + row, row)

"""The one door to speed: the same contract as `scan`, as fast as may be. (First form: the plain loop.)"""

from collections.abc import Mapping

import torch
from torch import Tensor

from recurra.cell import Cell
from recurra.scan import scan


def unroll(
    cell: Cell,
    x: Tensor,
    states: tuple[Tensor, ...] | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs `cell` over x (T, B, D): outputs (T, B, n) and the last states, as `scan` defines them."""
    if weights is None:
        return scan(cell, x, states, lengths, reverse)
    return torch.func.functional_call(_Scan(cell), {f"cell.{k}": w for k, w in weights.items()}, (x, states, lengths, reverse))


class _Scan(torch.nn.Module):
    """`scan` as a module, so that `functional_call` can replace the weights of the cell."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(
        self, x: Tensor, states: tuple[Tensor, ...] | None, lengths: Tensor | None, reverse: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return scan(self.cell, x, states, lengths, reverse)


def unroll_packed(
    cell: Cell,
    data: Tensor,
    batch_sizes: Tensor,
    states: tuple[Tensor, ...] | None = None,
    reverse: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The same over PackedSequence's layout: rows of all steps one after another, sorted by falling length."""
    sizes = batch_sizes.tolist()
    batch = sizes[0] if sizes else 0
    padded = data.new_zeros(len(sizes), batch, data.shape[-1])
    mask = torch.arange(batch, device=data.device) < batch_sizes.to(data.device)[:, None]
    padded = padded.masked_scatter(mask[..., None], data)
    y, last = unroll(cell, padded, states, mask.sum(0).cpu(), reverse, weights)
    return y[mask], last

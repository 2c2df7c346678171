"""How weight matrices are drawn at the start, by name."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from recurra.cell import Cell

InitialiserName = Literal["default", "xavier", "orthogonal"]
INITIALISERS = ("default", "xavier", "orthogonal")


@torch.no_grad()
def initialise(module: nn.Module, name: str) -> None:
    """Draws every matrix of a module anew; biases and all else that is no matrix stay as they are.

    default: as each layer drew it. xavier: U(-a, a), a = √(6 / (in + out)) (Glorot & Bengio 2010, AISTATS).
    orthogonal: with orthonormal rows or columns (Saxe et al. 2014, arXiv:1312.6120). The matrix of several gates is
    drawn gate by gate, and that of queries, keys and values part by part.
    """
    if name == "default":
        return
    draw = {"xavier": nn.init.xavier_uniform_, "orthogonal": nn.init.orthogonal_}[name]
    for matrix in _matrices(module):
        draw(matrix)


def _matrices(module: nn.Module) -> Iterator[Tensor]:
    """The matrices of a module in their order, cut into those that stand side by side in one parameter."""
    rows: dict[int, int] = {}
    for part in module.modules():
        if isinstance(part, Cell):
            rows |= {id(weight): part.hidden_size for weight in part.parameters()}
        elif isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            rows[id(part.in_proj_weight)] = part.embed_dim
    for weight in module.parameters():
        if weight.ndim > 1:
            height = rows.get(id(weight), len(weight))
            yield from torch.split(weight, height) if len(weight) % height == 0 else (weight,)

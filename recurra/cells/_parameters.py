"""The parameters that torch.nn's cells have, by the same names, in the same layout and with the same initial values."""

import math

import torch
from torch import nn

Device = torch.device | str | int | None


def add_gates(
    cell: nn.Module, rows: int, input_size: int, state: int, bias: bool, device: Device, dtype: torch.dtype | None
) -> None:
    """weight_ih (rows, D), weight_hh (rows, n), bias_ih and bias_hh (rows,), or None when bias is False."""

    def weight(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

    cell.register_parameter("weight_ih", weight(rows, input_size))
    cell.register_parameter("weight_hh", weight(rows, state))
    cell.register_parameter("bias_ih", weight(rows) if bias else None)
    cell.register_parameter("bias_hh", weight(rows) if bias else None)


def draw(cell: nn.Module, hidden_size: int) -> None:
    """Draws every parameter from U(-k, k), k = 1 / sqrt(hidden_size), as torch.nn does."""
    k = 1 / math.sqrt(hidden_size)
    for p in cell.parameters():
        nn.init.uniform_(p, -k, k)

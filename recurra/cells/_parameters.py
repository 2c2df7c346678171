"""Parameters by the names that torch.nn's cells have, in the same layout and with the same initial values."""

import math

import torch
from torch import nn

from recurra.errors import CellError

Device = torch.device | str | int | None


def add(cell: nn.Module, device: Device, dtype: torch.dtype | None, **shapes: tuple[int, ...] | None) -> None:
    """A parameter, not yet drawn, of each name and shape; None where the shape is None."""
    for name, shape in shapes.items():
        empty = None if shape is None else nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        cell.register_parameter(name, empty)


def add_gates(
    cell: nn.Module, rows: int, input_size: int, state: int, bias: bool, device: Device, dtype: torch.dtype | None
) -> None:
    """weight_ih (rows, D), weight_hh (rows, n), bias_ih and bias_hh (rows,), or None when bias is False."""
    bias_shape = (rows,) if bias else None
    weights = {"weight_ih": (rows, input_size), "weight_hh": (rows, state)}
    add(cell, device, dtype, **weights, bias_ih=bias_shape, bias_hh=bias_shape)


def draw(cell: nn.Module, hidden_size: int) -> None:
    """Draws every parameter from U(-k, k), k = 1 / sqrt(hidden_size), as torch.nn does."""
    k = 1 / math.sqrt(hidden_size)
    for p in cell.parameters():
        nn.init.uniform_(p, -k, k)


def check_forget_bias(cell: nn.Module, forget_bias: float | None, bias: bool) -> None:
    """Raises CellError for a forget_bias of a cell without biases."""
    if forget_bias is not None and not bias:
        name = type(cell).__name__
        raise CellError(f"{name} got forget_bias={forget_bias} and bias=False. Leave one of them out.")


@torch.no_grad()
def set_forget_bias(value: float | None, rows: slice, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
    """Makes the forget gate's two biases add up to `value`; does nothing when it is None."""
    if value is not None and first is not None and second is not None:
        first[rows] = value
        second[rows] = 0

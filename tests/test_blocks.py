"""What a call keeps for its backward: how much, and memory that goes from one call to the next."""

import weakref

import pytest
import torch

from recurra import cells
from recurra.machine.blocks import Block
from recurra.machine.forward import ForwardProgram
from recurra.passes import compile_step

NUMBERS = 1 << 17  # worth keeping


@pytest.mark.parametrize(
    ("make", "columns", "shared"),
    [(cells.Elman, 0, 0), (cells.LSTM, 4 + 1, 1), (cells.GRU, 3 + 1, 1)],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_gates_are_written_over_the_stream_they_came_from(make: type, columns: int, shared: int) -> None:
    """An LSTM keeps its four gates and c, a GRU its three gates and a product; h is the output."""
    H = 6
    program = ForwardProgram(*compile_step(make(5, H)), 1)
    assert sum(v.width for _, v in program.lasting) == columns * H
    assert len(program.over) == shared


def address(dtype: torch.dtype) -> int:
    block = Block([1], NUMBERS, dtype)
    assert block.memory.dtype is dtype and block.memory.numel() >= NUMBERS
    return block.pointers[0]


def test_large_memory_is_used_again_for_the_same_dtype() -> None:
    first = address(torch.float32)
    assert address(torch.float32) == first != address(torch.float64)
    held = Block([1], NUMBERS, torch.float32)
    assert held.pointers[0] == first != address(torch.float32)


def test_only_the_last_few_allocations_are_kept() -> None:
    blocks = [Block([1], NUMBERS, torch.float32) for _ in range(9)]
    memory = [weakref.ref(block.memory) for block in blocks]
    del blocks
    assert sum(m() is not None for m in memory) == 4

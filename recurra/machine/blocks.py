"""Memory of native calls: one allocation for several arrays, and large ones kept for the next call."""

from collections.abc import Sequence

import torch
from torch import Tensor

_LINE = 16  # numbers: every array begins on a cache line


class _Spare:
    """Large allocations of calls that are over, for the next ones: fresh memory costs a page fault every 4 KiB."""

    LEAST, MOST = 1 << 16, 4  # numbers worth keeping; allocations kept

    def __init__(self) -> None:
        self.blocks: dict[int, Tensor] = {}  # by address; single operations, so that threads never share one

    def take(self, size: int, dtype: torch.dtype) -> Tensor:
        if size >= self.LEAST:
            for address, block in list(self.blocks.items()):
                fits = block.dtype is dtype and size <= block.numel() <= 2 * size
                if fits and self.blocks.pop(address, None) is not None:
                    return block
        with torch.inference_mode(False):
            return torch.empty(size, dtype=dtype)

    def give(self, block: Tensor) -> None:
        if block.numel() >= self.LEAST:
            self.blocks[block.data_ptr()] = block
            for oldest in list(self.blocks)[: -self.MOST]:
                self.blocks.pop(oldest, None)


_spare = _Spare()


class Block:
    """Arrays of the same number of rows in one allocation, which goes back to the spare ones in the end."""

    __slots__ = ("memory", "pointers")

    def __init__(self, widths: Sequence[int], rows: int, dtype: torch.dtype) -> None:
        starts, total = [], 0
        for width in widths:
            starts.append(total)
            total += -(-width * rows // _LINE) * _LINE
        self.memory = _spare.take(total, dtype)
        base, size = self.memory.data_ptr(), dtype.itemsize
        self.pointers = [base + size * s for s in starts]

    def __del__(self) -> None:
        memory = getattr(self, "memory", None)  # an allocation that failed has none
        if memory is not None:
            _spare.give(memory)

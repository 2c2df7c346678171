"""Memory of native calls: one allocation for several arrays, large ones kept for the next call, and large pages."""

import ctypes
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_LINE = 16  # numbers: every array begins on a cache line


_LARGE = 1 << 24  # bytes worth a system call
_PAGE = 1 << 21  # of the larger kind, on x86-64
_HUGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux
_libc = ctypes.CDLL(None) if _HUGE is not None else None


def empty(like: Tensor, *shape: int) -> Tensor:
    """Memory for what a call gives back, of the dtype of `like`; in large pages where it is large and fresh.

    The kernel clears fresh memory page by page as it is first written, and each of 4 KiB costs more than to fill it.
    """
    fresh = like.new_empty(*shape)  # of a tuple it takes half as long again
    return _in_large_pages(fresh) if fresh.nbytes >= _LARGE else fresh


def _in_large_pages(t: Tensor) -> Tensor:
    """Asks for them; a kernel that has none, or is told to give none, refuses, and nothing changes."""
    if _libc is not None:
        first = -(-t.data_ptr() // _PAGE) * _PAGE
        whole = (t.data_ptr() + t.nbytes - first) // _PAGE * _PAGE
        _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), _HUGE)
    return t


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
            return empty(torch.empty(0, dtype=dtype), size)

    def give(self, block: Tensor) -> None:
        if block.numel() >= self.LEAST:
            self.blocks[block.data_ptr()] = block
            for oldest in list(self.blocks)[: -self.MOST]:
                self.blocks.pop(oldest, None)


_spare = _Spare()


def block_size(widths: Sequence[int], rows: int) -> int:
    """The numbers of a block: those of its arrays, each rounded up to whole cache lines. rows may be a symbol."""
    return sum(-(-width * rows // _LINE) * _LINE for width in widths)


class Block:
    """Arrays of the same number of rows in one allocation, which goes back to the spare ones in the end."""

    __slots__ = ("memory", "pointers", "pooled", "size")

    def __init__(self, widths: Sequence[int], rows: int, dtype: torch.dtype, memory: Tensor | None = None) -> None:
        """memory: what another block of the same arrays `released`."""
        starts, total = [], 0
        for width in widths:
            starts.append(total)
            total += -(-width * rows // _LINE) * _LINE
        self.pooled, self.size = memory is None, total
        self.memory = _spare.take(total, dtype) if memory is None else memory
        base, bytes_each = self.memory.data_ptr(), dtype.itemsize
        self.pointers = [base + bytes_each * s for s in starts]

    def released(self, size: int) -> Tensor:
        """The memory, from now on the caller's, with room for as many numbers; past the block nothing is written."""
        self.pooled = False
        if size <= self.memory.numel():
            return self.memory[:size]
        larger = self.memory.new_empty(size)
        larger[: self.size] = self.memory[: self.size]
        return larger

    def __del__(self) -> None:
        memory = getattr(self, "memory", None)  # an allocation that failed has none
        if memory is not None and self.pooled:
            _spare.give(memory)

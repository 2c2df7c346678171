"""Seconds from a new cell to its first gradients, each cell met for the first time, as a JSON list on standard output.

Run in a process of its own, since only the first cell pays for what is loaded and set up once. PyTorch itself is warmed
up by a layer of its own before. One step of one row: what is left is trace, passes and packing.
"""

import json
import sys
import time
from collections.abc import Callable

import torch

import recurra
from benchmarks.cells import COPIES, Peephole


def main() -> None:
    threads, width = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    x = torch.randn(1, 1, width)
    torch.nn.LSTM(width, width)(x)[0].sum().backward()
    seconds = []
    new: list[Callable[[int, int], recurra.Cell]] = [Peephole, *COPIES.values()]
    for cell in new:
        layer = recurra.Recurrent(cell(width, width))
        start = time.perf_counter()
        layer(x)[0].sum().backward()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

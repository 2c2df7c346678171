"""An LSTM whose gates see the cell state, written as its equation, against the same equation in a Python loop."""

import time
from collections.abc import Callable

import torch

import recurra

T, B, H = 128, 8, 128


class Peephole(recurra.Cell):
    """i, f = σ(W x + U h + p ∘ c + b),  c' = f ∘ c + i ∘ tanh(…),  o sees the new c.  Gers and Schmidhuber 2000."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = torch.nn.Linear(input_size, 4 * hidden_size)
        self.U = torch.nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.p = torch.nn.Parameter(torch.zeros(3, hidden_size))

    def step(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        i, f, g, o = (self.W(x) + self.U(h)).chunk(4, -1)
        i = torch.sigmoid(i + self.p[0] * c)
        f = torch.sigmoid(f + self.p[1] * c)
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + self.p[2] * c)
        return o * torch.tanh(c), c


def milliseconds(run: Callable[[], None]) -> float:
    """The best of a few training steps."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    cell = Peephole(H, H)
    layer = recurra.Recurrent(cell)
    x = torch.randn(T, B, H, requires_grad=True)
    torch.testing.assert_close(layer(x)[0], recurra.scan(cell, x)[0])
    loop = milliseconds(lambda: recurra.scan(cell, x)[0].sum().backward())
    ours = milliseconds(lambda: layer(x)[0].sum().backward())
    print(f"forward and backward of {T} steps, {B} rows, {H} units: loop {loop:.1f} ms, Recurrent {ours:.1f} ms")
    print(recurra.explain(layer, x))


if __name__ == "__main__":
    main()

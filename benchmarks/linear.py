"""A loop that is linear in its state, against the two ways in which PyTorch can run it: minGRU (Feng et al. 2024)."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cells import MinGRU, MinGRUScan
from benchmarks.goals import Shape
from benchmarks.race import Check, Forward, Race, Values, gradients, values
from benchmarks.timing import Contestant
from recurra import Recurrent

TOLERANCE = 1e-6  # of ours, against float64
CELLS: dict[str, Callable[[int], MinGRU]] = {"mingru": lambda width: MinGRU(width, width), "mingru scan": MinGRUScan}


def loop_of(cell: MinGRU) -> Forward:
    """All that does not wait for h is computed before the loop."""

    def loop(x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = cell.reads(x).chunk(2, -1)
        z, g = torch.sigmoid(k), torch.where(v >= 0, v + 0.5, torch.sigmoid(v))
        h, hs = torch.zeros_like(z[0]), []
        for z_t, g_t in zip(z.unbind(), g.unbind(), strict=True):
            h = torch.lerp(h, g_t, z_t)
            hs.append(h)
        return torch.stack(hs), h

    return loop


def log_space_scan(log_a: Tensor, log_b: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t from h = 0, for a, b > 0 (Heinsen 2023, as in Feng et al. 2024, appendix B)."""
    star = log_a.cumsum(0)
    return (star + (log_b - star).logcumsumexp(0)).exp()


def in_logarithms(cell: MinGRU) -> Forward:
    def scan(x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = cell.reads(x).chunk(2, -1)
        log_g = torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v))
        h = log_space_scan(-F.softplus(k), -F.softplus(-k) + log_g)
        return h, h[-1]

    return scan


def linear(name: str, shape: Shape) -> Race:
    """Ours is held against float64; how far the others are off is told."""
    batch, time, width = shape
    cell = CELLS[name](width)
    layer = Recurrent(cell)
    x, dy = torch.randn(time, batch, cell.input_size, requires_grad=True), torch.randn(time, batch, width)

    @cache
    def exact() -> Values:
        double = deepcopy(cell).double()
        return values(loop_of(double), Recurrent(double), x.detach().double().requires_grad_())()

    rivals = {"loop": loop_of(cell), "log-space scan": in_logarithms(cell)}
    return Race(
        [
            Contestant("ours", gradients(layer, layer, x, dy)),
            *(Contestant("torch", gradients(rival, layer, x, dy), label) for label, rival in rivals.items()),
        ],
        [
            Check("ours", values(layer, layer, x), exact, TOLERANCE),
            *(Check("torch", values(rival, layer, x), exact, float("inf"), label) for label, rival in rivals.items()),
        ],
    )

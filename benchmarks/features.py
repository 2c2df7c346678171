"""What resets, recorded gates, regularisers, memory="sqrt" and decaying states cost: a layer with and without them."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

import recurra
from benchmarks.goals import Shape
from benchmarks.race import Check, Forward, Race, Values, gradients, rows, values
from benchmarks.timing import Contestant

RESETS = 0.01  # of all steps begin a new sequence
GATES = ("i", "f", "g", "o")


def resets(cell: str, shape: Shape) -> Race:
    """Held against a call of its own for every piece between two resets."""
    assert cell == "gru"
    batch, time, width = shape
    layer = recurra.GRU(width, width)
    x, dy = rows(shape, grad=True)
    begins = torch.rand(time, batch) < RESETS

    def pieces(x: Tensor) -> tuple[Tensor, Tensor]:
        columns, last = [], []
        for b in range(batch):
            cuts = sorted({0, *begins[:, b].nonzero().flatten().tolist(), time})
            found = [layer(x[start:end, b : b + 1]) for start, end in itertools.pairwise(cuts)]
            columns.append(torch.cat([y for y, _ in found]))
            last.append(found[-1][1])
        return torch.cat(columns, 1), torch.cat(last, 1)

    def whole(x: Tensor) -> tuple[Tensor, Tensor]:
        y, h = layer(x, resets=begins)
        return y, h

    return Race(
        [
            Contestant("ours", gradients(whole, layer, x, dy)),
            Contestant("plain", gradients(layer, layer, x, dy)),
        ],
        [Check("ours", values(whole, layer, x), values(pieces, layer, x))],
    )


def thrift(cell: str, shape: Shape) -> Race:
    """memory="sqrt" beside the same layer that keeps all."""
    assert cell == "lstm"
    whole, root = (recurra.LSTM(shape[2], shape[2], memory=memory) for memory in ("all", "sqrt"))
    root.load_state_dict(whole.state_dict())
    x, dy = rows(shape, grad=True)
    return Race(
        [
            Contestant("ours", gradients(root, root, x, dy)),
            Contestant("plain", gradients(whole, whole, x, dy)),
        ],
        [Check("ours", values(root, root, x), values(whole, whole, x))],
    )


def record(cell: str, shape: Shape) -> Race:
    """Held against the gates computed from the outputs, and outputs and gradients against those without recording."""
    assert cell == "lstm"
    layer: Any = recurra.LSTM(shape[2], shape[2])
    x, dy = rows(shape, grad=True)

    def recorded(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with layer.record(*GATES):
            y, state = layer(x)
        return y, state

    def seen() -> Values:
        with layer.record(*GATES) as seen, torch.no_grad():
            layer(x)
        return {name: seen[name] for name in GATES}

    @torch.no_grad()
    def by_hand() -> Values:
        y = layer(x)[0]
        before = torch.cat([torch.zeros_like(y[:1]), y[:-1]])
        told = nn.functional.linear(before, layer.weight_hh_l0, layer.bias_hh_l0)
        sums = (nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0) + told).chunk(4, -1)
        return {name: torch.tanh(z) if name == "g" else torch.sigmoid(z) for name, z in zip(GATES, sums, strict=True)}

    return Race(
        [
            Contestant("ours", gradients(recorded, layer, x, dy)),
            Contestant("plain", gradients(layer, layer, x, dy)),
        ],
        [Check("ours", seen, by_hand), Check("ours", values(recorded, layer, x), values(layer, layer, x))],
    )


def regularised(cell: str, shape: Shape) -> Race:
    """Zoneout around variational dropout, held against the plain loop with the same masks."""
    assert cell == "lstm"
    inner = recurra.cells.LSTM(shape[2], shape[2])
    plain = recurra.Recurrent(inner)
    layer = recurra.Recurrent(recurra.Zoneout(recurra.VariationalDropout(inner, x=0.25, h=0.25), h=0.05, c=0.5))
    x, dy = rows(shape, grad=True)

    def drawn(forward: Forward) -> Forward:
        def run(x: Tensor) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
            torch.manual_seed(1)
            return forward(x)

        return run

    def loop(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return recurra.scan(layer.cell, x)

    return Race(
        [
            Contestant("ours", gradients(layer, layer, x, dy)),
            Contestant("plain", gradients(plain, plain, x, dy)),
        ],
        [Check("ours", values(drawn(layer), layer, x), values(drawn(loop), layer, x))],
    )


def decaying(cell: str, shape: Shape) -> Race:
    """A state, and a gradient, that halve at every step without any drive, in a training step."""
    ours, plain, x, dy = _left_alone(cell, shape)
    driven, dense = rows(shape, grad=True)
    return Race(
        [
            Contestant("ours", gradients(ours, ours.layer, x, dy)),
            Contestant("plain", gradients(plain, plain.layer, driven, dense)),
        ],
        [Check("ours", values(ours, ours.layer, x), values(ours.by_scan, ours.layer, x))],
    )


def decaying_forward(cell: str, shape: Shape) -> Race:
    """The same, inference."""
    ours, plain, x, _ = _left_alone(cell, shape)
    driven, _ = rows(shape, grad=False)
    return Race(
        [
            Contestant("ours", lambda: ours(x.detach()), grad=False),
            Contestant("plain", lambda: plain(driven), grad=False),
        ],
        [Check("ours", values(ours, None, x), values(ours.by_scan, None, x))],
    )


class _FromOnes:
    """A layer whose every state begins at one."""

    def __init__(self, cell: recurra.Cell) -> None:
        self.layer = recurra.Recurrent(cell)

    def states(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.ones(x.shape[1], n) for n in self.layer.cell.state_sizes.values())

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        found: tuple[Tensor, Tensor | tuple[Tensor, ...]] = self.layer(x, self.states(x))
        return found

    def by_scan(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return recurra.scan(self.layer.cell, x, self.states(x))


def _left_alone(cell: str, shape: Shape) -> tuple[_FromOnes, _FromOnes, Tensor, Tensor]:
    """A layer whose weights are zero, another with weights, an input of zeros, and a gradient at the last step only."""
    make = {"gru": recurra.cells.GRU, "lstm": recurra.cells.LSTM, "leaky": recurra.cells.LeakyIntegrator}[cell]
    ours, plain = _FromOnes(make(shape[2], shape[2])), _FromOnes(make(shape[2], shape[2]))
    with torch.no_grad():
        for p in ours.layer.parameters():
            p.zero_()
    x, dy = (torch.zeros_like(t, requires_grad=t.requires_grad) for t in rows(shape, grad=True))
    dy[-1] = 1.0
    return ours, plain, x, dy

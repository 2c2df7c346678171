"""Cells as a user would write them: the three that PyTorch has, under the user's own names, and a peephole LSTM.

They must run as fast as `recurra.LSTM`, `GRU` and `RNN`: the engine may know no cell by name.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import recurra


class Memory(recurra.Cell):
    """An LSTM (gates in the order of torch.nn.LSTM) by somebody who calls its parts otherwise."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.reads = nn.Linear(input_size, 4 * hidden_size)
        self.recalls = nn.Linear(hidden_size, 4 * hidden_size)

    def step(self, x: Tensor, shown: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        write, keep, new, show = (self.reads(x) + self.recalls(shown)).chunk(4, -1)
        kept = torch.sigmoid(keep) * kept + torch.sigmoid(write) * torch.tanh(new)
        return torch.sigmoid(show) * torch.tanh(kept), kept


class Blend(recurra.Cell):
    """A GRU (reset after the product, gates in the order of torch.nn.GRU)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.reads = nn.Linear(input_size, 3 * hidden_size)
        self.recalls = nn.Linear(hidden_size, 3 * hidden_size)

    def step(self, x: Tensor, old: Tensor) -> Tensor:
        seen_r, seen_u, seen_n = self.reads(x).chunk(3, -1)
        told_r, told_u, told_n = self.recalls(old).chunk(3, -1)
        update = torch.sigmoid(seen_u + told_u)
        fresh = torch.tanh(seen_n + torch.sigmoid(seen_r + told_r) * told_n)
        return (1 - update) * fresh + update * old


class Plain(recurra.Cell):
    """An Elman network with tanh."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.reads = nn.Linear(input_size, hidden_size)
        self.recalls = nn.Linear(hidden_size, hidden_size)

    def step(self, x: Tensor, mood: Tensor) -> Tensor:
        return torch.tanh(self.reads(x) + self.recalls(mood))


class Peephole(recurra.Cell):
    """An LSTM whose gates see the cell state: i and f the old one, o the new one (Gers and Schmidhuber 2000)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.wx = nn.Linear(input_size, 4 * hidden_size)
        self.wh = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peep = nn.Parameter(0.1 * torch.randn(3, hidden_size))

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.wx(x) + self.wh(h)).chunk(4, -1)
        i = torch.sigmoid(i + self.peep[0] * c)
        f = torch.sigmoid(f + self.peep[1] * c)
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + self.peep[2] * c)
        return o * torch.tanh(c), c


class LayerNormLSTM(recurra.Cell):
    """An LSTM with both products and the cell state normalised (Ba, Kiros and Hinton 2016, equations 20 to 22)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.wx = nn.Linear(input_size, 4 * hidden_size)
        self.wh = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.norm_x, self.norm_h = nn.LayerNorm(4 * hidden_size), nn.LayerNorm(4 * hidden_size)
        self.norm_c = nn.LayerNorm(hidden_size)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.norm_x(self.wx(x)) + self.norm_h(self.wh(h))).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.norm_c(c)), c


class MinGRU(recurra.Cell):
    """h_t = (1 - z_t) h_{t-1} + z_t g(v_t), gates by x alone, g above zero (Feng et al. 2024, appendix B).

    With such a g the same sequence can be had by a scan over logarithms.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.reads: nn.Module = nn.Linear(input_size, 2 * hidden_size)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        k, v = self.reads(x).chunk(2, -1)
        return torch.lerp(h, torch.where(v >= 0, v + 0.5, torch.sigmoid(v)), torch.sigmoid(k))


class MinGRUScan(MinGRU):
    """What of a minGRU is left when its one product has been made: k and v are its input."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(2 * hidden_size, hidden_size)
        self.reads = nn.Identity()


GATES = {"lstm": 4, "gru": 3, "elman": 1, "peephole": 4, "layer-norm lstm": 4}
TORCH: dict[str, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}
OURS: dict[str, Callable[[int, int], nn.Module]] = {"lstm": recurra.LSTM, "gru": recurra.GRU, "elman": recurra.RNN}
COPIES: dict[str, Callable[[int, int], recurra.Cell]] = {"lstm": Memory, "gru": Blend, "elman": Plain}


Weighted = nn.Module | Mapping[str, nn.Parameter]


def weights(layer: Weighted) -> dict[str, nn.Parameter]:
    """The weights of a torch.nn layer, of a recurra one, or of a copy above, by torch.nn's names and in its order.

    Weights that are given by name are handed back.
    """
    if isinstance(layer, Mapping):
        return dict(layer)
    if isinstance(layer, recurra.Recurrent) and type(layer.cell) in COPIES.values():
        theirs = ("reads.weight", "recalls.weight", "reads.bias", "recalls.bias")
        ours = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return {name: layer.cell.get_parameter(own) for name, own in zip(ours, theirs, strict=True)}
    return dict(layer.named_parameters())


@torch.no_grad()
def share(source: nn.Module, *others: nn.Module) -> None:
    """Copies the weights of one layer into the others."""
    given = weights(source)
    for other in others:
        for name, weight in weights(other).items():
            weight.copy_(given[name])

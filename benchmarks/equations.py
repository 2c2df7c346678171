"""Ten cells of the package torchrecurrent as equations: four that come with Recurra, six as a user would write them.

torchrecurrent (Martinuzzi, PyPI) runs a cell's forward in a Python loop. An optional dependency, imported here only.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import recurra
from recurra import cells


class CFN(recurra.Cell):
    """Laurent and von Brecht 2017, arXiv:1612.06212: a network without chaos."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W, self.U = nn.Linear(input_size, 3 * hidden_size), nn.Linear(hidden_size, 2 * hidden_size)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (x_h, x_v, x_n), (h_h, h_v) = self.W(x).chunk(3, -1), self.U(h).chunk(2, -1)
        return torch.sigmoid(x_h + h_h) * torch.tanh(h) + torch.sigmoid(x_v + h_v) * torch.tanh(x_n)


class NBR(recurra.Cell):
    """Vecoven, Ernst and Drion 2021, arXiv:2006.05252: bistable units, each steered by the others."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W, self.U = nn.Linear(input_size, 3 * hidden_size), nn.Linear(hidden_size, 2 * hidden_size)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (x_a, x_c, x_n), (h_a, h_c) = self.W(x).chunk(3, -1), self.U(h).chunk(2, -1)
        a, c = 1 + torch.tanh(x_a + h_a), torch.sigmoid(x_c + h_c)
        return c * h + (1 - c) * torch.tanh(x_n + a * h)


class LEM(recurra.Cell):
    """Rusch, Mishra, Erichson and Mahoney 2022, arXiv:2110.04744: two time scales, here with Δt = 1."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W, self.U = nn.Linear(input_size, 4 * hidden_size), nn.Linear(hidden_size, 3 * hidden_size)
        self.C = nn.Linear(hidden_size, hidden_size)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        (x_h, x_c, x_z, x_y), (h_h, h_c, h_z) = self.W(x).chunk(4, -1), self.U(h).chunk(3, -1)
        y = torch.tanh(x_y + self.C(c))
        c = torch.lerp(c, torch.tanh(x_z + h_z), torch.sigmoid(x_c + h_c))
        return torch.lerp(h, y, torch.sigmoid(x_h + h_h)), c


class NAS(recurra.Cell):
    """Zoph and Le 2017, arXiv:1611.01578: found by a search over equations."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W, self.U = nn.Linear(input_size, 8 * hidden_size), nn.Linear(hidden_size, 8 * hidden_size)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        a = (self.W(x) + self.U(h)).chunk(8, -1)
        c = torch.tanh(torch.tanh(torch.sigmoid(a[0]) * torch.relu(a[1])) + c)
        c = c * torch.tanh(torch.sigmoid(a[2]) + torch.relu(a[3]))
        write = torch.tanh(torch.tanh(a[4]) * torch.sigmoid(a[5])) + torch.sigmoid(
            torch.tanh(a[6]) + torch.sigmoid(a[7])
        )
        return torch.tanh(c * torch.tanh(write)), c


class MultiplicativeLSTM(recurra.Cell):
    """Krause, Lu, Murray and Renals 2016, arXiv:1609.07959: the recurrent matrix depends on the input."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W, self.U = nn.Linear(input_size, 5 * hidden_size), nn.Linear(hidden_size, hidden_size)
        self.M = nn.Linear(hidden_size, 4 * hidden_size)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m, gates = self.W(x).tensor_split([self.hidden_size], -1)
        i, f, g, o = (gates + self.M(m * self.U(h))).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class CoRNN(recurra.Cell):
    """Rusch and Mishra 2021, arXiv:2010.00951: coupled oscillators, here with Δt = 0.1 and γ = ε = 1."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W, self.U = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.C = nn.Linear(hidden_size, hidden_size)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        c = c + 0.1 * (torch.tanh(self.W(x) + self.U(h) + self.C(c)) - h - c)
        return h + 0.1 * c, c


LINEAR = {"weight_ih": "W.weight", "bias_ih": "W.bias", "weight_hh": "U.weight", "bias_hh": "U.bias"}
CONTEXT = LINEAR | {"weight_ch": "C.weight", "bias_ch": "C.bias"}


@dataclass(frozen=True, eq=False)
class Published:
    """A cell of both: the package's name for it, our class, and our names of its parameters where they differ.

    ours, theirs: options of either that make them the same.
    """

    name: str
    cell: type[recurra.Cell]
    names: Mapping[str, str] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def pair(self, input_size: int, hidden_size: int) -> tuple[nn.Module, recurra.Recurrent]:
        """The package's layer and ours, with the same weights drawn anew. ImportError without the package."""
        package = importlib.import_module("torchrecurrent")
        theirs: nn.Module = getattr(package, self.name)(input_size, hidden_size, **self.theirs)
        layer = recurra.Recurrent(self.cell(input_size, hidden_size, **self.ours))
        for name, p in self.weights(theirs).items():
            with torch.no_grad():
                nn.init.uniform_(p, -(hidden_size**-0.5), hidden_size**-0.5)
                self.weights(layer)[name].copy_(p)
        return theirs, layer

    def weights(self, layer: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of either layer by our names, in the order of ours."""
        if isinstance(layer, recurra.Recurrent):
            return dict(layer.cell.named_parameters())
        bare = {name.removeprefix("cells.0."): p for name, p in layer.named_parameters()}
        return {self.names.get(name, name): p for name, p in bare.items()}


PUBLISHED = [
    Published("OriginalLSTM", cells.LSTMOriginal),
    Published("PeepholeLSTM", cells.LSTMPeephole),
    Published("MGU", cells.MGU),
    Published("IndRNN", cells.IndRNN, {"vector_u": "weight_hh"}, {"nonlinearity": "tanh"}, {"recurrent_bias": False}),
    Published("CFN", CFN, LINEAR),
    Published("NBR", NBR, LINEAR),
    Published("LEM", LEM, CONTEXT),
    Published("NAS", NAS, LINEAR),
    Published("MultiplicativeLSTM", MultiplicativeLSTM, LINEAR | {"weight_mh": "M.weight", "bias_mh": "M.bias"}),
    Published("coRNN", CoRNN, CONTEXT),
]

"""The list of everything: each cell and each layer, made small. Every law test walks it; a missing class fails a test.

A new cell is one more line in CELLS, and inherits every law.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import recurra
from benchmarks.equations import CFN, MultiplicativeLSTM
from recurra import Cell, cells
from recurra.cell.wrapper import InnerStep, Wrapper, changed
from recurra.regularise import RecurrentDropout, VariationalDropout, WeightDrop, Zoneout
from recurra.regularise.base import Regulariser


class Peephole(Cell):
    """A user's cell: the gates look at c (Gers and Schmidhuber 2000). Weights are those of nn.Linear."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.wx = nn.Linear(input_size, 4 * hidden_size)
        self.wh = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peep = nn.Parameter(0.3 * torch.randn(3, hidden_size))

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.wx(x) + self.wh(h)).chunk(4, -1)
        i = torch.sigmoid(i + self.peep[0] * c)
        f = torch.sigmoid(f + self.peep[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
        return h, c


class Concatenated(Cell):
    """A user's cell in the commonest idiom, W [x, h], with a layer norm and states of unequal widths."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, m=hidden_size + 2)
        self.w = nn.Linear(input_size + hidden_size, hidden_size + 2)
        self.norm = nn.LayerNorm(hidden_size + 2)
        self.back = nn.Linear(hidden_size + 2, hidden_size)

    def step(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        m = 0.5 * m + torch.tanh(self.norm(self.w(torch.cat([x, h], -1))))
        return self.back(m), m


class Learned(Cell):
    """A user's cell whose first state is learned, and whose output is no state and reads h_{t-1}."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.w = nn.Parameter(0.3 * torch.randn(hidden_size, input_size))
        self.u = nn.Parameter(0.3 * torch.randn(hidden_size, hidden_size))
        self.h0 = nn.Parameter(torch.randn(hidden_size))

    def initial(self, batch: int) -> Tensor:
        return self.h0.expand(batch, -1)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(F.linear(x, self.w) + h @ self.u.t())
        return torch.cat([new, h * x.mean(-1, keepdim=True)], -1), new


class Leaky(Cell):
    """A user's cell without matrices on the state: a leaky integrator for each unit."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.w = nn.Linear(input_size, hidden_size)
        self.rate = nn.Parameter(torch.randn(hidden_size))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.lerp(h, self.w(x), torch.sigmoid(self.rate))


class Nudged(Wrapper):
    """A wrapper with a side δ as wide as the first state: h_t = h'_t + δ_t, and what was h'_t as output is h_t."""

    def own_sizes(self) -> dict[str, int]:
        return {"nudge": next(iter(self.state_sizes.values()))}

    def own_sides(self, x: Tensor) -> tuple[Tensor, ...]:
        row = 0.1 * torch.arange(self.own_sizes()["nudge"], dtype=x.dtype, device=x.device).cos()
        return (row.expand(*x.shape[:2], -1),)

    def around(
        self, step: InnerStep, x: Tensor, sides: tuple[Tensor, ...], states: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, nexts = step(x, states)
        return changed(y, nexts, (nexts[0] + sides[0], *nexts[1:]))


def fixed(kind: type[Regulariser]) -> type[Regulariser]:
    """A regulariser that drops the same units in every call, at every step and in every sequence.

    So the laws of plain cells hold for it: a step alone, or a row alone, is what it is in a call. That masks differ,
    and what else holds for those that do, is tested in test_regularise_laws.py.
    """

    class Fixed(kind):  # type: ignore[misc,valid-type]
        def masks(self, key: Tensor, x: Tensor, first: int = 0) -> tuple[Tensor, ...]:
            return tuple(m.expand(*x.shape[:2], -1) for m in super().masks(key, x.new_zeros(1, 1, 1)))

        def new_key(self) -> Tensor:
            return KEY

    Fixed.__name__ = kind.__name__
    return Fixed


KEY = torch.tensor(0x5EED)


def regularised(cell: "Learned") -> Cell:
    """Wrappers in wrappers, one of them twice."""
    cell = fixed(Zoneout)(fixed(VariationalDropout)(fixed(RecurrentDropout)(cell, new=0.2), x=0.3, h=0.1), h=0.2)
    return fixed(WeightDrop)(fixed(Zoneout)(cell, h=0.1), u=0.3)


@dataclass(frozen=True)
class CellExample:
    """One cell: make(D, H) gives it with input width D and hidden width H.

    at_least: what a state never falls below; a smaller one would be none that the cell itself can reach.
    """

    name: str
    make: Callable[[int, int], Cell]
    torch_cell: type[nn.RNNCellBase] | None = None  # torch.nn's cell of the same parameters and equation
    torch_layer: Callable[[int, int], nn.RNNBase] | None = None
    at_least: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.name


CELLS = [
    CellExample("Elman", cells.Elman, nn.RNNCell, nn.RNN),
    CellExample(
        "Elman relu",
        lambda D, H: cells.Elman(D, H, nonlinearity="relu"),
        torch_layer=lambda D, H: nn.RNN(D, H, nonlinearity="relu"),
    ),
    CellExample("Elman without bias", lambda D, H: cells.Elman(D, H, bias=False)),
    CellExample("ElmanOutput", lambda D, H: cells.ElmanOutput(D, H, H + 1)),
    CellExample("Jordan", lambda D, H: cells.Jordan(D, H, H + 1)),
    CellExample("LSTM", cells.LSTM, nn.LSTMCell, nn.LSTM),
    CellExample("LSTM without bias", lambda D, H: cells.LSTM(D, H, bias=False)),
    CellExample(
        "LSTMProjected",
        lambda D, H: cells.LSTMProjected(D, H + 1, H),
        torch_layer=lambda D, H: nn.LSTM(D, H + 1, proj_size=H),
    ),
    CellExample("GRU", cells.GRU, nn.GRUCell, nn.GRU),
    CellExample("GRU without bias", lambda D, H: cells.GRU(D, H, bias=False)),
    CellExample("GRUResetBefore", cells.GRUResetBefore),
    CellExample("GRUResetBefore without bias", lambda D, H: cells.GRUResetBefore(D, H, bias=False)),
    CellExample("ElmanOutputBefore", lambda D, H: cells.ElmanOutputBefore(D, H, H + 1)),
    CellExample("IndRNN", cells.IndRNN),
    CellExample("IndRNN tanh without bias", lambda D, H: cells.IndRNN(D, H, bias=False, nonlinearity="tanh")),
    CellExample("LeakyIntegrator", lambda D, H: cells.LeakyIntegrator(D, H, leak=0.3)),
    CellExample("LSTMOriginal", cells.LSTMOriginal),
    CellExample("LSTMPeephole", lambda D, H: cells.LSTMPeephole(D, H, forget_bias=1.0)),
    CellExample("LSTMPeephole without bias", lambda D, H: cells.LSTMPeephole(D, H, bias=False)),
    CellExample("LSTMCoupled", cells.LSTMCoupled),
    # eps: without it the norm of a small product grows an error of rounding from step to step
    CellExample("LSTMLayerNorm", lambda D, H: cells.LSTMLayerNorm(D, H, eps=0.1)),
    CellExample("LSTMLayerNorm without bias", lambda D, H: cells.LSTMLayerNorm(D, H, bias=False, eps=0.1)),
    CellExample("GRULayerNorm", lambda D, H: cells.GRULayerNorm(D, H, eps=0.1)),
    CellExample("MGU", cells.MGU),
    CellExample("MGU without bias", lambda D, H: cells.MGU(D, H, bias=False)),
    CellExample("MinGRU", cells.MinGRU),
    CellExample("MinLSTM", cells.MinLSTM),
    CellExample("SRU", cells.SRU),
    CellExample("SRU as wide as its input", lambda D, H: cells.SRU(H, H) if D == H else cells.SRU(D, H, bias=False)),
    CellExample("QRNN", cells.QRNN),
    # it divides by n, which one of its two factors keeps from falling: without that, n = f' n + i' may cancel to 0
    CellExample("SLSTM", cells.SLSTM, at_least={"n": 1}),
    CellExample("SLSTM exp", lambda D, H: cells.SLSTM(D, H, forget_gate="exp"), at_least={"n": 1}),
    CellExample("user's CFN", CFN),
    CellExample("user's MultiplicativeLSTM", MultiplicativeLSTM),
    CellExample("user's Peephole", Peephole),
    CellExample("user's Concatenated", Concatenated),
    CellExample("user's Learned", Learned),
    CellExample("user's Leaky", Leaky),
    CellExample("Zoneout", lambda D, H: fixed(Zoneout)(cells.LSTM(D, H), h=0.3, c=0.5)),
    CellExample("VariationalDropout", lambda D, H: fixed(VariationalDropout)(Peephole(D, H), x=0.3, h=0.2)),
    CellExample("RecurrentDropout", lambda D, H: fixed(RecurrentDropout)(cells.GRU(D, H), n=0.25)),
    CellExample("WeightDrop", lambda D, H: fixed(WeightDrop)(Peephole(D, H), **{"wh.weight": 0.5})),
    CellExample("all regularisers", lambda D, H: regularised(Learned(D, H))),
    CellExample("wrapper with a side", lambda D, H: Nudged(cells.GRU(D, H))),
    CellExample("wrapper in a wrapper", lambda D, H: Nudged(Nudged(Learned(D, H)))),
]


@dataclass(frozen=True)
class LayerExample:
    """One layer: make(D, batch_first) gives it with input width D."""

    name: str
    make: Callable[[int, bool], nn.Module]

    def __str__(self) -> str:
        return self.name


def _recurrent(D: int, H: int, batch_first: bool) -> recurra.Recurrent:
    return recurra.Recurrent(cells.GRU(D, H), batch_first=batch_first)


LAYERS = [
    LayerExample("Recurrent", lambda D, b: recurra.Recurrent(Peephole(D, 4), batch_first=b)),
    LayerExample("Recurrent output no state", lambda D, b: recurra.Recurrent(Learned(D, 3), batch_first=b)),
    LayerExample("Stack", lambda D, b: recurra.Stack([_recurrent(D, 3, b), recurra.LSTM(3, 4, batch_first=b)])),
    LayerExample("Bidirectional", lambda D, b: recurra.Bidirectional(_recurrent(D, 3, b))),
    LayerExample(
        "Bidirectional of two",
        lambda D, b: recurra.Bidirectional(_recurrent(D, 3, b), recurra.LSTM(D, 2, batch_first=b)),
    ),
    LayerExample("Residual", lambda D, b: recurra.Residual(recurra.Recurrent(cells.LSTM(D, D), batch_first=b))),
    LayerExample(
        "all together",
        lambda D, b: recurra.Stack(
            [
                recurra.Bidirectional(recurra.Stack([_recurrent(D, 3, b), recurra.Residual(_recurrent(3, 3, b))])),
                recurra.Residual(recurra.GRU(6, 6, batch_first=b)),
            ]
        ),
    ),
    LayerExample("RNN", lambda D, b: recurra.RNN(D, 4, nonlinearity="relu", batch_first=b)),
    LayerExample("RNN deep", lambda D, b: recurra.RNN(D, 4, 3, bidirectional=True, batch_first=b)),
    LayerExample("LSTM", lambda D, b: recurra.LSTM(D, 4, batch_first=b)),
    LayerExample("LSTM deep", lambda D, b: recurra.LSTM(D, 4, 2, bidirectional=True, batch_first=b)),
    LayerExample(
        "LSTM projected", lambda D, b: recurra.LSTM(D, 4, 2, bidirectional=True, proj_size=3, batch_first=b, bias=False)
    ),
    LayerExample("GRU", lambda D, b: recurra.GRU(D, 4, batch_first=b)),
    LayerExample("GRU deep", lambda D, b: recurra.GRU(D, 4, 2, bidirectional=True, batch_first=b)),
]

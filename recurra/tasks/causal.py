"""Causal encoders, of which y_t knows x_1 … x_t and nothing later: one interface, so that they can be compared."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cell import Cell, innermost
from recurra.errors import InputError
from recurra.layers import Recurrent
from recurra.regularise import WeightDrop
from recurra.regularise.values import dropout
from recurra.unroll.precision import checked

State = tuple[Tensor, ...]
_KERNEL = 3  # steps that a convolution sees, itself the last
_HEADS = 4
_MEMORY = 128  # earlier steps that attention sees beside those of the window


class Dropout(nn.Module):
    """m ∘ x / (1 - rate) in training: masks of every value, or one for all steps of a sequence where `variational`."""

    def __init__(self, rate: float, variational: bool = False) -> None:
        super().__init__()
        self.rate, self.variational = rate, variational

    def forward(self, x: Tensor) -> Tensor:  # (T, B, D)
        if not self.variational or not self.training:
            return dropout(x, self.rate, self.training)
        return x * dropout(torch.ones_like(x[:1]), self.rate)

    def extra_repr(self) -> str:
        return f"{self.rate:g}, variational={self.variational}"


class Causal(nn.Module, ABC):
    """y, state = encoder(x, state): x (T, B, D) -> y (T, B, width); a state is tensors (n, B, …), None at the start."""

    width: int

    @abstractmethod
    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]: ...

    def begin(self, state: State, lane: int) -> None:
        """Puts one lane of a state back to the start."""
        for part in state:
            part[:, lane] = 0


class CellLayers(Causal):
    """Layers of a cell, one on top of the other, with dropout between them; in training recurrent weights are dropped.

    make: a cell of an input size. weight_drop: the share of the recurrent matrices, which are those called …hh….
    """

    def __init__(
        self, make: Callable[[int], Cell], input_size: int, layers: int, dropout: Dropout, weight_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.width = input_size
        for _ in range(layers):
            cell = make(self.width)
            self.layers.append(Recurrent(cell))
            self.width = cell.output_size
        self.dropout = dropout
        # Around the same cells, and no modules of this one: weights keep the names that they have without them.
        self._dropping = [Recurrent(WeightDrop(cell, **_rates(cell, weight_drop))) for cell in self._cells(weight_drop)]

    def _cells(self, weight_drop: float) -> list[Cell]:
        return [layer.cell for layer in self.layers if isinstance(layer, Recurrent)] if weight_drop else []

    def train(self, mode: bool = True) -> "CellLayers":
        super().train(mode)
        for layer in self._dropping:
            layer.train(mode)
        return self

    def compute_in(self, precision: str) -> None:
        """What the layers compute in from now on."""
        for layer in [*self.layers, *self._dropping]:
            layer.precision = None if checked(precision) == "fp32" else precision  # which its weights are

    @property
    def precision(self) -> str:
        """What the layers compute in."""
        return next(layer.precision for layer in self.layers if isinstance(layer, Recurrent)) or "fp32"

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        dtype, states = x.dtype, iter(state or ())
        last: list[Tensor] = []
        running = self._dropping if self._dropping and self.training else self.layers
        for number, layer in enumerate(running):
            assert isinstance(layer, Recurrent)
            if number:
                x = self.dropout(x)
            before = None if state is None else tuple(next(states)[0] for _ in layer.cell.state_sizes)
            x, after = layer(x, before)
            last += after if isinstance(after, tuple) else (after,)
        return x.to(dtype), tuple(s[None] for s in last)  # of layers in fp64 too

    def begin(self, state: State, lane: int) -> None:
        parts = iter(state)
        for cell in (layer.cell for layer in self.layers if isinstance(layer, Recurrent)):
            first = cell.initial(1)
            for row in first if isinstance(first, tuple) else (first,):
                next(parts)[:, lane] = row


def _rates(cell: Cell, rate: float) -> dict[str, float]:
    names = [name for name, _ in innermost(cell).named_parameters()]
    found = {name: rate for name in names if "hh" in name and "bias" not in name}
    if not found:
        raise InputError(
            f"weight_drop={rate:g} drops recurrent matrices, which are called …hh…, and {type(cell).__name__} has none "
            f"but {', '.join(names)}; leave it out, or call the matrix weight_hh."
        )
    return found


class CausalConvolution(Causal):
    """y = ReLU(conv(x)), then y ← y + ReLU(conv(y)) with dilation 2, 4, …: each step sees itself and two before it.

    Bai et al. 2018, arXiv:1803.01271, with one convolution a block. Before the beginning is zero.
    """

    def __init__(self, input_size: int, hidden: int, layers: int, dropout: Dropout) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(hidden if n else input_size, hidden, _KERNEL, dilation=2**n) for n in range(layers)
        )
        self.width, self.dropout = hidden, dropout

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        last: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            back = (_KERNEL - 1) * 2**number
            given = self.dropout(x) if number else x
            before = given.new_zeros(back, *given.shape[1:]) if state is None else state[number]
            seen = torch.cat([before, given])
            y = torch.relu(layer(seen.permute(1, 2, 0))).permute(2, 0, 1)
            x = x + y if number else y
            last.append(seen[-back:])
        return x, tuple(last)


class CausalTransformer(Causal):
    """Layers of causal self-attention and a perceptron, which see the steps of the window and 128 before it.

    Vaswani et al. 2017, arXiv:1706.03762, normalised before each part (Xiong et al. 2020, arXiv:2002.04745). What is
    far away counts less, -m_h |i - j| in head h (Press et al. 2022, arXiv:2108.12409), so that no positions are needed;
    earlier steps are kept as in Dai et al. 2019, arXiv:1901.02860.
    """

    def __init__(self, input_size: int, hidden: int, layers: int, dropout: Dropout) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, hidden)
        self.layers = nn.ModuleList(_Attention(hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.width = hidden

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        T, B, _ = x.shape
        x = self.project(x)
        if state is None:  # nothing is there
            state = (x.new_zeros(_MEMORY, B, 1), *(x.new_zeros(_MEMORY, B, self.width) for _ in self.layers))
        there = torch.cat([state[0], x.new_ones(T, B, 1)])
        bias = _distances(T, there, _heads(self.width))
        last = [there[-_MEMORY:]]
        for layer, before in zip(self.layers, state[1:], strict=True):
            seen = torch.cat([before, x])
            last.append(seen[-_MEMORY:])
            x = layer(x, seen, bias)
        return self.norm(x), tuple(last)


class _Attention(nn.Module):
    def __init__(self, hidden: int, dropout: Dropout) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.key_value = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.perceptron = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.dropout = dropout

    def forward(self, x: Tensor, seen: Tensor, bias: Tensor) -> Tensor:
        heads = _heads(x.shape[-1])

        def parted(rows: Tensor) -> Tensor:  # (S, B, H) -> (B, heads, S, H / heads)
            return rows.reshape(*rows.shape[:2], heads, -1).permute(1, 2, 0, 3)

        key, value = self.key_value(self.first(seen)).chunk(2, -1)
        query = self.query(self.first(x))
        y = F.scaled_dot_product_attention(parted(query), parted(key), parted(value), attn_mask=bias)
        x = x + self.dropout(self.out(y.permute(2, 0, 1, 3).flatten(-2)))
        read: Tensor = self.dropout(self.perceptron(self.second(x)))
        return x + read


def _heads(width: int) -> int:
    return _HEADS if width % _HEADS == 0 else 1


def _distances(T: int, there: Tensor, heads: int) -> Tensor:
    """What is added to the scores (B, heads, T, S) of the last T of S steps: -m_h (i - j), and -inf for what is later
    or not there; m_h = 2^(-8 h / heads)."""
    S = there.shape[0]
    back = torch.arange(S - T, S)[:, None] - torch.arange(S)
    rates = 2.0 ** (-8 * torch.arange(1, heads + 1) / heads)
    bias = -rates[:, None, None] * back
    seen = (back >= 0) & (there[..., 0].t()[:, None, None, :] != 0)
    return torch.where(seen, bias, -torch.inf)

"""Language modelling on characters: the network, its loss, and its measure.

p(c_{t+1} | c_1 … c_t) = softmax(W_o h_t + b_o),     h_t = the top layer's output after reading c_t
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.layers import GRU, LSTM, RNN
from recurra.regularise.values import dropout
from recurra.unroll import visits
from recurra.unroll.precision import checked

State = tuple[Tensor, ...]
_RUN_IN = 256  # characters a lane of a measurement reads before it counts


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fixes the shapes of a network's weights, beside the vocabulary."""

    cell: Literal["lstm", "gru", "rnn"]
    layers: Annotated[int, Meta(ge=1, le=1000)]
    hidden: Annotated[int, Meta(ge=1)]
    embedding: Annotated[int, Meta(ge=0)]  # 0: one-hot


def recurrent(sizes: Sizes, width: int, dropout: float, device: str | None = None) -> nn.Module:
    """The recurrent layers: x (T, B, width) -> y (T, B, hidden), state."""
    kind = {"lstm": LSTM, "gru": GRU, "rnn": RNN}[sizes.cell]
    between = dropout if sizes.layers > 1 else 0.0
    layers: nn.Module = kind(width, sizes.hidden, sizes.layers, dropout=between, device=device)
    if sizes.cell == "lstm":
        _open_forget_gates(layers, sizes.hidden)
    return layers


@torch.no_grad()
def _open_forget_gates(layers: nn.Module, hidden: int) -> None:
    """Adds 1 to the bias of the forget gates, so that memory lasts from the start (Jozefowicz et al. 2015, ICML)."""
    for name, bias in layers.named_parameters():
        if name.startswith("bias_ih"):
            bias[hidden : 2 * hidden] += 1


class LanguageNetwork(nn.Module):
    """Characters (T, B) and a state to scores of the next character (T, B, V) and the next state."""

    def __init__(self, sizes: Sizes, symbols: int, dropout: float = 0.0, device: str | None = None) -> None:
        super().__init__()
        self.symbols = symbols
        self.dropout = dropout
        self.embedding = nn.Embedding(symbols, sizes.embedding, device=device) if sizes.embedding else None
        self.recurrent = recurrent(sizes, sizes.embedding or symbols, dropout, device)
        self.output = nn.Linear(sizes.hidden, symbols, device=device)

    def compute_in(self, precision: str) -> None:
        """What the recurrent layers compute in from now on."""
        layers: Any = self.recurrent
        layers.precision = None if checked(precision) == "fp32" else precision  # which its weights are

    @property
    def precision(self) -> str:
        """What the recurrent layers compute in."""
        layers: Any = self.recurrent
        return layers.precision or "fp32"

    @torch.no_grad()
    def rounding_error(self) -> float | None:
        """In int8, how far the outputs of a recurrent layer are at most from those in fp32, of the largest."""
        with visits() as seen:
            self(torch.zeros(1, 1, dtype=torch.long))
        return max((v.error for v in seen if v.error is not None), default=None)

    def forward(self, characters: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        x = (
            self.embedding(characters)
            if self.embedding
            else F.one_hot(characters, self.symbols).to(self.output.weight.dtype)
        )
        x = dropout(x, self.dropout, self.training)
        given = state[0] if state is not None and len(state) == 1 else state
        y, last = self.recurrent(x, given)
        scores = self.output(dropout(y, self.dropout, self.training))
        return scores, last if isinstance(last, tuple) else (last,)

    @torch.no_grad()
    def start_from(self, counts: Tensor) -> None:
        """Sets the output's bias to the log frequencies of `counts` (V,): it need not learn what counting tells."""
        self.output.bias.copy_(((counts + 0.1) / (counts + 0.1).sum()).log())

    def loss(self, characters: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mean of -ln p over the targets (T, B), and the state after them, cut from the gradient."""
        scores, last = self(characters, state)
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        return loss, tuple(s.detach() for s in last)


@torch.no_grad()
def measure(network: LanguageNetwork, numbers: NDArray[np.int64]) -> float:
    """Mean of -ln p over all characters (N,) but the first, each predicted from the text before it.

    The text is read in lanes side by side, for speed alone: each lane first reads the characters before it without
    counting them, so that the result hardly depends on the number of lanes.
    """
    was_training = network.training
    network.eval()
    predicted = len(numbers) - 1
    lanes = max(1, min(64, predicted // (4 * _RUN_IN)))
    length = -(-predicted // lanes)
    starts = np.arange(lanes) * length
    state = _run_in(network, numbers, starts) if lanes > 1 else None
    chunk = max(1, min(256, 8_000_000 // (lanes * network.symbols)))
    total = 0.0
    for begin in range(0, length, chunk):
        place = starts + np.arange(begin, min(begin + chunk, length))[:, None]  # (T, lanes)
        inside = torch.from_numpy(place < predicted)
        read = torch.from_numpy(numbers[np.minimum(place, predicted - 1)])
        target = torch.from_numpy(numbers[np.minimum(place, predicted - 1) + 1])
        scores, state = network(read, state)
        nats = F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none").double()
        total += float(nats[inside.flatten()].sum())
    network.train(was_training)
    return total / predicted


def _run_in(network: LanguageNetwork, numbers: NDArray[np.int64], starts: NDArray[np.int64]) -> State:
    """The state of each lane after the characters before it; the first lane has none before it and starts at zero."""
    before = starts + np.arange(-_RUN_IN, 0)[:, None]
    state: State = network(torch.from_numpy(numbers[np.maximum(before, 0)]))[1]
    for s in state:
        s[:, 0] = 0
    return state

"""Language modelling: the network, its loss, and its measure.

p(s_{t+1} | s_1 … s_t) = softmax(W_o y_t + b_o),     y_t = the encoder's output after reading s_t
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.cells.by_name import cell_named, check_named
from recurra.errors import InputError
from recurra.layers import GRU, LSTM, RNN
from recurra.regularise.values import dropout
from recurra.tasks.causal import Causal, CausalConvolution, CausalTransformer, CellLayers, Dropout, State
from recurra.tasks.softmax import linear_cross_entropy
from recurra.unroll import visits
from recurra.unroll.precision import checked

_RUN_IN = 256  # symbols a lane of a measurement reads before it counts
_MANY = 1000  # symbols from which the scores of a step of training are not all held
_DENSE = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fixes the shapes of a network's weights, beside the vocabulary."""

    cell: str | None  # of a recurrent encoder
    layers: Annotated[int, Meta(ge=1, le=1000)]
    hidden: Annotated[int, Meta(ge=1)]
    embedding: Annotated[int, Meta(ge=0)]  # 0: one-hot
    encoder: Literal["recurrent", "cnn", "transformer"] = "recurrent"
    cells: bool = False  # whether layers are cells one by one, and not one of torch.nn's layers
    tied: bool = False  # whether the output's matrix is that of the embedding
    cutoffs: list[int] = []  # of an adaptive softmax


class Regularisation(msgspec.Struct, frozen=True):
    """What a network is held back by in training: the parts of AWD-LSTM (Merity et al. 2018, arXiv:1708.02182)."""

    dropout: float = 0.0  # of values before and after each layer
    variational: bool = False  # whether its masks hold for a whole window
    embedding: float = 0.0  # share of symbols whose vector is zero for a window
    weight: float = 0.0  # share of the recurrent weights that are dropped for a window
    activation: float = 0.0  # α of α mean(y²), y as the output layer reads it
    slowness: float = 0.0  # β of β mean((y_t - y_{t-1})²)


class LanguageNetwork(nn.Module):
    """Symbols (T, B) and a state to scores of the next symbol (T, B, V), up to a constant ln p, and the next state."""

    def __init__(
        self, sizes: Sizes, symbols: int, regularisation: Regularisation | float = 0.0, device: str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(regularisation, Regularisation):
            regularisation = Regularisation(regularisation)
        self.symbols, self.regularisation = symbols, regularisation
        self.dropout = Dropout(regularisation.dropout, regularisation.variational)
        with torch.device(device or torch.get_default_device()):
            self.embedding = nn.Embedding(symbols, sizes.embedding) if sizes.embedding else None
            width = sizes.embedding or symbols
            self.recurrent: nn.Module | None = None
            self.encoder: Causal | None = None
            if sizes.encoder == "recurrent" and not sizes.cells:
                self.recurrent, width = _dense(sizes, width, regularisation.dropout), sizes.hidden
            else:
                self.encoder = _encoder(sizes, width, self.dropout, regularisation.weight)
                width = self.encoder.width
            self.output, self.output_bias, self.adaptive = None, None, None
            if sizes.cutoffs:
                narrowing = 4.0 if width >= 4 ** len(sizes.cutoffs) else 1.0  # of each further cluster
                self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(width, symbols, sizes.cutoffs, narrowing, head_bias=True)
            elif sizes.tied:
                assert self.embedding is not None
                check_tied(sizes.embedding, width)
                nn.init.uniform_(self.embedding.weight, -0.1, 0.1)  # as rows of an output matrix
                self.output_bias = nn.Parameter(torch.zeros(symbols))
            else:
                self.output = nn.Linear(width, symbols)

    def compute_in(self, precision: str) -> None:
        """What the recurrent layers compute in from now on. Raises InputError for an encoder that has none."""
        if isinstance(self.encoder, CellLayers):
            self.encoder.compute_in(precision)
        elif self.recurrent is not None:
            layers: Any = self.recurrent
            layers.precision = None if checked(precision) == "fp32" else precision  # which its weights are
        elif checked(precision) != "fp32":
            raise InputError(
                f"precision={precision!r} is one of recurrent layers, and this model has none; leave it out."
            )

    @property
    def precision(self) -> str:
        """What the recurrent layers compute in."""
        if isinstance(self.encoder, CellLayers):
            return self.encoder.precision
        layers: Any = self.recurrent
        return layers.precision or "fp32" if layers is not None else "fp32"

    @torch.no_grad()
    def rounding_error(self) -> float | None:
        """In int8, how far the outputs of a recurrent layer are at most from those in fp32, of the largest."""
        with visits() as seen:
            self(torch.zeros(1, 1, dtype=torch.long))
        return max((v.error for v in seen if v.error is not None), default=None)

    def forward(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        y, last = self.encode(symbols, state)
        return self.scores(self.dropout(y)), last

    def encode(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What the encoder makes of symbols (T, B): y (T, B, width), and the next state."""
        x = self.dropout(self._vectors(symbols))
        if self.encoder is not None:
            return self.encoder(x, state)  # type: ignore[no-any-return]
        assert self.recurrent is not None
        given = state[0] if state is not None and len(state) == 1 else state
        y, last = self.recurrent(x, given)
        return y, last if isinstance(last, tuple) else (last,)

    def _vectors(self, symbols: Tensor) -> Tensor:
        if self.embedding is None:
            return F.one_hot(symbols, self.symbols).to(torch.get_default_dtype())
        x: Tensor = self.embedding(symbols)
        if self.training and self.regularisation.embedding:
            kept = dropout(torch.ones(self.symbols), self.regularisation.embedding)
            x = x * kept[symbols][..., None]
        return x

    def scores(self, y: Tensor) -> Tensor:
        """Of every symbol, (T, B, V)."""
        if self.adaptive is not None:
            every: Tensor = self.adaptive.log_prob(y.flatten(0, 1))
            return every.view(*y.shape[:2], -1)
        if self.output is not None:
            return self.output(y)  # type: ignore[no-any-return]
        return F.linear(y, *self._matrix())

    def _matrix(self) -> tuple[Tensor, Tensor]:
        """W_o and b_o."""
        if self.output is not None:
            return self.output.weight, self.output.bias
        assert self.embedding is not None and self.output_bias is not None
        return self.embedding.weight, self.output_bias

    def nats(self, y: Tensor, targets: Tensor) -> Tensor:
        """-ln p of each target (T, B), (T B,)."""
        if self.adaptive is not None:
            output: Tensor = self.adaptive(y.flatten(0, 1), targets.flatten()).output
            return -output
        return F.cross_entropy(self.scores(y).flatten(0, 1), targets.flatten(), reduction="none")

    def _mean(self, y: Tensor, targets: Tensor) -> Tensor:
        """The mean of `nats`; in training in bf16 the products with a large output matrix are too."""
        if self.adaptive is not None or self.symbols < _MANY:
            return self.nats(y, targets).mean()
        bf16 = self.training and self.precision == "bf16"
        return linear_cross_entropy(y.flatten(0, 1), *self._matrix(), targets.flatten(), bf16)

    @torch.no_grad()
    def start_from(self, counts: Tensor) -> None:
        """Sets the output's bias to the log frequencies of `counts` (V,): it need not learn what counting tells."""
        shares = (counts + 0.1) / (counts + 0.1).sum()
        if self.adaptive is not None:
            first, *ends = self.adaptive.cutoffs
            clusters = [shares[a:b].sum() for a, b in zip([first, *ends], ends)]
            self.adaptive.head.bias.copy_(torch.cat([shares[:first], torch.stack(clusters)]).log())
        else:
            self._matrix()[1].copy_(shares.log())

    def loss(self, symbols: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mean of -ln p over the targets (T, B), and the state after them, cut from the gradient.

        In training with what `regularisation` adds to it.
        """
        y, last = self.encode(symbols, state)
        dropped = self.dropout(y)
        loss = self._mean(dropped, targets)
        held = self.regularisation
        if self.training and held.activation:
            loss = loss + held.activation * dropped.square().mean()
        if self.training and held.slowness and len(y) > 1:
            loss = loss + held.slowness * (y[1:] - y[:-1]).square().mean()
        return loss, tuple(s.detach() for s in last)

    def begin(self, state: State, lane: int) -> None:
        """Puts one lane of a state back to the start."""
        if self.encoder is not None:
            self.encoder.begin(state, lane)
        else:
            for s in state:
                s[:, lane] = 0


def check_tied(embedding: int, width: int) -> None:
    """Raises InputError for an embedding that cannot be the output's matrix."""
    if embedding != width:
        raise InputError(
            f"tied=True makes the output's matrix that of the embedding, which is embedding={embedding} wide, but what "
            f"the layers give is {width} wide; give embedding={width}, or leave it out."
        )


def _dense(sizes: Sizes, width: int, dropout: float) -> nn.Module:
    """One of torch.nn's layers: x (T, B, width) -> y (T, B, hidden), state."""
    if sizes.cell not in _DENSE:
        raise ValueError(f"cell {sizes.cell!r} is none of {', '.join(_DENSE)}, which layers of torch.nn have")
    between = dropout if sizes.layers > 1 else 0.0
    layers: nn.Module = _DENSE[sizes.cell](width, sizes.hidden, sizes.layers, dropout=between)
    if sizes.cell == "lstm":
        _open_forget_gates(layers, sizes.hidden)
    return layers


def _encoder(sizes: Sizes, width: int, dropout: Dropout, weight_drop: float) -> Causal:
    match sizes.encoder:
        case "cnn":
            return CausalConvolution(width, sizes.hidden, sizes.layers, dropout)
        case "transformer":
            return CausalTransformer(width, sizes.hidden, sizes.layers, dropout)
    name = str(sizes.cell)
    check_named(name)
    return CellLayers(
        lambda size: cell_named(name, size, sizes.hidden, forget_bias=1.0), width, sizes.layers, dropout, weight_drop
    )


@torch.no_grad()
def _open_forget_gates(layers: nn.Module, hidden: int) -> None:
    """Adds 1 to the bias of the forget gates, so that memory lasts from the start (Jozefowicz et al. 2015, ICML)."""
    for name, bias in layers.named_parameters():
        if name.startswith("bias_ih"):
            bias[hidden : 2 * hidden] += 1


@torch.no_grad()
def measure(network: LanguageNetwork, numbers: NDArray[np.int64]) -> float:
    """Mean of -ln p over all symbols (N,) but the first, each predicted from the text before it.

    The text is read in lanes side by side, for speed alone: each lane first reads the symbols before it without
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
        y, state = network.encode(read, state)
        total += float(network.nats(y, target).double()[inside.flatten()].sum())
    network.train(was_training)
    return total / predicted


def _run_in(network: LanguageNetwork, numbers: NDArray[np.int64], starts: NDArray[np.int64]) -> State:
    """The state of each lane after the symbols before it; the first lane has none before it and is at the start."""
    before = starts + np.arange(-_RUN_IN, 0)[:, None]
    _, state = network.encode(torch.from_numpy(numbers[np.maximum(before, 0)]))
    network.begin(state, 0)
    return state

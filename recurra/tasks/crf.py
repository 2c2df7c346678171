"""Scores of tags at each word become tags of a sentence: a linear-chain conditional random field, or none.

    p(y | e) = exp(s(y)) / Z,   s(y) = a[y_1] + Σ_t e_t[y_t] + Σ_{t > 1} A[y_{t-1}, y_t] + b[y_n],   Z = Σ_y exp(s(y))

Lafferty, McCallum & Pereira 2001, ICML; over a recurrent network Lample et al. 2016, arXiv:1603.01360. e (T, B, K) are
the network's scores of the tags at each word, lengths (B,) from 1 to T. What a scheme forbids to stand side by side has
no part in Z, and is never the best path.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.cell import Cell
from recurra.layers import Recurrent

_FORBIDDEN = -1e4  # a score that is -inf in fp32 and fp64 once exp is taken, and through which gradients are numbers
_FLOOR = 1e-300  # what is taken for a sum of exponentials that are all 0 in fp64

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class ForwardAlgorithm(Cell):
    """α_t = e_t + m + ln(exp(α_{t-1} - m) exp(A)),   m = max α_{t-1}.

    The forward algorithm (Rabiner 1989, Proceedings of the IEEE 77) as what it is, a recurrent network: x is e_t, and
    the state α (B, K) the logarithm of the summed weights of all paths that end in each tag. So it runs on the native
    machine, and its backward program is the backward algorithm. To be run in fp64: exponentials are summed.
    """

    forbidden: Tensor

    def __init__(self, tags: int) -> None:
        super().__init__(tags, tags)
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.register_buffer("forbidden", torch.zeros(tags, tags), persistent=False)

    def step(self, x: Tensor, a: Tensor) -> Tensor:
        m = a.amax(-1, keepdim=True)
        return x + m + torch.log(torch.exp(a - m) @ torch.exp(self.transitions + self.forbidden) + _FLOOR)


class TagModel(nn.Module, ABC):
    """How the tags of a sentence hang together.

    allowed (K + 1, K + 1): which may follow which, the last row and column for the ends. None: every one every other.
    """

    def __init__(self, tags: int, allowed: NDArray[np.bool_] | None) -> None:
        super().__init__()
        self.tags = tags
        free = np.ones((tags + 1, tags + 1), np.bool_) if allowed is None else allowed
        self.constrained = not free.all()
        self._forbidden = np.where(free, 0.0, -np.inf).astype(np.float32)

    @abstractmethod
    def loss(self, e: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """-ln p of the tags (T, B) of each sentence, (B,)."""

    @abstractmethod
    def marginals(self, e: Tensor, lengths: Tensor) -> Tensor:
        """p of each tag at each word, (T, B, K); of no meaning past a length."""

    @abstractmethod
    def decode(self, e: Tensor, lengths: Tensor) -> Ints:
        """The likeliest tags (T, B) of what is allowed; of no meaning past a length."""


class LinearChain(TagModel):
    """A conditional random field: scores of tags that follow one another are learned, and all paths share one Z."""

    def __init__(self, tags: int, allowed: NDArray[np.bool_] | None = None) -> None:
        super().__init__(tags, allowed)
        self.first = nn.Parameter(torch.zeros(tags))
        self.last = nn.Parameter(torch.zeros(tags))
        self.forward_algorithm = Recurrent(ForwardAlgorithm(tags), precision="fp64")
        soft = torch.from_numpy(np.maximum(self._forbidden, _FORBIDDEN))
        self.register_buffer("_ends", torch.stack([soft[-1, :-1], soft[:-1, -1]]), persistent=False)
        self._cell.forbidden.copy_(soft[:-1, :-1])

    @property
    def _cell(self) -> ForwardAlgorithm:
        cell = self.forward_algorithm.cell
        assert isinstance(cell, ForwardAlgorithm)
        return cell

    def _boundaries(self) -> tuple[Tensor, Tensor]:
        """a and b, with what may not begin or end a sentence."""
        ends = self.get_buffer("_ends")
        return self.first + ends[0], self.last + ends[1]

    def log_partition(self, e: Tensor, lengths: Tensor) -> Tensor:
        """ln Z of each sentence, (B,)."""
        first, last = self._boundaries()
        a = e[0] + first
        if len(e) > 1:
            _, a = self.forward_algorithm(e[1:], a, lengths=lengths - 1)
        return torch.logsumexp(a + last, -1)

    def score(self, e: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """s(y) of the tags (T, B) of each sentence, (B,)."""
        first, last = self._boundaries()
        cell = self._cell
        inside = torch.arange(len(e))[:, None] < lengths
        steps = e.gather(2, tags[..., None])[..., 0]
        steps = steps + F.pad((cell.transitions + cell.forbidden)[tags[:-1], tags[1:]], (0, 0, 1, 0))
        ends = tags.gather(0, (lengths - 1)[None])[0]
        return (steps * inside).sum(0) + first[tags[0]] + last[ends]

    def loss(self, e: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        return self.log_partition(e, lengths) - self.score(e, tags, lengths)

    def marginals(self, e: Tensor, lengths: Tensor) -> Tensor:
        """The gradient of ln Z."""
        with torch.enable_grad():
            e = e.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.log_partition(e, lengths).sum(), e)
        return found

    def decode(self, e: Tensor, lengths: Tensor) -> Ints:
        forbidden, cell = self._forbidden, self._cell
        return viterbi(
            e.detach().numpy(), lengths.numpy(), self.first.detach().numpy() + forbidden[-1, :-1],
            cell.transitions.detach().numpy() + forbidden[:-1, :-1], self.last.detach().numpy() + forbidden[:-1, -1],
        )  # fmt: skip


class Independent(TagModel):
    """p(y | e) = Π_t softmax(e_t)[y_t]: each tag by itself; the best path keeps to what is allowed all the same."""

    def loss(self, e: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        inside = torch.arange(len(e))[:, None] < lengths
        return (F.cross_entropy(e.transpose(1, 2), tags, reduction="none") * inside).sum(0)

    def marginals(self, e: Tensor, lengths: Tensor) -> Tensor:
        return e.softmax(-1)

    def decode(self, e: Tensor, lengths: Tensor) -> Ints:
        if not self.constrained:
            return e.argmax(-1).numpy()
        forbidden = self._forbidden
        return viterbi(e.detach().numpy(), lengths.numpy(), forbidden[-1, :-1], forbidden[:-1, :-1], forbidden[:-1, -1])


def viterbi(e: Floats, lengths: Ints, first: Floats, transitions: Floats, last: Floats) -> Ints:
    """argmax_y s(y): tags (T, B), of no meaning past a length; of equal paths the one of the lower numbers.

    Forney 1973, Proceedings of the IEEE 61. Only the best scores are kept on the way; who gave them is asked again
    along the one path that counts.
    """
    T, B, K = e.shape
    best = np.empty((T, B, K), e.dtype)
    np.add(e[0], first, out=best[0])
    sums = np.empty((B, K, K), e.dtype)
    for t in range(1, T):
        np.add(best[t - 1, :, :, None], transitions, out=sums)
        np.maximum.reduce(sums, axis=1, out=best[t])
        best[t] += e[t]
    tags = np.empty((T, B), np.int64)
    into = np.ascontiguousarray(transitions.T)
    tags[T - 1] = (best[T - 1] + last).argmax(1)
    for t in range(T - 2, -1, -1):
        tags[t] = (best[t] + np.where((lengths == t + 1)[:, None], last, into[tags[t + 1]])).argmax(1)
    return tags

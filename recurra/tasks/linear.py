"""The models a classifier has to beat: the most frequent label, and a linear model on character n-grams."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_ORDERS = (1, 2, 3)
_LEAST = 2  # texts an n-gram must be in
_DECAY = 1.0  # λ in the loss below; the default of the usual packages
_STEPS = 50  # of L-BFGS

Codes = NDArray[np.uint64]


def majority(labels: Sequence[str]) -> str:
    """The most frequent label; of equally frequent ones the first in order."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


class LinearModel:
    """Logistic regression on the character n-grams of a text, n = 1, 2, 3, weighted by tf-idf.

        p(k | text) = softmax(W x + b)_k,   x_g = idf(g) / norm for each n-gram g that the text has,
        W, b = argmin  -Σ ln p(label | text) + λ/2 |W|²,   λ = 1,   by L-BFGS from zero.

    Where a text may have several labels each is a logistic regression of its own, with σ in place of softmax, and is
    given from 1/2 on. No random numbers: the same texts give the same model. n-grams of one text only are left out.
    """

    def __init__(self, texts: Sequence[str], sets: Sequence[Sequence[str]]) -> None:
        """sets: the labels of every text, a tuple each."""
        self.labels = sorted({label for labels in sets for label in labels})
        rows, codes = _grams(texts)
        self._codes, counts = np.unique(codes, return_counts=True)
        kept = counts >= _LEAST
        self._codes = self._codes[kept]
        self._idf = torch.from_numpy(np.log((1 + len(texts)) / (1 + counts[kept])) + 1).float()
        numbers = {label: number for number, label in enumerate(self.labels)}
        if all(len(labels) == 1 for labels in sets):
            targets = torch.tensor([numbers[label] for (label,) in sets])
        else:
            targets = torch.zeros(len(texts), len(self.labels))
            for row, labels in enumerate(sets):
                targets[row, [numbers[label] for label in labels]] = 1
        self._weights, self._bias = self._fit(rows, codes, len(texts), targets)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""
        return [self.labels[n] for n in self._of(texts).argmax(1).tolist()]

    def predict_several(self, texts: Sequence[str]) -> list[list[str]]:
        """The labels of each text that are likelier than not."""
        return [[self.labels[n] for n in row.nonzero()[:, 0].tolist()] for row in self._of(texts) > 0]

    def _of(self, texts: Sequence[str]) -> Tensor:
        return self._scores(*self._features(*_grams(texts), len(texts)), self._weights, self._bias)

    def _fit(self, rows: NDArray[np.int64], codes: Codes, count: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self._features(rows, codes, count)
        weights = torch.zeros(len(self._codes), len(self.labels), requires_grad=True)
        bias = torch.zeros(len(self.labels), requires_grad=True)
        solver = torch.optim.LBFGS([weights, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            scores = self._scores(*x, weights, bias)
            if targets.ndim == 1:
                loss = F.cross_entropy(scores, targets, reduction="sum")
            else:
                loss = F.binary_cross_entropy_with_logits(scores, targets, reduction="sum")
            loss = loss + _DECAY / 2 * weights.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(closure)  # type: ignore[no-untyped-call]
        return weights.detach(), bias.detach()

    def _features(self, rows: NDArray[np.int64], codes: Codes, count: int) -> tuple[Tensor, Tensor]:
        """x as a sparse matrix (N, V), and its transpose; a text without any known n-gram is a row of zeros."""
        place = np.minimum(np.searchsorted(self._codes, codes), max(0, len(self._codes) - 1))
        known = self._codes[place] == codes if len(self._codes) else np.zeros(len(codes), bool)
        row, column = torch.from_numpy(rows[known]), torch.from_numpy(place[known])
        values = self._idf[column]
        norms = torch.zeros(count).index_add(0, row, values.square()).sqrt().clamp(min=1e-12)
        shape = (count, len(self._codes))
        places = torch.stack([row, column])
        x = torch.sparse_coo_tensor(places, values / norms[row], shape, check_invariants=False).coalesce()
        return x, x.t().coalesce()

    def _scores(self, x: Tensor, transposed: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        scores: Tensor = _Product.apply(x, transposed, weights) + bias  # type: ignore[no-untyped-call]
        return scores


class _Product(torch.autograd.Function):
    """x w for a sparse x, with its transpose at hand: PyTorch's own backward pass makes a dense one."""

    @staticmethod
    def forward(ctx, x, transposed, weights):  # type: ignore[no-untyped-def]
        ctx.transposed = transposed
        return torch.sparse.mm(x, weights)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return None, None, torch.sparse.mm(ctx.transposed, gradient)


def _grams(texts: Sequence[str]) -> tuple[NDArray[np.int64], Codes]:
    """The n-grams of texts, each once a text: numbers of the texts, and the n-grams as numbers, 21 bits a character."""
    points = [np.frombuffer(f" {text.casefold()} ".encode("utf-32-le", "surrogatepass"), np.uint32) for text in texts]
    rows: list[NDArray[np.int64]] = []
    codes: list[Codes] = []
    for number, each in enumerate(points):
        wide = each.astype(np.uint64) + np.uint64(1)
        found = [_joined(wide, order) for order in _ORDERS if len(wide) >= order]
        unique = np.unique(np.concatenate(found))
        rows.append(np.full(len(unique), number, np.int64))
        codes.append(unique)
    return np.concatenate(rows), np.concatenate(codes)


def _joined(points: Codes, order: int) -> Codes:
    joined = np.zeros(len(points) - order + 1, np.uint64)
    for n in range(order):
        joined = (joined << np.uint64(21)) | points[n : len(points) - order + 1 + n]
    return joined

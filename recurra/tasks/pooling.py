"""Pooling: the vectors of a sequence become one."""

import torch
from torch import Tensor, nn

from recurra.tasks.encoder import within

POOLINGS = ("last", "mean", "max", "attention")


class Pooling(nn.Module):
    """y (T, B, width), lengths (B,) from 1 to T -> (B, width); what stands past a length does not matter.

    last: the last step; of two directions each one's own last. mean, max: over the steps.
    attention: Σ_t a_t y_t, a = softmax_t(v · tanh(W y_t + b)). Yang et al. 2016, NAACL.
    """

    def __init__(self, kind: str, width: int, directions: int) -> None:
        super().__init__()
        self.kind, self.directions = kind, directions
        self.project = nn.Linear(width, width) if kind == "attention" else None
        self.score = nn.Linear(width, 1, bias=False) if kind == "attention" else None

    def forward(self, y: Tensor, lengths: Tensor) -> Tensor:
        inside = within(lengths, y)
        if self.kind == "mean":
            return y.masked_fill(~inside, 0).sum(0) / lengths[:, None]
        if self.kind == "max":
            return y.masked_fill(~inside, -torch.inf).amax(0)
        if self.kind == "attention":
            assert self.project is not None and self.score is not None
            scores = self.score(torch.tanh(self.project(y))).masked_fill(~inside, -torch.inf)
            pooled: Tensor = (scores.softmax(0) * y.masked_fill(~inside, 0)).sum(0)
            return pooled
        last = y[lengths - 1, torch.arange(len(lengths))]
        if self.directions == 1:
            return last
        half = y.shape[-1] // 2
        return torch.cat([last[:, :half], y[0, :, half:]], -1)

    def extra_repr(self) -> str:
        return self.kind

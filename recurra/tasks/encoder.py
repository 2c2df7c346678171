"""What all encoders are: vectors of symbols in, vectors that know of their neighbours out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.errors import InputError
from recurra.unroll.precision import checked

ActivationName = Literal["relu", "leaky_relu", "tanh"]
NormalisationName = Literal["none", "batch"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,  # 0.01 x below zero; Maas et al. 2013
    "tanh": torch.tanh,
}


class Encoder(nn.Module, ABC):
    """y, lengths = encoder(x, lengths): x (T, B, D), lengths (B,) from 1 to T -> y (T', B, width), lengths (B,).

    What stands past a length in x never changes y within it; what stands past a length in y means nothing.
    """

    width: int
    aligned: bool = True  # whether y_t belongs to x_t: T' = T, and the lengths are those of x

    @abstractmethod
    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]: ...

    @property
    def precision(self) -> str:
        """What its recurrent layers compute in."""
        return "fp32"

    def compute_in(self, precision: str) -> None:
        """What its recurrent layers compute in from now on. Raises InputError where it has none."""
        if checked(precision) != "fp32":
            raise InputError(
                f"precision={precision!r} is one of recurrent layers, and this model has none; leave it out."
            )


class BatchNorm(nn.BatchNorm1d):
    """ŷ = γ (y - μ) / √(σ² + ε) + β, with μ and σ² of the steps within their lengths: padding is no data.

    Ioffe & Szegedy 2015, arXiv:1502.03167. y (T, B, D), inside (T, B, 1). In use μ and σ² are running means of
    training; so they are in training for a batch of one step, which has no variance.
    """

    def forward(self, y: Tensor, inside: Tensor | None = None) -> Tensor:
        assert inside is not None
        within = inside[..., 0]
        rows = y[within]
        if len(rows) > 1 or not self.training:
            normal = super().forward(rows)
        else:
            assert self.running_mean is not None and self.running_var is not None
            normal = F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return torch.zeros_like(y).masked_scatter(inside, normal)


def normaliser(kind: str, width: int) -> BatchNorm | None:
    """The normalisation of that name; None for none."""
    return BatchNorm(width) if kind == "batch" else None


def within(lengths: Tensor, x: Tensor) -> Tensor:
    """True at the steps of x (T, B, D) within their lengths (B,): (T, B, 1)."""
    return (torch.arange(x.shape[0])[:, None] < lengths)[..., None]

"""The table of precisions that every law of them walks: how far from fp64, as a share of the largest number."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from recurra.machine.precision import DTYPES, NAMES, lacking


@dataclass(frozen=True)
class Precision:
    """output: of outputs and last states; gradient: of every gradient, None where there are none."""

    name: str
    output: float
    gradient: float | None

    def __str__(self) -> str:
        return self.name

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and weights and x are in the tests."""
        return DTYPES[self.name]


PRECISIONS = [
    Precision("fp32", 1e-5, 1e-5),
    Precision("fp64", 1e-12, 1e-12),
    Precision("fp32-fast", 2e-5, 1e-4),
    Precision("bf16", 1e-2, 1e-2),
    Precision("int8", 5e-2, None),
]
BY_NAME = {p.name: p for p in PRECISIONS}
assert tuple(BY_NAME) == NAMES


def _had(precision: Precision) -> object:
    missing = lacking(precision.name)
    return pytest.param(precision, id=precision.name, marks=pytest.mark.skipif(bool(missing), reason=missing))


over_precisions = pytest.mark.parametrize("precision", [_had(p) for p in PRECISIONS])
over_narrow = pytest.mark.parametrize("precision", [_had(p) for p in PRECISIONS if p.name not in ("fp32", "fp64")])
over_graded = pytest.mark.parametrize("precision", [_had(p) for p in PRECISIONS if p.gradient])


def off(ours: Tensor, truth: Tensor) -> float:
    """The largest difference as a share of the largest number."""
    assert ours.shape == truth.shape and bool(ours.isfinite().all())
    if not truth.numel():
        return 0.0
    return float((ours.detach().double() - truth.detach()).abs().max()) / max(float(truth.detach().abs().max()), 1e-4)

"""The table of precisions that every law of them walks: how far from fp64, as a share of the largest number."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recurra import Recurrent, cells
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


def named(layer: nn.Module, name: str | None) -> nn.Module:
    """The layer, with all inside, in a precision."""
    for module in layer.modules():
        if isinstance(module, (Recurrent, nn.RNNBase)):
            module.precision = name  # type: ignore[assignment]
    return layer


class Looking(cells.Elman):
    """A step that only Python can run."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return super().step(x, h) if float(h.detach().sum()) < 100 else h


def fused(layer: nn.Module) -> Any:
    return torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")

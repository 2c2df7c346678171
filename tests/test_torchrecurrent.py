"""Ten cells of the package torchrecurrent, written as equations: outputs, last states and all gradients are its own."""

import pytest
import torch
from torch import Tensor

import recurra
from benchmarks.equations import PUBLISHED, Published

pytest.importorskip("torchrecurrent", reason="the package torchrecurrent is not installed: pip install recurra[dev]")


@pytest.mark.parametrize("published", PUBLISHED, ids=str)
@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("first", [False, True], ids=["from zero", "from given states"])
def test_it_is_that_of_the_package(published: Published, dtype: torch.dtype, exact: float, first: bool) -> None:
    theirs, ours = (layer.to(dtype) for layer in published.pair(5, 7))
    x = torch.randn(11, 3, 5, dtype=dtype, requires_grad=True)
    sizes = ours.cell.state_sizes
    states = [torch.randn(3, n, dtype=dtype, requires_grad=True) for n in sizes.values()] if first else []
    stacked = [s[None] for s in states]
    with recurra.strict():
        y, last = ours(x, tuple(states) or None)
    y_theirs, last_theirs = theirs(x, None if not first else stacked[0] if len(sizes) == 1 else tuple(stacked))
    found = [y, *((last,) if isinstance(last, Tensor) else last)]
    wanted = [y_theirs, *(s[0] for s in ((last_theirs,) if isinstance(last_theirs, Tensor) else last_theirs))]
    leaves = [[x, *states, *published.weights(layer).values()] for layer in (ours, theirs)]
    names = list(published.weights(ours))
    assert sorted(names) == sorted(published.weights(theirs))
    by_name = published.weights(theirs)
    leaves[1] = [x, *states, *(by_name[name] for name in names)]
    gradients = [
        torch.autograd.grad(sum((t * t).sum() for t in rows), of)
        for rows, of in zip((found, wanted), leaves, strict=True)
    ]
    for a, b in zip([*found, *gradients[0]], [*wanted, *gradients[1]], strict=True):
        assert (a - b).abs().max() <= exact * b.abs().max()


def test_ten_different_ones() -> None:
    assert len({p.name for p in PUBLISHED}) == len({p.cell for p in PUBLISHED}) == 10

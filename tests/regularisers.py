"""Cells with regularisers around them: what the tests of regularisers share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from examples import Learned, Peephole
from recurra import Cell, RecurrentDropout, VariationalDropout, WeightDrop, Zoneout, cells

T, B, D, H = 7, 4, 3, 5
Maker = Callable[[], Cell]
MAKERS: dict[str, Maker] = {
    "zoneout": lambda: Zoneout(cells.LSTM(D, H), h=0.3, c=0.5),
    "variational": lambda: VariationalDropout(Peephole(D, H), x=0.3, h=0.4),
    "recurrent": lambda: RecurrentDropout(cells.GRU(D, H), n=0.5),
    "weights": lambda: WeightDrop(Peephole(D, H), **{"wh.weight": 0.5, "peep": 0.2}),
    "one in the other": lambda: Zoneout(VariationalDropout(RecurrentDropout(cells.LSTM(D, H), g=0.4), h=0.2), c=0.3),
    "in another order": lambda: RecurrentDropout(WeightDrop(Zoneout(cells.LSTM(D, H), h=0.3), weight_hh=0.3), g=0.4),
    "twice": lambda: Zoneout(WeightDrop(Zoneout(WeightDrop(Learned(D, H), u=0.3), h=0.2), u=0.5), h=0.4),
    "recurrent twice": lambda: RecurrentDropout(RecurrentDropout(cells.LSTM(D, H), g=0.4), i=0.4),
}
over_all = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
strictly = pytest.mark.usefixtures("strict")


def seeded(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(3)
    return call(*args, **kwargs)


def made(make: Maker, dtype: torch.dtype = torch.double) -> tuple[Cell, Tensor]:
    return make().to(dtype), torch.randn(T, B, D, dtype=dtype)


def same(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def equal(a: tuple[Tensor, tuple[Tensor, ...]], b: tuple[Tensor, tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(s, t) for s, t in zip((a[0], *a[1]), (b[0], *b[1]), strict=True))

"""Variational dropout: one mask a sequence, of what goes into a step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recurra.cell.wrapper import InnerStep, States
from recurra.machine.masks import places, row_seeds
from recurra.regularise.base import Regulariser


class VariationalDropout(Regulariser):
    """step(m_x ∘ x_t, m_s ∘ s_{t-1}),   m ~ Bernoulli(1 - rate) / (1 - rate), the same at every t of a sequence.

    Rates by the names of `step`: x, and the states. In eval it is the inner cell.

        VariationalDropout(recurra.cells.LSTM(128, 256), x=0.3, h=0.2)

    Gal and Ghahramani 2016, arXiv:1512.05287. Deviations: all gates read the same masked x and h (the paper's tied
    weights); a call draws the mask, so sequences that go on in a further call get another one.
    """

    label, what = "dropout", "argument"

    def widths(self) -> Mapping[str, int]:
        """x and the states."""
        return {"x": self.input_size, **self.state_sizes}

    def mask(self, key: Tensor, stream: int, x: Tensor, first: int, name: str) -> Tensor:
        T, B, _ = x.shape
        b = places(B, x.device)
        return self.rows(row_seeds(key, stream, torch.zeros_like(b), b), x, name).expand(T, -1, -1)

    def around(self, step: InnerStep, x: Tensor, sides: tuple[Tensor, ...], states: States) -> tuple[Tensor, States]:
        masks = self.by_name(sides)
        given = dict(zip(("x", *self.state_names), (x, *states), strict=True))
        x, *rest = (masks[k] * v if k in masks else v for k, v in given.items())
        return step(x, tuple(rest))

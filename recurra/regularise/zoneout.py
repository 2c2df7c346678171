"""Zoneout: units that keep their state for a step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recurra.cell.wrapper import InnerStep, States, changed
from recurra.regularise.base import Named, Regulariser


class Zoneout(Regulariser):
    """s_t = d_t ∘ s_{t-1} + (1 - d_t) ∘ s̃_t,   d_t ~ Bernoulli(rate) for each state s, anew at every t.

    s̃_t is what the inner step gives. In eval the expectation: s_t = rate s_{t-1} + (1 - rate) s̃_t.

        Zoneout(recurra.cells.LSTM(128, 256), h=0.05, c=0.5)

    Krueger et al. 2017, arXiv:1606.01305; as there, the h̃_t of an LSTM is made from c̃_t. An output that is the first
    state is zoned out with it; an output that is no state is not.
    """

    label, what, dropped = "zoneout", "state", 1.0

    def widths(self) -> Mapping[str, int]:
        """The states."""
        return self.state_sizes

    def kept(self, rate: float) -> float:
        """0, because the mask chooses and does not scale."""
        return 0.0

    def around(self, step: InnerStep, x: Tensor, sides: tuple[Tensor, ...], states: States) -> tuple[Tensor, States]:
        y, nexts = step(x, states)
        masks = self.by_name(sides)
        new = tuple(self._zoned(k, s, n, masks) for k, s, n in zip(self.state_names, states, nexts, strict=True))
        return changed(y, nexts, new)

    def _zoned(self, name: str, before: Tensor, after: Tensor, masks: Named) -> Tensor:
        rate = self.rates.get(name, 0.0)
        if not rate:
            return after
        return torch.where(masks[name] != 0, before, after) if self.training else rate * before + (1 - rate) * after

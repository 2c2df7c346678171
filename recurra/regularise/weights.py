"""Weight drop: of single weights, once a call."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recurra.cell import Wrapper, innermost
from recurra.cell.wrapper import InnerStep, States
from recurra.machine.masks import row_seeds
from recurra.regularise.base import Regulariser


class WeightDrop(Regulariser):
    """W becomes m ∘ W,   m ~ Bernoulli(1 - rate) / (1 - rate), each weight by itself, once a call.

    Rates by the names of the cell's parameters. In eval it is the inner cell.

        WeightDrop(recurra.cells.LSTM(128, 256), weight_hh=0.5)
        WeightDrop(mine, **{"wh.weight": 0.5})                         # a parameter of a submodule

    Merity, Keskar and Socher 2018, arXiv:1708.02182, for the recurrent matrices of an LSTM: the DropConnect of Wan et
    al. 2013 (ICML 28), with the scale of inverted dropout.
    """

    label, what = "weight", "parameter"

    def widths(self) -> Mapping[str, int]:
        """The parameters, those of other wrappers apart."""
        found = innermost(self).named_parameters(remove_duplicate=False)
        return {name: p.shape[-1] if p.dim() else 1 for name, p in found}

    def own_sizes(self) -> Mapping[str, int]:
        """None: no mask is one of rows."""
        return {}

    def own_sides(self, x: Tensor) -> tuple[Tensor, ...]:
        """None."""
        return ()

    def around(self, step: InnerStep, x: Tensor, sides: tuple[Tensor, ...], states: States) -> tuple[Tensor, States]:
        return step(x, states)

    def call_weights(self) -> Mapping[str, Tensor]:
        """The weights of a call: those of which some are dropped, and those that the inner cell draws."""
        weights = dict(super().call_weights())
        names = self._active()
        if names:
            key, stream, path = self.new_key(), [*self.rates].index, self._path()
            now = {**dict(self.named_parameters(remove_duplicate=False)), **weights}
            weights |= {path + k: self._dropped(key, stream(k), k, now[path + k]) for k in names}
        return weights

    def _dropped(self, key: Tensor, stream: int, name: str, weight: Tensor) -> Tensor:
        b = torch.arange(weight.numel() // self._widths[name], device=weight.device)
        return weight * self.rows(row_seeds(key, stream, torch.zeros_like(b), b), weight, name).view_as(weight)

    def _path(self) -> str:
        """Where the innermost cell is: "inner." for each wrapper around it."""
        path, cell = "inner.", self.inner
        while isinstance(cell, Wrapper):
            path, cell = path + "inner.", cell.inner
        return path

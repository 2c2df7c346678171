"""What the regularisers have in common: rates by name, and the masks of a call."""

from collections.abc import Mapping, Sequence
from typing import Never

import torch
from torch import Tensor

from recurra.cell import Cell, Wrapper, innermost
from recurra.errors import InputError
from recurra.machine import masks

Named = Mapping[str, Tensor]


class Regulariser(Wrapper):
    """A cell that reads masks beside x in training and none in eval. Abstract.

    Every call draws a key from PyTorch's default generator. A mask is a function of the key, the name it is for, the
    step t, the sequence b and the unit, and of nothing else.

    Raises InputError for a rate without a name, for a name that the cell does not have and for a rate not in [0, 1).
    """

    label: str  # the mask of h is called label_h
    what: str  # that has a rate, for messages
    dropped = 0.0  # what a mask is where it drops

    def __init__(self, cell: Cell, /, *unnamed: Never, **rates: float) -> None:
        super().__init__(cell)
        widths = self.widths()
        self._check(unnamed, rates, widths)
        self.rates = rates
        self._widths = {name: widths[name] for name in rates}

    def widths(self) -> Mapping[str, int]:
        """What can have a rate, by name, and how wide it is."""
        raise NotImplementedError

    def kept(self, rate: float) -> float:
        """What a mask is where it does not drop: what is multiplied by it keeps its expectation."""
        return 1 / (1 - rate)

    def own_sizes(self) -> Mapping[str, int]:
        """One side for each name with a rate, in training."""
        return {f"{self.label}_{name}": self._widths[name] for name in self._active()}

    def own_sides(self, x: Tensor) -> tuple[Tensor, ...]:
        """The masks of a call, drawn anew."""
        return self.masks(self.new_key(), x) if self._active() else ()

    def new_key(self) -> Tensor:
        """A key for the masks of one call, drawn from PyTorch's default generator."""
        return masks.new_key()

    def masks(self, key: Tensor, x: Tensor, first: int = 0) -> tuple[Tensor, ...]:
        """The masks (T, B, n) of this key for x (T, B, D), a piece of sequences that begins at their step `first`."""
        stream = [*self.rates].index
        return tuple(self.mask(key, stream(name), x, first, name) for name in self._active())

    def mask(self, key: Tensor, stream: int, x: Tensor, first: int, name: str) -> Tensor:
        """One of them. A subclass may draw fewer numbers."""
        T, B, _ = x.shape
        t = torch.arange(first, first + T, device=x.device)[:, None]
        return self.rows(masks.row_seeds(key, stream, t, masks.places(B, x.device)), x, name)

    def rows(self, seeds: Tensor, like: Tensor, name: str) -> Tensor:
        """The rows of the mask with these seeds, of the dtype of `like`."""
        rate = self.rates[name]
        return masks.masks(seeds, self._widths[name], rate, self.dropped, self.kept(rate), like.dtype)

    def by_name(self, sides: tuple[Tensor, ...]) -> Named:
        """The masks of one step by what they are for."""
        return dict(zip(self._active(), sides, strict=True))

    def _active(self) -> list[str]:
        return [name for name, rate in self.rates.items() if rate] if self.training else []

    def _check(self, unnamed: Sequence[object], rates: Mapping[str, object], names: Mapping[str, int]) -> None:
        own, inner, known = type(self).__name__, type(innermost(self)).__name__, ", ".join(names)
        if unnamed:
            remedy = f"Give it by name, as in {next(iter(names), self.label)}={unnamed[0]!r}"
            raise InputError(
                f"{own} got {unnamed[0]!r} without a name. {remedy}: {inner} has the {self.what}s {known}."
            )
        if not rates:
            remedy = f"Give one by name, as in {next(iter(names), self.label)}=0.1"
            raise InputError(f"{own} got no rate. {remedy}: {inner} has the {self.what}s {known}.")
        for name, rate in rates.items():
            if name not in names:
                raise InputError(f"{own} got {name}={rate!r}, but {inner} has no {self.what} {name}. It has {known}.")
            if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate < 1:
                raise InputError(f"{own} got {name}={rate!r}. A rate is a number of at least 0 and less than 1.")

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={rate:g}" for name, rate in self.rates.items())

"""What a call is asked to show beside its output and the gradients of its states, and what it showed."""

from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor

from recurra.passes import ZERO


class Recording:
    """Names of variables of a step, with their shapes less the batch; after the call, what they held.

    tapped   whether the gradients of the states are wanted too
    seen     (T, B, width), or (N, width) of packed rows: the names side by side, zero past each length
    taps     when tapped, one a state, (T, B, n) or (N, n): after the backward pass, `.grad` is dL/ds_t for every t
    mask     (T, B): the rows (N, n), where packed rows ran as padded ones and the taps are (T, B, n); else None
    reverse  whether the call ran from the last step to the first; lengths: those of a padded call that has some
    """

    seen: Tensor
    taps: tuple[Tensor, ...] = ()
    mask: Tensor | None = None
    reverse = False
    lengths: Tensor | None = None
    dtype: torch.dtype | None = None  # of the call's x, where the call ran in another

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], tapped: bool = False) -> None:
        self.shapes, self.tapped = dict(shapes), tapped
        self.names = tuple(shapes)
        self.width = sum(prod(shape) for shape in shapes.values())

    def tap(self, sizes: Iterable[int], x: Tensor, lengths: Tensor | None, reverse: bool) -> None:
        """Makes the taps of a call over x (T, B, D) or (N, D), for states of these widths."""
        self.lengths, self.reverse = lengths, reverse
        if self.tapped:
            self.taps = tuple(x.new_full((*x.shape[:-1], n), ZERO, requires_grad=True) for n in sizes)

    def split(self, whole: Tensor) -> Tensor:
        """The output, of an output that has what is recorded to the right of it."""
        m = whole.shape[-1] - self.width  # nothing but gradients may be wanted
        self.seen = whole[..., m:]
        return whole[..., :m].contiguous() if self.width else whole

    def cast(self, dtype: torch.dtype) -> None:
        """What was recorded, and the gradients to come, in a dtype."""
        self.seen, self.dtype = self.seen.to(dtype), dtype

    @property
    def arrived(self) -> bool:
        """Whether a backward pass has brought gradients, or there are no steps that could have any."""
        return any(t.grad is not None or not t.numel() for t in self.taps)

    def gradients(self) -> tuple[Tensor, ...]:
        """dL/ds for each state, (T, B, n) or (N, n); zeros where none has come."""
        whole = [torch.zeros_like(t) if t.grad is None else t.grad.detach() for t in self.taps]
        whole = whole if self.dtype is None else [d.to(self.dtype) for d in whole]
        return tuple(d if self.mask is None else d[self.mask] for d in whole)

    def rows(self) -> dict[str, Tensor]:
        """(T, B, ...) by name, or (N, ...)."""
        ends = accumulate(map(prod, self.shapes.values()), initial=0)
        return {
            name: self.seen[..., lo:hi].reshape(*self.seen.shape[:-1], *shape)
            for (name, shape), (lo, hi) in zip(self.shapes.items(), pairwise(ends), strict=True)
        }

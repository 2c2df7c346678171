"""Resets: sequences that begin in the middle of a row."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recurra.cell.arguments import check_states
from recurra.cell.base import Cell
from recurra.cell.wrapper import InnerStep, States, Wrapper
from recurra.errors import InputError


class Resets(Wrapper):
    """s_{t-1} becomes s_0 where r_t > 0, then the inner step: s_0 the cell's initial states, r_t (B, 1) a side.

    Chosen, not multiplied: what is not finite before a reset stays there, and no gradient crosses it.
    """

    @property
    def full_name(self) -> str:
        """That of the cell inside: resets are an argument, not a cell that anybody wrote."""
        return self.inner.full_name

    def own_sizes(self) -> Mapping[str, int]:
        return {"reset": 1}

    def own_sides(self, x: Tensor) -> States:
        return (x.new_zeros(()).expand(*x.shape[:2], 1),)

    def around(self, step: InnerStep, x: Tensor, sides: States, states: States) -> tuple[Tensor, States]:
        anew = sides[0] > 0
        if self.inner.starts_at_zero:
            return step(x, tuple(torch.where(anew, torch.zeros_like(s), s) for s in states))
        made = self.inner.initial(len(x))  # called here by name: the trace holds as long as what it reads does
        first = check_states(self.full_name, self.state_sizes, made, len(x), origin="initial(batch)")
        return step(x, tuple(torch.where(anew, f, s) for f, s in zip(first, states, strict=True)))


def resetting(cell: Cell) -> Resets:
    """The cell with resets: made once and kept with the cell, so that its trace is kept too."""
    known = cell._wrappers.get(Resets)
    if not isinstance(known, Resets) or known.inner is not cell:  # a shallow copy has the wrapper of another cell
        known = cell._wrappers[Resets] = Resets(cell)
    return known


def reset_side(resets: Tensor, x: Tensor, reverse: bool) -> Tensor:
    """resets (T, B) as the side of a run over x: (T, B, 1), above zero where the state begins anew before a step.

    A reversed run comes to a sequence's last step first: there the step after it, in time, begins another sequence.
    Raises InputError for marks without memory beside an x that has it.
    """
    if resets.is_meta and not x.is_meta:
        raise InputError("resets is on the meta device and has no marks, but x has numbers. Make resets where x is.")
    if reverse:
        resets = torch.cat([resets[1:], torch.zeros_like(resets[:1])])
    return resets.to(x.device, x.dtype).unsqueeze(-1)

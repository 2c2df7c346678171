"""Layer: what Stack, Bidirectional and Residual compose, and what they hold on to of a sequence's layout."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.cell import check_lengths, check_resets
from recurra.errors import InputError

Sequences = Tensor | PackedSequence
Lengths = Tensor | Sequence[int] | None


class Layer(torch.nn.Module):
    """A module with `forward(x, state=None, lengths=None, reverse=False, resets=None) -> (y, state)`.

    x: (T, B, D), (B, T, D) with batch_first, (T, D) for one sequence, or a PackedSequence; y has the same layout.
    state: None, or what an earlier call returned. Its form is the layer's own.
    lengths: None, or (B,) whole numbers from 0 to T, in any order. Past its length a row's y is 0 and its state stays.
    reverse: each row runs from its last valid step to its first; outputs stay beside their inputs.
    resets: None, or truth values (T, B), (B, T) with batch_first, (T,) for one sequence: a new sequence begins at this
    step of the row, and nothing passes from one sequence to the other, in either direction.
    """

    batch_first: bool = False


def common_layout(owner: str, layers: Iterable[object]) -> bool:
    """The batch_first that all `layers` share. Raises InputError when they differ, or when one is no Layer."""
    layouts = set()
    for layer in layers:
        if not isinstance(layer, Layer):
            name = type(layer).__name__
            remedy = f"Use recurra.{name}" if isinstance(layer, torch.nn.RNNBase) else "Put a cell into Recurrent"
            raise InputError(f"{owner} composes Recurra's layers, and {name} is none. {remedy}.")
        layouts.add(layer.batch_first)
    if len(layouts) > 1:
        raise InputError(f"{owner} got layers with batch_first=True and with batch_first=False. Make them all alike.")
    return layouts.pop()


def map_rows(function: Callable[..., Tensor], *sequences: Sequences) -> Any:
    """`function` of the rows of sequences of one layout, in that layout."""
    first = sequences[0]
    if isinstance(first, PackedSequence):
        return first._replace(data=function(*(s.data for s in sequences)))
    return function(*sequences)


def packed_resets(resets: Tensor, x: PackedSequence, batch_first: bool) -> Tensor:
    """The marks of a PackedSequence's padded layout, checked, as (T, B) by falling length."""
    T, B = len(x.batch_sizes), int(x.batch_sizes[0])
    lengths = (torch.arange(B) < x.batch_sizes[:, None]).sum(0)
    if x.unsorted_indices is not None:
        lengths = lengths[x.unsorted_indices.cpu()]
    marks = check_resets(resets, T, B, lengths, "B, T" if batch_first else "T, B")
    return marks if x.sorted_indices is None else marks.index_select(1, x.sorted_indices.to(marks.device))


def within(lengths: Tensor | Sequence[int], y: Tensor, batch_first: bool) -> Tensor:
    """True where a row of y is within its length: (T, B, 1), (B, T, 1) with batch_first, (T, 1) for one sequence."""
    T, B = (y.shape[0], 1) if y.dim() == 2 else (y.shape[1], y.shape[0]) if batch_first else y.shape[:2]
    mask = torch.arange(T)[:, None] < check_lengths(torch.as_tensor(lengths).reshape(-1), T, B)
    if y.dim() == 3:
        mask = (mask.t() if batch_first else mask)[..., None]
    return mask.to(y.device)

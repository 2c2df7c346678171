"""Layer: what Stack, Bidirectional and Residual compose, and what they hold on to of a sequence's layout."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.cell import Cell, check_lengths, check_resets, unscriptable
from recurra.errors import InputError
from recurra.layers.recording import Record, recording

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

    def record(self, *names: str) -> AbstractContextManager[Record]:
        """Shows variables of the step at every t: `with layer.record("i", "f") as seen: layer(x)`, then `seen["i"]`.

        names: variables of the cell's step, as they are when it returns; the states by their names (what they are after
        the step); and "output". Where several cells run, "i" is that of each cell that has one, and a path before it
        means one cell: "layers.0.i" of a Stack, "ahead.i" and "back.i" of a Bidirectional, "l0.i" and "l0_reverse.i"
        of an LSTM of several layers or directions; the keys of `seen` are then these longer names.
        seen: a dictionary, filled by each call inside anew: the values in the layout of the layer's own y, zero past
        each length. Gradients flow through them. Everything else has the same bits as without recording.
        Raises InputError for a name that does not exist, and lists those that do.
        """
        return recording(self, names)

    def __prepare_scriptable__(self) -> None:
        """What torch.jit.script calls first. Raises InputError."""
        raise unscriptable(self)

    def cells_by_part(self) -> dict[str, Cell]:
        """The cells that this layer itself runs, not those of layers inside it."""
        return {}


def thrifty(memory: object) -> bool:
    """Whether `memory` of a layer asks to compute again what the backward pass needs. Raises InputError."""
    if memory not in ("all", "sqrt"):
        raise InputError(
            f'memory is {memory!r}, but is "all", to keep what the backward pass needs of every step, or "sqrt", to '
            "compute it again, a stretch of steps at a time."
        )
    return memory == "sqrt"


def settings_of(memory: str, precision: str | None) -> list[str]:
    """What a layer's repr says of those that are not as they are without asking."""
    return [f"memory={memory!r}"] * (memory != "all") + [f"precision={precision!r}"] * (precision is not None)


def common_layout(owner: str, layers: Iterable[object]) -> bool:
    """The batch_first that all `layers` share. Raises InputError when they differ, or when one is no Layer."""
    layouts = set()
    for layer in layers:
        if not isinstance(layer, Layer):
            raise no_layer(f"{owner} composes", layer)
        layouts.add(layer.batch_first)
    if len(layouts) > 1:
        raise InputError(f"{owner} got layers with batch_first=True and with batch_first=False. Make them all alike.")
    return layouts.pop()


def no_layer(who: str, module: object) -> InputError:
    """Somebody takes layers, and this is none; what to use in its place."""
    name = type(module).__name__
    remedy = f"Use recurra.{name}" if isinstance(module, torch.nn.RNNBase) else "Put a cell into Recurrent"
    return InputError(f"{who} Recurra's layers, and {name} is none. {remedy}.")


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

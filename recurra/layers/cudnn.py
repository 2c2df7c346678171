"""The dense layers on CUDA: torch.nn's own forward, which is cuDNN there, for the calls that cuDNN has."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TOLD = "cuDNN has this layer; second derivatives, which it has not, need torch.backends.cudnn.flags(enabled=False)"


def takes(layer: torch.nn.RNNBase, rows: Tensor) -> bool:
    """Whether cuDNN runs the layer on these rows, every sequence from its first step to its last.

    Not the masks between layers, which are cuDNN's own, where ours are a function of a key; and no backward pass in
    eval mode, which cuDNN refuses.
    """
    if not rows.is_cuda or not torch.cudnn_is_acceptable(rows):
        return False
    if layer.training:
        return not (layer.dropout and layer.num_layers > 1)
    return not (torch.is_grad_enabled() and (rows.requires_grad or any(p.requires_grad for p in layer.parameters())))


def by_length(forward: Callable[..., Any], x: Tensor, hx: Any, lengths: Tensor) -> tuple[Tensor, Any]:
    """What `forward` of torch.nn gives for x (T, B, D) with lengths (B,), as a PackedSequence, zero lengths left out.

    Outputs (T, B, m), zero past each length; the last states, those of sequences without a step as they were.
    """
    T, B = x.shape[:2]
    kept = lengths > 0
    index = kept.nonzero().squeeze(1).to(x.device)
    whole = bool(kept.all())
    first = hx if whole or hx is None else _each(hx, lambda s: s.index_select(1, index))
    rows = x if whole else x.index_select(1, index)
    packed, last = forward(pack_padded_sequence(rows, lengths[kept], enforce_sorted=False), first)
    y, _ = pad_packed_sequence(packed, total_length=T)
    if whole:
        return y, last
    before = _each(last, lambda s: s.new_zeros(s.shape[0], B, s.shape[2])) if hx is None else hx
    y = y.new_zeros(T, B, y.shape[2]).index_copy(1, index, y)
    if isinstance(last, Tensor):
        return y, before.index_copy(1, index, last)
    return y, tuple(b.index_copy(1, index, s) for b, s in zip(before, last, strict=True))


def _each(states: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """torch.nn's states: a tensor, or a pair of them."""
    return change(states) if isinstance(states, Tensor) else tuple(change(s) for s in states)

"""Stack, Bidirectional and Residual: layers made of layers."""

import copy
from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from recurra.cell import truth
from recurra.errors import InputError, kind_of
from recurra.layers.layer import Layer, Lengths, Sequences, common_layout, map_rows, within
from recurra.layers.recurrent import Recurrent
from recurra.program.fingerprint import GLOBAL_HOOKS
from recurra.unroll import answer_both


class Stack(Layer):
    """Each layer reads what the one before it wrote.

    state: None, or a tuple with one entry for each layer; an entry of None starts that layer anew.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        if not isinstance(layers, Iterable):
            raise InputError(f"Stack takes a list of layers, and got {kind_of(layers)}. Pass Stack([layer, ...]).")
        self.layers = nn.ModuleList(layers)
        if not self.layers:
            raise InputError("Stack got no layers. Give it at least one: Stack([Recurrent(cell)]).")
        self.batch_first = common_layout("Stack", self.layers)

    def forward(
        self,
        x: Sequences,
        state: Any = None,
        lengths: Lengths = None,
        reverse: bool = False,
        resets: Tensor | None = None,
    ) -> Any:
        states = _entries("Stack", state, len(self.layers))
        last = []
        for layer, before in zip(self.layers, states, strict=True):
            x, after = layer(x, before, lengths, reverse, resets)
            last.append(after)
        return x, tuple(last)


class Bidirectional(Layer):
    """One layer runs from the first step to the last, the other from the last valid step to the first; y = [y→, y←].

    Schuster and Paliwal 1997, IEEE Transactions on Signal Processing 45(11).

    backward: None for a copy of `forward` whose parameters are drawn anew (by the `reset_parameters` of its modules).
    state: None, or (state of forward, state of backward).
    """

    def __init__(self, forward: Layer, backward: Layer | None = None) -> None:
        super().__init__()
        self.batch_first = common_layout("Bidirectional", [forward] if backward is None else [forward, backward])
        self.ahead = forward
        self.back = _drawn_anew(forward) if backward is None else backward

    def forward(
        self,
        x: Sequences,
        state: Any = None,
        lengths: Lengths = None,
        reverse: bool = False,
        resets: Tensor | None = None,
    ) -> Any:
        reverse = truth("reverse", reverse)
        before_ahead, before_back = _entries("Bidirectional", state, 2)
        if _plain(self.ahead) and _plain(self.back):
            one = self.ahead.asked(x, before_ahead, lengths, reverse, resets)
            two = self.back.asked(x, before_back, lengths, not reverse, resets)
            first, second = answer_both(one, two)
            ahead, after_ahead = self.ahead.answered(x, one, *first)
            back, after_back = self.back.answered(x, two, *second)
        else:
            ahead, after_ahead = self.ahead(x, before_ahead, lengths, reverse, resets)
            back, after_back = self.back(x, before_back, lengths, not reverse, resets)
        return map_rows(lambda a, b: torch.cat([a, b], -1), ahead, back), (after_ahead, after_back)


class Residual(Layer):
    """y = x + layer(x), within the lengths; 0 past them. The layer must be as wide as x.

    He et al. 2016, arXiv:1512.03385; between recurrent layers: Wu et al. 2016, arXiv:1609.08144.
    state: that of the layer.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.batch_first = common_layout("Residual", [layer])
        self.layer = layer

    def forward(
        self,
        x: Sequences,
        state: Any = None,
        lengths: Lengths = None,
        reverse: bool = False,
        resets: Tensor | None = None,
    ) -> Any:
        y, after = self.layer(x, state, lengths, reverse, resets)
        y = map_rows(_add, x, y)
        if lengths is not None:
            y = torch.where(within(lengths, y, self.batch_first), y, 0)
        return y, after


def _add(x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape:
        raise InputError(
            f"Residual adds x, {x.shape[-1]} wide, to its layer's output, {y.shape[-1]} wide. "
            f"Make the layer as wide as x."
        )
    return x + y


def _entries(owner: str, state: Any, count: int) -> tuple[Any, ...]:
    if state is None:
        return (None,) * count
    if not isinstance(state, (tuple, list)) or len(state) != count:
        given = f"{len(state)} entries" if isinstance(state, (tuple, list)) else kind_of(state)
        raise InputError(f"the state of {owner} is a tuple of {count} entries, one for each layer, but {given} came.")
    return tuple(state)


def _plain(layer: Layer) -> TypeGuard[Recurrent]:
    """Whether to call the layer is to run its cell, and nothing else."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    changed = any(hooks) or any(GLOBAL_HOOKS) or "forward" in layer.__dict__ or layer._compiled_call_impl
    return type(layer) is Recurrent and layer.memory == "all" and not changed


def _drawn_anew(layer: Layer) -> Layer:
    fresh = copy.deepcopy(layer)
    _draw(fresh, "")
    return fresh


def _draw(module: nn.Module, path: str) -> None:
    """Draws all parameters below by the outermost `reset_parameters`. Raises InputError when a parameter has none."""
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
        return
    for name, _ in module.named_parameters(path, recurse=False):
        raise InputError(
            f"Bidirectional cannot draw {name} anew for the backward layer, for {type(module).__name__} has no method "
            f"reset_parameters. Define one, or pass the backward layer yourself."
        )
    for name, child in module.named_children():
        _draw(child, f"{path}.{name}" if path else name)

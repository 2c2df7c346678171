"""Session: a layer run one step at a time, with its weights packed once and its state kept."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recurra.cell import rows_like
from recurra.errors import InputError, kind_of
from recurra.layers import Bidirectional, Recurrent, Residual, Stack
from recurra.layers.drop_in import DropIn
from recurra.layers.layer import no_layer
from recurra.unroll import Stepper, Visit, as_weights_are, visits
from recurra.unroll.precision import checked


class Session:
    """y_t = session.step(x_t): what `layer` gives for a whole sequence, one step at a time.

        session = recurra.Session(layer)
        for x in rows:               # (B, D) as they arrive
            y = session.step(x)      # (B, m), the session's own buffer: the next step writes it again

    The session is a snapshot of the layer's weights; `refresh()` takes new ones. There is no dropout between layers.
    layer: Recurrent, a unidirectional RNN, LSTM or GRU, or a Stack or Residual of them; batch_first does not matter.
    state: a state to begin with, as the layer returns it; None: the layer's own beginning.
    precision: what all its cells compute in, as in Recurrent; None: what each layer says.
    The number of rows B is that of the first step, or of `state`; a session keeps it.
    Raises InputError for a layer that reads backwards in time, and for rows that do not fit.
    """

    def __init__(self, layer: nn.Module, state: Any = None, precision: str | None = None) -> None:
        self.layer, self._precision = layer, checked(precision)
        self._refuse(layer)
        self._first = state
        self._batch = 0
        self._leaves: list[_Leaf] = []
        if state is not None:
            self._prepare(_rows_of(state))

    # ---- stepping

    def step(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """One step from x (B, D) to y (B, m): the session's own buffer, or `out`, overwritten. There is no gradient."""
        try:
            fits = x.shape == self._shape and x.dtype is self._dtype and x.device == self._device
            fits = fits and x.is_contiguous() and not x.is_neg()  # or PyTorch has yet to negate these numbers
        except (AttributeError, RuntimeError):  # no tensor, or one without strides
            fits = False
        if not fits:
            x = self._fitting(x)
        if out is None:
            y = self._buffer
        else:
            y = out
            self._check_out(out)
        if self._only is not None:
            self._only.step(x.data_ptr(), y.data_ptr())
        else:
            self._walk(x, y)
        return y

    _shape: tuple[int, ...] | torch.Size = ()
    _dtype: torch.dtype | None = None
    _device: torch.device | None = None
    _only: Any = None  # the native handle, when the layer is one cell on the native machine
    _buffer: Tensor

    def _walk(self, x: Tensor, y: Tensor) -> None:
        rows = [x, *self._rows[:-1], y]
        for move in self._moves:
            if move.leaf is not None:
                move.leaf.step(rows[move.source], rows[move.to])
            else:
                torch.add(rows[move.source], rows[move.other], out=rows[move.to])

    # ---- state and weights

    @property
    def precision(self) -> str | None:
        """What all its cells compute in; None: what each layer says. Another one takes another session."""
        return self._precision

    @property
    def error(self) -> float | None:
        """Of int8: the largest of the cells' errors against fp32, each as a share of its largest output.

        Measured on 64 steps of random numbers when the session takes weights; None in other precisions, and before the
        first step.
        """
        found = [s.error for leaf in self._leaves for s in leaf.steppers if s.error is not None]
        return max(found, default=None)

    @property
    def state(self) -> Any:
        """The state after the last step, as the layer returns it: copies. None before the first step."""
        return None if not self._leaves else _state_of(self.layer, iter(self._leaves))

    @state.setter
    def state(self, value: Any) -> None:
        if not self._leaves:
            self._first = value
            if value is not None:
                self._prepare(_rows_of(value))
        elif value is None:
            self._begin_anew()
        else:
            _set_state(self.layer, value, iter(self._leaves))

    def reset(self) -> None:
        """Back to the beginning: the state that the session was made with, or the layer's own."""
        first = self._first
        if self._leaves and first is not None:
            _set_state(self.layer, first, iter(self._leaves))
        elif self._leaves:
            self._begin_anew()

    def refresh(self) -> None:
        """Takes the layer's weights as they are now; the state stays."""
        if self._leaves:
            fresh = iter(_visits_of(self.layer, self._batch))
            for leaf in self._leaves:
                leaf.refresh([next(fresh) for _ in leaf.steppers])
            self._settle()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Session":
        """A session that goes on from here by itself, with a copy of the layer and its weights as they are now."""
        twin = Session(copy.deepcopy(self.layer, memo), precision=self._precision)
        twin._first = copy.deepcopy(self._first, memo)
        if self._leaves:
            twin._prepare(self._batch)
            for mine, other in zip(self._leaves, twin._leaves, strict=True):
                for a, b in zip(mine.steppers, other.steppers, strict=True):
                    b.set_states(tuple(a.states))
        return twin

    def _begin_anew(self) -> None:
        for leaf in self._leaves:
            for stepper in leaf.steppers:
                stepper.set_states(tuple(stepper.first_states()))

    # ---- preparation

    def _refuse(self, layer: nn.Module) -> None:
        for module in layer.modules():
            if isinstance(module, Bidirectional) or getattr(module, "bidirectional", False):
                raise InputError(
                    f"{type(module).__name__} reads the sequence from its end, which a session does not know yet. "
                    "Give Session a unidirectional layer."
                )
        if not isinstance(layer, (Recurrent, Stack, Residual, DropIn)):
            raise no_layer("Session runs", layer)

    def _fitting(self, x: Tensor) -> Tensor:
        """x as the steppers read it; prepares the session at the first step."""
        if not isinstance(x, Tensor):
            raise InputError(f"x is {kind_of(x)}, and a session's step takes a tensor. Pass torch.as_tensor(x).")
        if x.layout is not torch.strided:
            raise InputError(f"x has the layout {x.layout}, and a session's step takes a dense tensor: x.to_dense().")
        if x.dim() != 2:
            remedies = {1: "x.unsqueeze(0)", 3: "one step at a time, x[t], or x[:, t] where the batch is first"}
            raise InputError(
                f"a session's step takes x (B, D), one row for each sequence, and got {tuple(x.shape)}. "
                f"Pass {remedies.get(x.dim(), 'x with 2 axes')}."
            )
        if x.shape[1] != (width := _width_of(self.layer)):
            raise InputError(
                f"x has the shape {tuple(x.shape)}, and this session's layer takes (B, {width}). "
                f"Give x a last axis of {width}."
            )
        if not self._leaves:
            self._prepare(x.shape[0])
        if x.shape != self._shape:
            raise InputError(
                f"this session runs x of shape {tuple(self._shape)} and got {tuple(x.shape)}. "
                "Make a session for each number of rows."
            )
        if x.dtype is not self._dtype:
            raise InputError(f"x is {x.dtype} and the session's weights are {self._dtype}. Convert one of them.")
        if x.device != self._device:
            raise InputError(f"x is on {x.device} and the session's weights are on {self._device}. Move one of them.")
        return x.resolve_neg().contiguous()

    def _check_out(self, out: Tensor) -> None:
        if not isinstance(out, Tensor):
            raise InputError(
                f"out is {kind_of(out)}, and a session's step writes to a tensor. Pass torch.as_tensor(out)."
            )
        if out.requires_grad:
            raise InputError(
                "out requires a gradient, and a session's step overwrites it without. "
                "Pass torch.empty_like of what a step returned."
            )
        if out.device != self._device:
            raise InputError(f"out is on {out.device} and the session's weights are on {self._device}. Make it there.")
        view = out.is_neg() or not out.is_contiguous()
        if out.shape != self._buffer.shape or out.dtype is not self._dtype or view:
            raise InputError(
                f"out must be a contiguous {self._dtype} tensor of shape {tuple(self._buffer.shape)}, and is "
                f"{'a view of another, ' if view else ''}{out.dtype} of shape {tuple(out.shape)}. "
                "Pass torch.empty_like of what a step returned."
            )

    def _prepare(self, batch: int) -> None:
        self._batch = batch
        fresh = iter(_visits_of(self.layer, batch))
        self._leaves = []
        for leaf in _leaves_of(self.layer):
            seen = [next(fresh) for _ in range(_cells_of(leaf))]
            self._leaves.append(_Leaf(seen, batch, self._precision or leaf.precision))
        if self._first is not None:
            _set_state(self.layer, self._first, iter(self._leaves))
        self._settle()

    def _settle(self) -> None:
        """The moves from x to y, with a buffer for each result."""
        self._moves: list[_Move] = []
        first = self._leaves[0].steppers[0].first_row()
        self._rows: list[Tensor] = []
        widths = [first.shape[1]]
        _plan(self.layer, iter(self._leaves), self._moves, widths, 0)
        self._rows = [first.new_zeros(self._batch, n) for n in widths[1:]]
        self._buffer = self._rows[-1]
        self._shape, self._dtype, self._device = first.shape, first.dtype, first.device
        only = self._moves[0].leaf if len(self._moves) == 1 else None
        self._only = only.native if only is not None else None


class _Move:
    """rows[to] = leaf(rows[source]), or rows[source] + rows[other]. Row 0 is x."""

    __slots__ = ("leaf", "other", "source", "to")

    def __init__(self, leaf: Stepper | None, source: int, other: int, to: int) -> None:
        self.leaf, self.source, self.other, self.to = leaf, source, other, to


class _Leaf:
    """A layer without layers inside: one cell, or the cells of a deep RNN, LSTM or GRU."""

    def __init__(self, seen: Sequence[Visit], batch: int, precision: str | None) -> None:
        self.steppers = [Stepper(v.cell, v.weights, batch, precision) for v in seen]

    def refresh(self, seen: Sequence[Visit]) -> None:
        for stepper, visit in zip(self.steppers, seen, strict=True):
            stepper.refresh(visit.weights, keep_states=True)


def _plan(layer: nn.Module, leaves: Iterator[_Leaf], moves: list[_Move], widths: list[int], source: int) -> int:
    """Appends the moves of a layer that reads row `source`; returns the row it writes."""
    if isinstance(layer, Stack):
        for inner in layer.layers:
            source = _plan(inner, leaves, moves, widths, source)
        return source
    if isinstance(layer, Residual):
        inside = _plan(layer.layer, leaves, moves, widths, source)
        widths.append(widths[source])
        moves.append(_Move(None, source, inside, len(widths) - 1))
        return len(widths) - 1
    for stepper in next(leaves).steppers:
        widths.append(stepper.output_size)
        moves.append(_Move(stepper, source, 0, len(widths) - 1))
        source = len(widths) - 1
    return source


def _leaves_of(layer: nn.Module) -> list[Any]:
    """The layers without layers inside, in the order in which rows go through them."""
    if isinstance(layer, Stack):
        return [leaf for inner in layer.layers for leaf in _leaves_of(inner)]
    return _leaves_of(layer.layer) if isinstance(layer, Residual) else [layer]


def _cells_of(leaf: nn.Module) -> int:
    """How many cells such a layer has."""
    return int(leaf.num_layers) if isinstance(leaf, nn.RNNBase) else 1


def _visits_of(layer: nn.Module, batch: int) -> list[Visit]:
    """Every cell of the layer with its weights, in the order of the door: the layer is run on one step of zeros."""
    leaf = _first_leaf(layer)
    weight = rows_like(layer)
    shape = (batch, 1) if getattr(leaf, "batch_first", False) else (1, batch)
    x = weight.new_zeros(*shape, _width_of(leaf))
    _check_dropout(layer)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), as_weights_are(), visits() as seen:
        layer(x)
    return seen


def _check_dropout(layer: nn.Module) -> None:
    for m in layer.modules():
        if isinstance(m, nn.RNNBase) and m.training and m.dropout and m.num_layers > 1:
            raise InputError(
                f"{type(m).__name__} is in training mode with dropout={m.dropout}, which is drawn for whole "
                "sequences, and a session has single steps. Call layer.eval() first."
            )


def _width_of(layer: nn.Module) -> int:
    """Of the x that a layer reads."""
    leaf = _first_leaf(layer)
    return int(leaf.cell.input_size if isinstance(leaf, Recurrent) else leaf.input_size)


def _first_leaf(layer: nn.Module) -> Any:
    while not isinstance(layer, (Recurrent, nn.RNNBase)):
        assert isinstance(layer, (Stack, Residual))
        layer = layer.layers[0] if isinstance(layer, Stack) else layer.layer
    return layer


def _state_of(layer: nn.Module, leaves: Iterator[_Leaf]) -> Any:
    if isinstance(layer, Stack):
        return tuple(_state_of(inner, leaves) for inner in layer.layers)
    if isinstance(layer, Residual):
        return _state_of(layer.layer, leaves)
    steppers = next(leaves).steppers
    each = zip(*[s.states for s in steppers], strict=True)
    dtype = steppers[0].dtype
    if isinstance(layer, nn.RNNBase):
        joined = tuple(torch.stack(states).to(dtype) for states in each)
    else:
        joined = tuple(states[0].to(dtype, copy=True) for states in each)
    return joined if len(joined) > 1 else joined[0]


_STATE = "Pass what the layer, or session.state, gave for as many rows."


def _set_state(layer: nn.Module, value: Any, leaves: Iterator[_Leaf]) -> None:
    if isinstance(layer, Stack):
        if not isinstance(value, (tuple, list)) or len(value) != len(layer.layers):
            came = f"{len(value)} entries" if isinstance(value, (tuple, list)) else kind_of(value)
            raise InputError(
                f"the state of Stack is a tuple of {len(layer.layers)} entries, one for each layer, and got {came}. "
                f"{_STATE}"
            )
        for inner, part in zip(layer.layers, value, strict=True):
            _set_state(inner, part, leaves)
        return
    if isinstance(layer, Residual):
        _set_state(layer.layer, value, leaves)
        return
    steppers = next(leaves).steppers
    if value is None:
        for s in steppers:
            s.set_states(tuple(s.first_states()))
        return
    given = (value,) if isinstance(value, Tensor) else value
    if isinstance(given, list):
        given = tuple(given)
    stacked = (len(steppers),) if isinstance(layer, nn.RNNBase) else ()
    wanted = tuple((*stacked, *t.shape) for t in steppers[0].states)
    if not isinstance(given, tuple) or not all(isinstance(g, Tensor) for g in given):
        raise _misfit(wanted, kind_of(value))
    if (shapes := tuple(tuple(g.shape) for g in given)) != wanted:
        raise _misfit(wanted, " and ".join(map(str, shapes)) or "nothing")
    for g in given:
        if g.dtype is not (dtype := steppers[0].dtype):
            raise InputError(f"the session's state is {g.dtype} and its weights are {dtype}. Convert one of them.")
    for k, s in enumerate(steppers):
        mine = tuple(g[k] for g in given) if isinstance(layer, nn.RNNBase) else given
        s.set_states(mine)


def _misfit(wanted: tuple[tuple[int, ...], ...], came: str) -> InputError:
    shapes = " and ".join(map(str, wanted))
    noun = "a tensor of the shape" if len(wanted) == 1 else "tensors of the shapes"
    return InputError(f"the session's state takes {noun} {shapes}, and got {came}. {_STATE}")


def _rows_of(state: Any) -> int:
    """B of a layer's state."""
    inner = state
    while isinstance(inner, (tuple, list)):
        inner = next((s for s in inner if s is not None), None)
    if not isinstance(inner, Tensor) or inner.dim() < 2:
        came = kind_of(inner) if not isinstance(inner, Tensor) else f"the shape {tuple(inner.shape)}"
        raise InputError(
            f"the session's state is a tensor (..., B, n) for each state of the layer, not {came}. {_STATE}"
        )
    return int(inner.shape[-2])

"""RNN, LSTM and GRU as in torch.nn, with `lengths` and `resets`; in their place a program computes the same, faster.

They derive from torch.nn's classes. Arguments, parameters, initial values, state_dict, repr, copying, moving and the
warnings are thus torch.nn's own, `isinstance(layer, torch.nn.LSTM)` holds, and only `forward` is written here. A call
whose arguments do not fit is handed to torch.nn's forward, so that it fails with torch.nn's own words.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from recurra.cell import Cell, autocast_is_on, check_lengths, check_resets, check_tensor, one_length, truth
from recurra.cells import GRU as GRUCell
from recurra.cells import LSTM as LSTMCell
from recurra.cells import Elman, LSTMProjected
from recurra.errors import InputError, alone
from recurra.layers import cudnn
from recurra.layers.layer import Layer, Lengths, Sequences, packed_resets, settings_of, thrifty
from recurra.layers.recording import hand_out, wanted
from recurra.machine import masks
from recurra.machine.precision import DTYPES
from recurra.program.trace import outside_transforms
from recurra.unroll import Call, answer, answer_both
from recurra.unroll.casting import autocast_to_bf16, is_plain
from recurra.unroll.notes import constant_to_compilers, hand_over, is_recording, leave_to_torch, takes_operators
from recurra.unroll.precision import NARROW, checked

# One direction of one layer: the equation, which of the module's parameters stand for those of the cell, and what
# torch.nn appends to their names: l0, l0_reverse, l1.
Part = tuple[Cell, tuple[tuple[str, str], ...], str]
States = tuple[Tensor, ...]
_AUTOCAST = "autocast is on, under which a result has torch.nn's dtype"
_RECORDING = "PyTorch is recording operations, and torch.nn's is one where the equation's are one a step"


_known: dict[tuple[Any, ...], tuple[Part, ...]] = {}  # a plain one, through which torch.compile can follow a cell
_MOST = 256


def _parts(*sizes: Any) -> tuple[Part, ...]:
    """What runs a layer of these sizes: `_make` for each part, shared by all layers that have them."""
    if is_compiling() or sizes not in _known:
        _make(*sizes)
    return _known[sizes]


def _make(
    mode: str, input_size: int, hidden_size: int, layers: int, directions: int, bias: bool, proj_size: int
) -> None:
    """Layer by layer, the forward direction first: the order of torch.nn's states."""
    sizes = mode, input_size, hidden_size, layers, directions, bias, proj_size
    if sizes in _known:
        return
    if len(_known) >= _MOST:
        _known.clear()
    parts = []
    with outside_transforms():  # what is made here is nothing that anybody should write down
        for layer in range(layers):
            width = input_size if layer == 0 else directions * (proj_size or hidden_size)
            cell = _cell(mode, width, hidden_size, bias, proj_size)
            for part in (f"l{layer}", f"l{layer}_reverse")[:directions]:
                names = tuple((name, f"{name}_{part}") for name, _ in cell.named_parameters())
                parts.append((cell, names, part))
    _known[sizes] = tuple(parts)


constant_to_compilers(_make)


@lru_cache(maxsize=_MOST)
def _cell(mode: str, input_size: int, hidden_size: int, bias: bool, proj_size: int) -> Cell:
    """The equation alone, shared by all layers of these sizes: its own parameters have no memory and are never read."""
    if mode == "LSTM":
        if proj_size:
            return LSTMProjected(input_size, hidden_size, proj_size, bias, device="meta")
        return LSTMCell(input_size, hidden_size, bias, device="meta")
    if mode == "GRU":
        return GRUCell(input_size, hidden_size, bias, device="meta")
    return Elman(input_size, hidden_size, bias, "tanh" if mode == "RNN_TANH" else "relu", device="meta")


class DropIn(Layer, torch.nn.RNNBase):
    """What RNN, LSTM and GRU share.

    memory, precision: as in Recurrent. Under autocast the dtypes of what comes back are torch.nn's.
    """

    memory = "all"
    precision: str | None = None

    def __init__(self, *args: Any, memory: str = "all", precision: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if thrifty(memory):
            self.memory = memory
        if checked(precision):
            self.precision = precision

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *settings_of(self.memory, self.precision)])

    def forward(
        self,
        input: Sequences,
        hx: Any = None,
        lengths: Lengths = None,
        reverse: bool = False,
        resets: Tensor | None = None,
    ) -> Any:
        """As torch.nn's forward; lengths, reverse, resets as in Recurrent. T = 0 needs lengths: torch.nn refuses it."""
        reverse = truth("reverse", reverse)
        rows = input.data if isinstance(input, PackedSequence) else input
        as_torch = lengths is None and resets is None and not reverse
        if as_torch and isinstance(rows, Tensor) and self._on_cudnn(rows):
            self._note_cudnn(*self._steps_and_rows(input))
            return super().forward(input, hx)
        if isinstance(rows, Tensor) and (reason := self._torchs_own(rows)):
            if dtypes := self._autocast_dtypes(input, rows, hx):
                y, last = self._ours(_in_fp32(input), _in_fp32(hx), lengths, reverse, resets, "bf16")
                return _cast(y, dtypes[:1]), _cast(last, dtypes[1:])
            if as_torch:
                self._leave_to_torch(reason, input)
                return super().forward(input, hx)
        return self._ours(input, hx, lengths, reverse, resets, self.precision)

    def _ours(
        self, input: Sequences, hx: Any, lengths: Lengths, reverse: bool, resets: Tensor | None, precision: str | None
    ) -> Any:
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths, reverse, resets, precision)
        return self._padded(input, hx, lengths, reverse, resets, precision)

    def _padded(
        self, input: Tensor, hx: Any, lengths: Lengths, reverse: bool, resets: Tensor | None, precision: str | None
    ) -> tuple[Tensor, Any]:
        try:
            fits = self._fits(input, hx)
        except RuntimeError:
            alone(lambda: check_tensor(type(self).__name__, input, "input"))  # a nested one has no shape
            raise
        if not fits or (lengths is None and not input.numel()):
            super().forward(input, hx)  # raises; it returns where torch.nn is more lenient, as under autocast
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        if lengths is not None:
            lengths = check_lengths(one_length(lengths, x.shape[0]) if not batched else lengths, *x.shape[:2])
        if resets is not None:
            resets = check_resets(resets, x.shape[0], x.shape[1], lengths, self._axes(batched))
        elif lengths is not None and not reverse and self._on_cudnn(x) and bool(lengths.any()):
            return self._by_length(x, hx, lengths, batched)
        before = None if hx is None else self._each(hx, batched)

        def laid_out(rows: Tensor) -> Tensor:
            """(T, B, ...) in the layout of the input."""
            return rows.squeeze(1) if not batched else rows.transpose(0, 1) if self.batch_first else rows

        y, last = self._run(x, before, lengths, None, reverse, laid_out, resets, precision)
        return laid_out(y), self._joined(last, None if batched else 1)

    def _on_cudnn(self, rows: Tensor) -> bool:
        """Whether torch.nn's forward is to run this call."""
        if not rows.is_cuda or self.memory != "all" or is_recording():
            return False
        if self.precision is not None and (self.precision in NARROW or DTYPES[self.precision] is not rows.dtype):
            return False
        return cudnn.takes(self, rows) and all(wanted(self, part) is None for part in self.cells_by_part())

    def _note_cudnn(self, T: int, B: int) -> None:
        hand_over(self.named_cells(), "cuDNN", cudnn.TOLD, T, B)

    def _by_length(self, x: Tensor, hx: Any, lengths: Tensor, batched: bool) -> tuple[Tensor, Any]:
        """cuDNN's answer for x (T, B, D) in the layout of the input."""
        self._note_cudnn(*x.shape[:2])
        lstm = self.mode == "LSTM"
        if hx is not None and not batched:
            hx = tuple(s.unsqueeze(1) for s in hx) if lstm else hx.unsqueeze(1)
        y, last = cudnn.by_length(super().forward, x, hx, lengths)
        if batched:
            return y.transpose(0, 1) if self.batch_first else y, last
        return y.squeeze(1), tuple(s.squeeze(1) for s in last) if lstm else last.squeeze(1)

    def _axes(self, batched: bool) -> str:
        return "T" if not batched else "B, T" if self.batch_first else "T, B"

    def _packed(
        self,
        input: PackedSequence,
        hx: Any,
        lengths: Lengths,
        reverse: bool,
        resets: Tensor | None,
        precision: str | None,
    ) -> tuple[PackedSequence, Any]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if lengths is not None:
            raise InputError("input is a PackedSequence and lengths are given too. It has its own: leave them out.")
        if not self._fits(data, hx, int(batch_sizes[0])):
            super().forward(input, hx)
        before = None if hx is None else self._each(self.permute_hidden(hx, sorted_indices), True)
        if resets is not None:
            resets = packed_resets(resets, input, self.batch_first)

        def laid_out(rows: Tensor) -> Sequences:
            return input._replace(data=rows)

        data, last = self._run(data, before, None, batch_sizes, reverse, laid_out, resets, precision)
        return input._replace(data=data), self.permute_hidden(self._joined(last), unsorted_indices)

    def _run(
        self,
        x: Tensor,
        before: list[States] | None,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        reverse: bool,
        laid_out: Callable[[Tensor], Sequences],
        resets: Tensor | None,
        precision: str | None,
    ) -> tuple[Tensor, list[States]]:
        directions = 2 if self.bidirectional else 1
        parts = self._own_parts()
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        key = torch.randint(2**63 - 1, ()) if dropout else None
        last: list[States] = []
        saving = self.memory != "all" and thrifty(self.memory)
        for layer in range(self.num_layers):
            if layer and key is not None:
                x = masks.dropout(x, dropout, key, layer, batch_sizes)
            calls = []
            for k in range(layer * directions, (layer + 1) * directions):
                cell, names, part = parts[k]
                states = None if before is None else before[k]
                backward = reverse != (k % directions == 1)
                weights, seen = self._weights(names), wanted(self, part)
                rows = lengths, backward, weights, None, resets, seen, batch_sizes, None
                calls.append(Call(cell, x, states, *rows, saving, precision))
            if directions == 1:
                x, after = answer(calls[0])
                last.append(after)
            else:
                (ahead, after), (back, other) = answer_both(*calls)
                x, last = torch.cat([ahead, back], -1), [*last, after, other]
            for k, call in enumerate(calls, layer * directions):
                if call.record is not None:
                    hand_out(self, call.record, laid_out, parts[k][2])
        return x, last

    def _own_parts(self) -> tuple[Part, ...]:
        directions = 2 if self.bidirectional else 1
        return _parts(
            self.mode, self.input_size, self.hidden_size, self.num_layers, directions, self.bias, self.proj_size
        )

    def cells_by_part(self) -> dict[str, Cell]:
        return {part: cell for cell, _, part in self._own_parts()}

    def _torchs_own(self, x: Tensor) -> str:
        """Why a call that torch.nn can serve is left to it; "" when it is ours, as one that names a precision is."""
        if self.precision is not None:
            return ""
        if is_recording() and not takes_operators():
            return _RECORDING
        return _AUTOCAST if autocast_is_on(x) else ""

    def _autocast_dtypes(self, input: Sequences, x: Tensor, hx: Any) -> tuple[torch.dtype, ...]:
        """Of y and the states, those that torch.nn gives, where autocast can have this call run in bf16; else ()."""
        if not autocast_to_bf16():
            return ()
        given = () if hx is None else hx if isinstance(hx, (tuple, list)) else (hx,)
        if not x.numel() or not all(is_plain(t) for t in (x, *given)):
            return ()
        weights = [w for _, named in self.named_cells() for w in named.values()]
        if any(w.dtype is not torch.float32 or not is_plain(w) for w in weights):
            return ()
        kind = next(k for k in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN) if isinstance(self, k))
        steps, ends = min(self._steps_and_rows(input)[0], 2), None
        if isinstance(input, PackedSequence):
            ends = (steps, steps if input.batch_sizes[0] == input.batch_sizes[-1] else 1)
        of = self.mode, self.num_layers, self.bidirectional, self.proj_size > 0, steps, ends
        return _dtypes_of_torch(kind, *of, x.dtype, *[t.dtype for t in given])

    def _leave_to_torch(self, reason: str, input: Sequences) -> None:
        """torch.nn is about to run this layer."""
        for part in self.cells_by_part():
            if wanted(self, part) is not None:
                raise InputError(
                    f"torch.nn would run {type(self).__name__}, because {reason}, and it shows nothing of its steps. "
                    "Record outside of that."
                )
        leave_to_torch(self.named_cells(), reason, *self._steps_and_rows(input))

    def _steps_and_rows(self, input: Sequences) -> tuple[int, int]:
        """T and B; of what torch.nn is about to refuse, whatever there is."""
        if isinstance(input, PackedSequence):
            return len(input.batch_sizes), int(input.batch_sizes[0])
        if input.dim() != 3:
            return (len(input) if input.dim() else 0), 1
        return (input.shape[1], input.shape[0]) if self.batch_first else (input.shape[0], input.shape[1])

    def named_cells(self) -> list[tuple[Cell, dict[str, Tensor]]]:
        """The cells of all layers and directions, each with the weights that stand in for its own."""
        return [(cell, self._weights(names)) for cell, names, _ in self._own_parts()]

    def _weights(self, names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
        own: Any = self._parameters
        try:
            return {name: own[mine] for name, mine in names}
        except KeyError:  # computed from other parameters (weight norm), or on a replica, where they are attributes
            return {name: getattr(self, mine) for name, mine in names}

    def _fits(self, x: Tensor, hx: Any, packed_batch: int = -1) -> bool:
        """Whether torch.nn would take these arguments; False also where it is more lenient."""
        dim = x.dim()
        weight: Any = self._parameters.get("weight_ih_l0")
        if weight is None:
            weight = self.weight_ih_l0
        if not ((dim == 3 and packed_batch < 0) or dim == 2) or x.shape[-1] != self.input_size:
            return False
        if x.dtype != weight.dtype or x.device != weight.device:
            return False
        if hx is None:
            return True
        batched = dim == 3 or packed_batch >= 0
        batch = packed_batch if packed_batch >= 0 else x.shape[0 if self.batch_first else 1] if batched else 1
        return self._state_fits(hx, x, batch, batched)

    def _state_fits(self, hx: Any, x: Tensor, batch: int, batched: bool) -> bool:
        given = hx if self.mode == "LSTM" else (hx,)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)[: 2 if self.mode == "LSTM" else 1]
        count = self.num_layers * (2 if self.bidirectional else 1)
        if not isinstance(given, (tuple, list)) or len(given) != len(widths):
            return False
        return all(
            isinstance(s, Tensor)
            and s.shape == ((count, batch, n) if batched else (count, n))
            and s.dtype == x.dtype
            and s.device == x.device
            for s, n in zip(given, widths, strict=True)
        )

    def _each(self, hx: Any, batched: bool) -> list[States]:
        """torch.nn's states (layers · directions, B, n) as one tuple for each part."""
        whole = hx if self.mode == "LSTM" else (hx,)
        return list(zip(*(s if batched else s.unsqueeze(1) for s in whole), strict=True))

    def _joined(self, last: list[States], squeeze: int | None = None) -> Any:
        """The other way round; squeeze: the axis of a batch that the caller does not know of."""
        if len(last) == 1:
            joined = [s.unsqueeze(0) for s in last[0]]
        else:
            joined = [torch.stack(s) for s in zip(*last, strict=True)]
        if squeeze is not None:
            joined = [s.squeeze(squeeze) for s in joined]
        return tuple(joined) if self.mode == "LSTM" else joined[0]


def _in_fp32(given: Any) -> Any:
    """A sequence, or states, in fp32."""
    return _cast(given, (torch.float32, torch.float32))


def _cast(given: Any, dtypes: tuple[torch.dtype, ...]) -> Any:
    """A sequence, or states one by one, in these dtypes."""
    if isinstance(given, PackedSequence):
        return given._replace(data=given.data.to(dtypes[0]))
    if isinstance(given, (tuple, list)):
        return tuple(t.to(d) for t, d in zip(given, dtypes, strict=False))
    return given if given is None else given.to(dtypes[0])


@lru_cache(maxsize=_MOST)
def _dtypes_of_torch(kind: type[torch.nn.RNNBase], *of: Any) -> tuple[torch.dtype, ...]:
    """The dtypes of y and the states of a layer of torch.nn under autocast: what a small one gives; () where it raises.

    of: its mode, depth, directions, and whether it projects; steps, at most two; the lengths of two sequences where
    they are packed, else None; the dtypes of x and of states given.
    """
    mode, layers, bidirectional, projects, steps, ends, dtype, *states = of
    more = {"proj_size": 1} if projects else {}
    if kind is torch.nn.RNN:
        more = {"nonlinearity": mode.removeprefix("RNN_").lower()}
    # drawn on the meta device: the user's random numbers stay where they are
    make: Any = kind
    small = make(1, 2, layers, bidirectional=bidirectional, device="meta", **more).to_empty(device="cpu")
    x: Any = torch.zeros(steps, 2, 1, dtype=dtype)
    x = pack_padded_sequence(x, ends) if ends else x
    widths = (1 if projects else 2, 2)
    hx = tuple(torch.zeros(layers * (1 + bidirectional), 2, n, dtype=d) for n, d in zip(widths, states))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        try:
            y, last = small(x, None if not hx else hx if mode == "LSTM" else hx[0])
        except (RuntimeError, ValueError):
            return ()
    return (y.data if ends else y).dtype, *(t.dtype for t in (last if mode == "LSTM" else (last,)))


# What Python calls it where an argument is unknown: the user's class is LSTM, not DropIn.
DropIn.forward.__qualname__ = "forward"


class RNN(DropIn, torch.nn.RNN):
    """torch.nn.RNN, faster, and with `lengths` and `resets`. The equation is recurra.cells.Elman.

    y, h = layer(input, hx=None, lengths=None, resets=None).
    lengths: (B,) whole numbers from 0 to T in any order; past its length a row's y is 0 and its state stays.
    resets: truth values, where a new sequence begins, as in `Recurrent`. Everything else as in torch.nn.RNN.
    """


class LSTM(DropIn, torch.nn.LSTM):
    """torch.nn.LSTM, faster, and with `lengths` and `resets`. The equation is recurra.cells.LSTM (or LSTMProjected).

    y, (h, c) = layer(input, hx=None, lengths=None, resets=None).
    lengths: (B,) whole numbers from 0 to T in any order; past its length a row's y is 0 and its state stays.
    resets: truth values, where a new sequence begins, as in `Recurrent`. Everything else as in torch.nn.LSTM.
    """


class GRU(DropIn, torch.nn.GRU):
    """torch.nn.GRU, faster, and with `lengths` and `resets`. The equation is recurra.cells.GRU.

    y, h = layer(input, hx=None, lengths=None, resets=None).
    lengths: (B,) whole numbers from 0 to T in any order; past its length a row's y is 0 and its state stays.
    resets: truth values, where a new sequence begins, as in `Recurrent`. Everything else as in torch.nn.GRU.
    """

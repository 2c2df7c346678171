"""Gradients through time: how large dL/ds_t is for every state s, at every step t."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, pad_sequence

from recurra.diagnostics.plots import plot_gradients
from recurra.errors import FileError, InputError, kind_of
from recurra.layers.recording import LaidOut, Place, Watcher, cells_below, watching
from recurra.unroll import Recording


class Through(Mapping[str, Tensor]):
    """By state, ‖dL/ds_t‖ of each sequence at each step: (T, B), zero past each length, (T, 1) for one sequence.

    Keys are the names of the states, as "h" and "c"; where the model runs several cells, with the path of the cell
    before them, as in `layer.record`. They hold those of the last call of each layer, once `backward` has run; several
    backward passes add up, as they do in `.grad`. A layer that the loss does not depend on has zeros.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._calls: dict[str, tuple[Recording, int, LaidOut]] = {}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise InputError(f"{key!r} is no state of this model, whose states are {', '.join(self._keys)}.")
        if key not in self._calls:
            raise InputError(
                f"{key!r} has no gradients yet: call the model inside `with recurra.gradients_through_time(...)`."
            )
        return self._read(key)[0]

    def __contains__(self, key: object) -> bool:
        return key in self._calls

    def __iter__(self) -> Iterator[str]:
        return iter(key for key in self._keys if key in self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def norms(self) -> dict[str, Tensor]:
        """The same over the whole batch, (T,): the norm of all that reaches a state at step t."""
        return {key: _norm(norms, 1) for key, norms in self._all().items()}

    def memory_span(self, fraction: float = 0.01) -> dict[str, int | None]:
        """How many steps back the gradient lives, by state.

        Steps are counted from the last output that the loss reads, against the direction in which the cell runs, to the
        first step at which the norm, past its largest value, is below `fraction` of that value; None where it never is.
        Sequences are aligned at their last outputs, and the norm is the root of the mean square over those that go back
        that far.
        """
        if not isinstance(fraction, Real) or not 0 < fraction < 1:
            raise InputError(
                f"fraction is {fraction!r}, but is part of the largest norm. Give a number between 0 and 1."
            )
        self._all()
        return {key: _span(_backwards(*self._read(key), self._calls[key][0].reverse), fraction) for key in self}

    def plot(self, path: str | PathLike[str]) -> Path:
        """Draws `norms` against t, a line for each layer and state, on a logarithmic axis.

        path: the file, PNG unless its suffix says another format; it is given back.
        Raises FileError for a path that cannot be written, InputError for a suffix that matplotlib has no format for.
        """
        if not isinstance(path, (str, PathLike)):
            raise InputError(f"path is {kind_of(path)}, but names a file. Pass a str or a pathlib.Path.")
        try:
            drawn = plot_gradients(Path(path), {key: norms.tolist() for key, norms in self.norms.items()})
        except OSError as error:
            remedy = "Give the path of a file in a folder that is there and can be written"
            raise FileError(f"{path} cannot be written: {error.strerror}. {remedy}.") from None
        if drawn is None:
            raise InputError("plot draws with matplotlib, which is not installed: pip install 'recurra[plot]'.")
        return drawn

    def _all(self) -> dict[str, Tensor]:
        if not self._calls:
            raise InputError("There are no gradients yet: call the model inside `with gradients_through_time(...)`.")
        return {key: self[key] for key in self}

    def _read(self, key: str) -> tuple[Tensor, Tensor]:
        """The norms (T, B), and the lengths (B,)."""
        if not any(call.arrived for call, _, _ in self._calls.values()):
            raise InputError(
                "No gradient has come yet: call loss.backward(). (torch.autograd.grad does not reach here.)"
            )
        call, k, laid_out = self._calls[key]
        norms = _norm(call.gradients()[k], -1)
        if norms.dim() == 1:
            packed: PackedSequence = laid_out(norms.unsqueeze(1))
            padded, lengths = pad_packed_sequence(packed)
            return padded.squeeze(2), lengths
        T, B = norms.shape
        return norms, torch.full((B,), T) if call.lengths is None else call.lengths


class _Collector(Watcher):
    """Fills a `Through`."""

    def __init__(self, module: nn.Module) -> None:
        cells = [*cells_below(module)]
        alone = len(cells) == 1
        self.keys: dict[Place, tuple[str, ...]] = {
            place: tuple(name if alone or not path else f"{path}.{name}" for name in cell.state_names)
            for path, place, cell in cells
        }
        self.through = Through(tuple(key for keys in self.keys.values() for key in keys))

    def tapped(self, place: Place) -> bool:
        return place in self.keys

    def take(self, place: Place, seen: Recording, laid_out: LaidOut) -> None:
        for k, key in enumerate(self.keys.get(place, ()) if seen.taps else ()):
            self.through._calls[key] = seen, k, laid_out


@contextmanager
def gradients_through_time(model: nn.Module) -> Iterator[Through]:
    """Shows how large dL/ds_t is for every state s of every layer in `model`, at every step t.

        with recurra.gradients_through_time(model) as through:
            loss = criterion(model(x), target)
        loss.backward()
        through["h"]                    # (T, B): the norm for each sequence at each step

    Outputs and gradients are what they are without. Raises InputError for a model without layers of Recurra.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"gradients_through_time takes a torch.nn.Module, and {type(model).__name__} is none.")
    collector = _Collector(model)
    if not collector.keys:
        raise InputError(
            f"{type(model).__name__} has no layer of Recurra, and only those show the gradients of their states. "
            "Put cells into recurra.Recurrent; recurra.accelerate(model) replaces those of torch.nn."
        )
    with watching(collector):
        yield collector.through


def _norm(d: Tensor, axis: int) -> Tensor:
    """In fp64: gradients that vanish are looked at here, and the square of 1e-23 is no number of fp32."""
    norm: Tensor = torch.linalg.vector_norm(d, dim=axis, dtype=torch.float64)
    return norm.to(d.dtype)


def _backwards(norms: Tensor, lengths: Tensor, reverse: bool) -> Tensor:
    """norms (T, B) -> (K,): the root of the mean square k steps back from the last output that the loss reads."""
    rows = []
    for row, n in zip(norms.double().unbind(1), lengths.tolist(), strict=True):
        back = row[:n] if reverse else row[:n].flip(0)
        if len(reached := back.nonzero()):
            rows.append(back[int(reached[0]) :])
    if not rows:
        return norms.new_zeros(0).double()
    counts = pad_sequence([torch.ones_like(row) for row in rows]).sum(1)
    return (pad_sequence(rows).square().sum(1) / counts).sqrt()


def _span(curve: Tensor, fraction: float) -> int | None:
    if not len(curve):
        return None
    largest = int(curve.argmax())
    below = (curve[largest:] < fraction * curve[largest]).nonzero()
    return largest + int(below[0]) if len(below) else None

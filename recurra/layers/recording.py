"""What `Layer.record` and its kin need: who wants to see what of which cell, in calls of this thread."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

from recurra.cell import Cell, recordable
from recurra.errors import InputError
from recurra.unroll import Recording

Place = tuple[int, str]  # the id of a layer, and which of its cells
LaidOut = Callable[[Tensor], Any]  # from rows (T, B, ...), or packed ones (N, ...), to the layout of the call


class Record(dict[str, Any]):
    """What the last call showed: by name, the values of every step, laid out as the layer's own output.

    (T, B, n), (B, T, n) with batch_first, (T, n) for one sequence, or a PackedSequence; zero past each length.
    Gradients flow through them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def __missing__(self, name: str) -> Any:
        if name in self.names:
            raise InputError(f"{name!r} has no values yet: call the layer inside `with layer.record(...)`.")
        raise InputError(f"{name!r} was not recorded: this record has {', '.join(self.names)}.")


class Watcher:
    """Who wants to see something of the calls of layers, from `watching` it on."""

    def shapes(self, place: Place) -> Mapping[str, tuple[int, ...]]:
        """Variables that are wanted of a cell, with their shapes less the batch."""
        return {}

    def tapped(self, place: Place) -> bool:
        """Whether the gradients of a cell's states are wanted."""
        return False

    def take(self, place: Place, seen: Recording, laid_out: LaidOut) -> None:
        """What a call of a cell has shown, also to other watchers."""
        raise NotImplementedError


class _Wishes(Watcher):
    """One open `record`: which names of which cell, and under which keys they are handed out."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        cells = {path: (place, cell) for path, place, cell in cells_below(module)}
        shapes = {path: recordable(cell) for path, (_, cell) in cells.items()}
        alone = len(cells) == 1
        self.keys: dict[Place, dict[str, str]] = {}
        self._shapes = {cells[path][0]: found for path, found in shapes.items()}
        for asked in names:
            path, _, name = asked.rpartition(".")
            chosen = [p for p in cells if name in shapes[p] and (p == path or not path)]
            if not chosen:
                raise _unknown(type(module).__name__, asked, shapes)
            for p in chosen:
                self.keys.setdefault(cells[p][0], {})[name] = name if alone else f"{p}.{name}"
        self.record = Record([key for keys in self.keys.values() for key in keys.values()])

    def shapes(self, place: Place) -> Mapping[str, tuple[int, ...]]:
        return {name: self._shapes[place][name] for name in self.keys.get(place, ())}

    def take(self, place: Place, seen: Recording, laid_out: LaidOut) -> None:
        if keys := self.keys.get(place):
            rows = seen.rows()
            for name, key in keys.items():
                self.record[key] = laid_out(rows[name])


class _Here(threading.local):
    open: tuple[Watcher, ...] = ()


_here = _Here()


def recording(module: nn.Module, names: Sequence[str]) -> AbstractContextManager[Record]:
    """Inside, each call of the layers below `module` in this thread fills the record anew."""
    if not names:
        raise InputError('record was given no name. Name variables of the step, as in record("i", "f").')
    for name in names:
        if not isinstance(name, str):
            raise InputError(f'record was given {name!r}. Name variables of the step, as in record("i", "f").')
    return _record(_Wishes(module, names))


@contextmanager
def _record(wishes: _Wishes) -> Iterator[Record]:
    with watching(wishes):
        yield wishes.record


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Inside, calls of layers in this thread show the watcher what it wants."""
    before = _here.open
    _here.open = (*before, watcher)
    try:
        yield
    finally:
        _here.open = before


def wanted(layer: nn.Module, part: str = "") -> Recording | None:
    """What a call of this cell of the layer shall show; None, at once, where nobody watches or a compiler looks."""
    if is_compiling() or not _here.open:
        return None
    place = (id(layer), part)
    shapes: dict[str, tuple[int, ...]] = {}
    for watcher in _here.open:
        shapes |= watcher.shapes(place)
    tapped = any(watcher.tapped(place) for watcher in _here.open)
    return Recording(shapes, tapped) if shapes or tapped else None


def hand_out(layer: nn.Module, seen: Recording, laid_out: LaidOut, part: str = "") -> None:
    """Gives what was seen to those who asked for it."""
    for watcher in _here.open:
        watcher.take((id(layer), part), seen, laid_out)


def cells_below(module: nn.Module) -> Iterator[tuple[str, Place, Cell]]:
    """Every cell that the layers below run: its path, where it is, and itself."""
    for path, below in module.named_modules():
        cells = getattr(below, "cells_by_part", None)
        for part, cell in (cells() if cells is not None else {}).items():
            yield ".".join(p for p in (path, part) if p), (id(below), part), cell


def _unknown(owner: str, asked: str, shapes: dict[str, dict[str, tuple[int, ...]]]) -> InputError:
    if not shapes:
        return InputError(f"{owner} runs no cell that could be recorded.")
    homes: dict[str, list[str]] = {}
    for path, found in shapes.items():
        homes.setdefault(", ".join(found), []).append(path)
    listed = "; ".join(f"{found} in {', '.join(paths)}" if len(shapes) > 1 else found for found, paths in homes.items())
    return InputError(f"{owner} has nothing called {asked!r} to record. It has {listed}.")

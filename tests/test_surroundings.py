"""What a step reads outside its cell: a change of it is seen at the next call, or the step runs on scan."""

import array
import collections
import contextvars
import ctypes
import functools
import importlib
import os
import pathlib
import random
import sys
import threading
import types
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor, nn

from recurra import Cell, unroll
from recurra.scan import scan
from recurra.unroll import explain

GAIN, TABLE = 1.0, {"a": 1.0}


def gained(z: Tensor) -> Tensor:
    return z * GAIN * TABLE["a"]


def cell_reading_outside(factor: list[float]) -> Cell:
    class Reading(Cell):
        def step(self, x: Tensor, h: Tensor) -> Tensor:
            return gained(x + h) * factor[0]

    return Reading(3, 3)


@pytest.mark.parametrize("what", ["global", "entry", "closure"])
@pytest.mark.usefixtures("strict")
def test_a_value_outside_the_cell_is_seen(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factor = [1.0]
    cell, x = cell_reading_outside(factor), torch.randn(3, 2, 3)
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])
    if what == "global":
        monkeypatch.setitem(globals(), "GAIN", 2.0)
    elif what == "entry":
        monkeypatch.setitem(TABLE, "a", 2.0)
    else:
        factor[0] = 2.0
    torch.testing.assert_close(unroll(cell, x)[0], scan(cell, x)[0])


class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain


class Scaling:
    shared = 1.0

    def __init__(self) -> None:
        self.gain = 1.0
        self.inner = Slotted()

    def __call__(self, z: Tensor) -> Tensor:
        return z * self.gain * self.inner.gain * self.shared * GAIN

    @staticmethod
    def outside(z: Tensor) -> Tensor:
        return z * GAIN


class Shared:
    gain = 1.0


SHARED = Scaling()
ARRAY = numpy.ones(3, dtype=numpy.float32)
OTHER = types.ModuleType("other")
OTHER.__dict__.update(GAIN=1.0, Shared=Shared, scaled=Scaling.outside)


def with_default(z: Tensor, gains: list[float] = [1.0], *, more: list[float] = [1.0]) -> Tensor:  # noqa: B006
    return z * gains[0] * more[0]


with_default.gain = 1.0


def set_slot(cell: Cell) -> None:
    cell.held.gain = 2.0


def set_outside(cell: Cell) -> None:
    globals()["GAIN"] = 2.0


def set_entry(cell: Cell) -> None:
    cell.held[0] = 2.0


def set_array_in_list(cell: Cell) -> None:
    cell.held[0][:] = 2.0


# (how the step uses what it holds, what it holds, the change)
REACHED: dict[str, tuple[Callable[..., object], Callable[[], object], Callable[[Cell], None]]] = {
    "slots": (lambda held, z: z * held.gain, Slotted, set_slot),
    "an object that is called": (lambda held, z: held(z), Scaling, set_slot),
    "slots of an object in an object": (lambda held, z: held(z), Scaling, lambda c: set_slot_of(c.held.inner)),
    "the class of an object": (lambda held, z: held(z), Scaling, lambda c: setattr(Scaling, "shared", 2.0)),
    "a global, in the method of an object": (lambda held, z: held(z), Scaling, set_outside),
    "a global, in a lambda": (lambda held, z: held(z), lambda: lambda z: z * GAIN, set_outside),
    "a method": (lambda held, z: held(z), lambda: Scaling().__call__, lambda c: set_slot_of(c.held.__self__)),
    "a method in a list": (
        lambda held, z: held[0](z),
        lambda: [Scaling().__call__],
        lambda c: set_slot_of(c.held[0].__self__),
    ),
    "a partial": (
        lambda held, z: held(z),
        lambda: functools.partial(lambda gains, z: z * gains[0], [1.0]),
        lambda c: c.held.args[0].__setitem__(0, 2.0),
    ),
    "an array": (lambda held, z: z * float(held[0]), lambda: numpy.ones(3), set_entry),
    "an array as a tensor": (lambda held, z: z * torch.tensor(held), lambda: numpy.ones(3), set_entry),
    "an array in a list": (lambda held, z: z * float(held[0][0]), lambda: [numpy.ones(3)], set_array_in_list),
    "a deque": (lambda held, z: z * held[0], lambda: collections.deque([1.0]), set_entry),
    "array.array": (lambda held, z: z * held[0], lambda: array.array("d", [1.0]), set_entry),
    "bytes": (lambda held, z: z * held[0], lambda: bytearray([1]), lambda c: c.held.__setitem__(0, 2)),
    "a global array": (lambda held, z: z * float(ARRAY[0]), int, lambda c: ARRAY.fill(2.0)),
    "a global object": (lambda held, z: SHARED(z), int, lambda c: set_slot_of(SHARED)),
    "a global of another module": (lambda held, z: z * OTHER.GAIN, int, lambda c: setattr(OTHER, "GAIN", 2.0)),
    "a class of another module": (lambda held, z: z * OTHER.Shared.gain, int, lambda c: set_slot_of(Shared)),
    "a function of another module": (lambda held, z: OTHER.scaled(z), int, set_outside),
    "a function replaced there": (
        lambda held, z: OTHER.scaled(z),
        int,
        lambda c: setattr(OTHER, "scaled", lambda z: z * 2),
    ),
    "a module handed on": (lambda held, z: z * getattr(OTHER, "GA" + "IN"), int, lambda c: setattr(OTHER, "GAIN", 2.0)),
    "a global class": (lambda held, z: z * Shared.gain, int, lambda c: set_slot_of(Shared)),
    "a default": (lambda held, z: with_default(z), int, lambda c: with_default.__defaults__[0].__setitem__(0, 2.0)),
    "a keyword's default": (
        lambda held, z: with_default(z),
        int,
        lambda c: with_default.__kwdefaults__["more"].__setitem__(0, 2.0),
    ),
    "an attribute of a function": (lambda held, z: z * with_default.gain, int, lambda c: set_slot_of(with_default)),
    "a module without weights in a list": (
        lambda held, z: held[0](z),
        lambda: [nn.ELU(1.0)],
        lambda c: setattr(c.held[0], "alpha", 2.0),
    ),
}


def set_slot_of(value: object) -> None:
    value.gain = 2.0


@pytest.mark.parametrize("case", REACHED)
@pytest.mark.usefixtures("strict")
def test_whatever_a_step_reaches_by_name_is_seen(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use, make, change = REACHED[case]

    class Reaching(Cell):
        def step(self, x: Tensor, h: Tensor) -> Tensor:
            return use(self.held, -x.exp() - h)

    kept = {id(o): (o, dict(vars(o))) for o in (OTHER, SHARED, with_default)}
    cell, x = Reaching(3, 3).double(), torch.randn(3, 2, 3, dtype=torch.double)
    cell.register_buffer("rows", torch.zeros(1, dtype=torch.double))
    cell.held = make()
    monkeypatch.setitem(globals(), "GAIN", 1.0)
    monkeypatch.setattr(Scaling, "shared", 1.0)
    monkeypatch.setattr(Shared, "gain", 1.0)
    try:
        before, _ = unroll(cell, x)
        change(cell)
        after, _ = unroll(cell, x)
        expected, _ = scan(cell, x)
    finally:
        for o, was in kept.values():
            vars(o).update(was)
        ARRAY.fill(1.0)
        with_default.__defaults__[0][0] = with_default.__kwdefaults__["more"][0] = 1.0
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(before, after)


class AsksForGradients(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h if torch.is_grad_enabled() else x - h


class AsksForDtype(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * (1.0 if torch.get_default_dtype() == torch.float32 else 2.0)


class AsksForThreads(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h / torch.get_num_threads()


class AsksForDeterminism(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * (2.0 if torch.are_deterministic_algorithms_enabled() else 1.0)


CONTEXT = contextvars.ContextVar("CONTEXT", default=1.0)
LOCAL = threading.local()
LOCAL.gain = 1.0
C = ctypes.c_double(1.0)


class ReadsAContext(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * CONTEXT.get()


class ReadsItsThread(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * LOCAL.gain


class ReadsC(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * C.value


class ReadsAFile(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        with open(os.devnull) as file:
            return x + h * (1.0 + len(file.read()))


FILE = pathlib.Path(os.devnull)


class ReadsAGlobalPath(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        with FILE.open() as file:
            return x + h * (1.0 + len(file.read()))


class ReadsItsPath(Cell):
    path = pathlib.Path(os.devnull)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * (1.0 + len(self.path.read_text()))


class ReadsBytesOfItsPath(ReadsItsPath):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * (1.0 + len(self.path.read_bytes()))


class MakesAPath(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * (2.0 if pathlib.Path(os.devnull).exists() else 1.0)


class LoadsAnArray(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * len(numpy.fromfile(os.devnull))


class LoadsATensor(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + (torch.load(os.devnull) if len(x) > 100 else h)


class LooksUpAModule(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * sys.modules["math"].e


class ImportsByName(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * importlib.import_module("math").e


class ReadsTheEnvironment(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * float(os.environ.get("GAIN", "1"))


class ReadsMadeUpNames(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * globals()["GAIN"]


class Imports(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        from steps import Step  # a module of the user's

        return x + h if Step else x


class DrawsInPython(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * random.random()


class DrawsInNumpy(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h * float(numpy.random.rand())  # noqa: NPY002 (what users write)


class ReturnsTruth(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return (x + h) > 0


class WritesItsState(Cell):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return x + h.mul_(0.5)


def passed_on(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(step)
    def passing(*arguments: Tensor) -> Tensor:
        return step(*arguments)

    return passing


class Decorated(Cell):
    @passed_on
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(x + h)


@pytest.mark.usefixtures("strict")
def test_a_decorated_step_is_traced() -> None:
    x = torch.randn(2, 2, 3)
    torch.testing.assert_close(unroll(Decorated(3, 3), x)[0], scan(Decorated(3, 3), x)[0])


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (AsksForGradients, "is_grad_enabled() else"),
        (AsksForDtype, "torch.get_default_dtype()"),
        (AsksForThreads, "torch.get_num_threads()"),
        (AsksForDeterminism, "torch.are_deterministic_algorithms_enabled()"),
        (ReadsAContext, "CONTEXT.get()"),
        (ReadsItsThread, "LOCAL.gain"),
        (ReadsC, "C.value"),
        (ReadsAFile, "open(os.devnull)"),
        (ReadsAGlobalPath, "FILE.open()"),
        (ReadsItsPath, "self.path.read_text()"),
        (ReadsBytesOfItsPath, "self.path.read_bytes()"),
        (MakesAPath, "pathlib.Path(os.devnull)"),
        (LoadsATensor, "torch.load"),
        (LoadsAnArray, "numpy.fromfile"),
        (LooksUpAModule, 'sys.modules["math"]'),
        (ImportsByName, 'importlib.import_module("math")'),
        (ReadsTheEnvironment, "os.environ.get"),
        (ReadsMadeUpNames, "globals()"),
        (Imports, "from steps import Step"),
        (DrawsInPython, "random.random()"),
        (DrawsInNumpy, "numpy.random.rand()"),
        (ReturnsTruth, "def step"),
        (WritesItsState, "def step"),
    ],
)
def test_what_no_trace_can_see_runs_on_scan(kind: type[Cell], line: str) -> None:
    cell = kind(3, 3)
    told = explain(cell, torch.randn(2, 2, 3))
    assert told.executors == ("scan",)
    assert "test_surroundings.py" in told.visits[0].line and line in told.visits[0].line

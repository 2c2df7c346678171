"""What a step reads from outside its arguments and weights: found by following names from its functions.

A step names globals, variables it closes over, modules, classes and objects; these have functions of their own, which
name others. All that can be reached so is `Surroundings`. Libraries (the standard library, torch, numpy, Recurra,
installed packages) are not searched: nobody changes them while a program runs.
"""

import builtins
import copyreg
import ctypes
import dis
import functools
import inspect
import io
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from recurra.errors import kind_of

_ABSENT = object()
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "recurra"}
_UNASKED = frozenset(  # special methods that making, printing or copying an object calls, not a step
    f"__{name}__"
    for name in (
        "init new post_init repr str del setattr delattr reduce reduce_ex getstate setstate init_subclass".split()
    )
)
_MACHINERY = frozenset("logging threading _thread re io _io concurrent asyncio queue weakref torch".split())
SYSTEM = (frozenset(nn.Module().__dict__) | {"_wrappers"}) - {"training"}  # the cell's own wrappers look at it


class Surroundings:
    """Everything outside that a cell's step can reach by name.

    functions  its methods and the user's functions they name, with those of the objects they use
    places     (namespace, name, value): globals, and attributes of modules that are read by name
    closed     (variable, value): what functions close over
    classes    the user's classes whose attributes are read
    values     what can change inside: containers, arrays, objects
    """

    def __init__(self, cell: nn.Module) -> None:
        self.functions: dict[FunctionType, None] = {}
        self.places: list[tuple[Mapping[str, Any], str, Any]] = []
        self.closed: list[tuple[CellType, Any]] = []
        self.classes: dict[type, None] = {}
        self.values: dict[int, Any] = {}
        self._methods: list[tuple[str, FunctionType]] = []
        self._names = {"step", "forward"}
        self._seen: dict[int, Any] = {}
        for m in cell.modules():
            for c in type(m).__mro__:
                self._class(c)
            for k, v in m.__dict__.items():
                if k not in SYSTEM:
                    self._value(v)
        called = -1
        while called < len(self.functions):  # a function names methods, and these name others
            called = len(self.functions)
            for name, f in self._methods:
                if name in self._names:
                    self._function(f)

    def _class(self, c: type) -> None:
        if c in self.classes or is_library(c):
            return
        self.classes[c] = None
        for kind in inspect.getmro(type(c)):  # a class has the attributes of its metaclass
            self._class(kind)
        copyreg._slotnames(c)  # type: ignore[attr-defined]  # what the first copy would write into the class
        for name, member in list(vars(c).items()):
            special = name.startswith("__")
            for f in _functions_of(member):
                if not special:
                    self._methods.append((name, f))
                elif name not in _UNASKED and not issubclass(c, (nn.Module, type)):
                    self._methods.append(("step", f))  # called by an operator, whose name no step spells
            if not special and not isinstance(member, FunctionType):
                self._value(member)

    def _function(self, f: FunctionType) -> None:
        if f in self.functions:
            return
        self.functions[f] = None
        self._names |= _spelled(f.__code__)
        for namespace, name, value in () if _library(f.__globals__.get("__name__")) else _read_by(f):
            self.places.append((namespace, name, value))
            self._value(value)
        for variable, value in _closed_by(f):
            self.closed.append((variable, value))
            self._value(value)
        for value in [*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values(), f.__dict__ or None]:
            self._value(value)

    def _value(self, value: Any, held: bool = False) -> None:
        """Follows a value to the functions that using it may call; what can change inside is kept.

        held: it lies in a value that is kept.
        """
        if value is None or id(value) in self._seen or isinstance(value, (bool, int, float, str, bytes, torch.Tensor)):
            return
        self._seen[id(value)] = value
        for f in _functions_of(value):
            if not _library(f.__module__):
                self._function(f)
        if isinstance(value, type):
            for c in value.__mro__:
                self._class(c)
        elif isinstance(value, MethodType):
            self._value(value.__self__, held=True)
        elif isinstance(value, functools.partial):
            for v in (value.func, *value.args, *value.keywords.values()):
                self._value(v, held=True)
        if isinstance(value, (type, ModuleType, FunctionType, property, staticmethod, classmethod)):
            return
        if not held:
            self.values[id(value)] = value
        for v in _inside(value):
            self._value(v, held=True)
        for c in type(value).__mro__:
            self._class(c)


def is_library(c: type) -> bool:
    """Classes that nobody changes while a program runs."""
    return c.__module__ == "recurra.cell.base" or (_root(c) != "recurra" and _root(c) in _LIBRARIES)


def hidden_input(f: FunctionType) -> tuple[str, str, int] | None:
    """What f asks for that no trace can see, if anything: (what, file, line)."""
    for value, name, line in _chains(f):
        if (what := _asks(value, name)) is not None:
            return what, f.__code__.co_filename, line
    return None


def _asks(value: Any, name: str) -> str | None:
    for asked, what in _ASKED:
        if any(value is a for a in asked):
            return f"{what} ({name})"
    if isinstance(value, _ELSEWHERE):
        return f"reads {name}, {kind_of(value)}, whose value no trace can follow"
    home = value.__name__ if isinstance(value, ModuleType) else type(getattr(value, "__self__", None)).__module__
    return f"draws random numbers ({name})" if home == "random" or home.startswith("numpy.random") else None


# Objects that keep their value where attributes do not show it.
_ELSEWHERE = (ContextVar, threading.local, ctypes._SimpleCData, ctypes.Array, ctypes.Structure, Path)

_READERS = [getattr(m, k) for m in (np, torch) for k in "load loadtxt genfromtxt fromfile".split() if hasattr(m, k)]

_ASKED: list[tuple[tuple[Any, ...], str]] = [
    ((torch.is_grad_enabled, torch.is_inference_mode_enabled), "asks whether gradients are on"),
    ((torch.is_autocast_enabled,), "asks whether autocast is on"),
    ((torch.get_default_dtype,), "asks for the default dtype"),
    ((torch.get_num_threads,), "asks for the number of threads"),
    ((torch.are_deterministic_algorithms_enabled,), "asks whether algorithms are deterministic"),
    ((sys.modules,), "looks up a module as it runs"),
    ((open, io.open, os.open, *_READERS, Path.read_text, Path.read_bytes), "reads a file"),
    ((Path, os.stat, os.listdir, os.path.exists), "looks at the file system"),
    ((os.environ, os.getenv), "reads the environment"),
    ((globals, locals, vars, eval, exec), "reads variables by names that are made as it runs"),
    ((__import__, import_module), "imports a module as it runs"),
    ((time.time, time.perf_counter, time.monotonic, time.time_ns), "asks for the time"),
]


def _spelled(code: CodeType) -> set[str]:
    inner = [_spelled(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def _functions_of(value: Any) -> Iterator[FunctionType]:
    """The functions behind a method, a property or a wrapped function."""
    for f in (value, *(getattr(value, k, None) for k in ("__func__", "fget", "func", "__wrapped__"))):
        if isinstance(f, FunctionType):
            yield f


def _inside(value: Any) -> Iterator[Any]:
    """What a container or object holds."""
    if isinstance(value, nn.Module):
        yield from (v for k, v in value.__dict__.items() if k not in SYSTEM)
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)) or type(value).__name__ == "deque":
        yield from value
    elif not is_machinery(value):
        yield from contents(value).values()


def contents(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in __slots__ included."""
    slots = [s for c in type(value).__mro__ for s in _slots(c)]
    held = {s: getattr(value, s) for s in slots if hasattr(value, s)}
    return {**held, **getattr(value, "__dict__", {})}


def is_machinery(value: Any) -> bool:
    """Loggers, locks, patterns and the like: no step's numbers depend on what they hold."""
    return _root(type(value)) in _MACHINERY


def _slots(c: type) -> Iterable[str]:
    slots = c.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else [s for s in slots if s not in ("__dict__", "__weakref__")]


# ------------------------------------------------------------------------------------------ what a function reads


def _read_by(f: FunctionType) -> Iterator[tuple[Mapping[str, Any], str, Any]]:
    """(namespace, name, value) of the globals that f reads, and of the attributes of the user's modules."""
    for closed, names in _names(f.__code__):
        namespace: Mapping[str, Any] = _closure(f) if closed else f.__globals__
        for k, name in enumerate(names):
            value = namespace.get(name, _ABSENT)
            if value is _ABSENT or (isinstance(value, ModuleType) and _library(value.__name__)):
                break
            if k or not closed:
                yield namespace, name, value
            if not isinstance(value, ModuleType):
                break
            namespace = vars(value)
            if k + 1 == len(names):  # handed on whole: anything in it may be read
                yield from ((namespace, n, v) for n, v in [*namespace.items()] if not n.startswith("__"))


def _chains(f: FunctionType) -> Iterator[tuple[Any, str, int]]:
    """(value, name, line) of every global and built-in that f names, of the attributes of modules, and of imports."""
    for (closed, names), line in _names(f.__code__).items():
        namespace: Mapping[str, Any] = _closure(f) if closed else f.__globals__
        for k, name in enumerate(names):
            value = namespace.get(name, _ABSENT if k or closed else vars(builtins).get(name, _ABSENT))
            if value is _ABSENT:
                break
            yield value, name, line
            if not isinstance(value, ModuleType):
                break
            namespace = vars(value)
    yield from _unnamed(f.__code__)


@functools.lru_cache(maxsize=4096)
def _names(whole: CodeType) -> dict[tuple[bool, tuple[str, ...]], int]:
    """(whether a is closed over, (a, b, c)) for every a.b.c in the code of a function, with its line."""
    found: dict[tuple[bool, tuple[str, ...]], int] = {}
    for code in _codes(whole):
        line, at, closed = code.co_firstlineno, 0, False
        chain: tuple[str, ...] = ()
        for i in [*dis.get_instructions(code), None]:
            if i is not None and i.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain:
                chain = (*chain, i.argval)
                continue
            if chain:
                found.setdefault((closed, chain), at)
            chain = ()
            if i is None:
                break
            line = (i.positions.lineno if i.positions else None) or line
            closed = i.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF") and i.argval in whole.co_freevars
            if closed or i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                chain, at = (i.argval,), line
    return found


@functools.lru_cache(maxsize=4096)
def _unnamed(code: CodeType) -> list[tuple[Any, str, int]]:
    """What code calls without a name: it imports the user's modules, or reads the file of whatever path it has.

    (`open` is a method of a path too, and of much else that a step may have, a gate for one.)
    """
    found: list[tuple[Any, str, int]] = []
    for c in _codes(code):
        line = c.co_firstlineno
        for i in dis.get_instructions(c):
            line = (i.positions.lineno if i.positions else None) or line
            if i.opname == "IMPORT_NAME" and i.argval.partition(".")[0] not in _LIBRARIES:
                found.append((__import__, "import", line))
            elif i.opname in ("LOAD_ATTR", "LOAD_METHOD") and i.argval in ("read_text", "read_bytes"):
                found.append((getattr(Path, i.argval), i.argval, line))
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:  # lambdas, comprehensions
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _closed_by(f: FunctionType) -> Iterator[tuple[CellType, Any]]:
    for variable in f.__closure__ or ():
        try:
            yield variable, variable.cell_contents
        except ValueError:  # not yet given a value
            continue


def _closure(f: FunctionType) -> dict[str, Any]:
    found = {}
    for name, variable in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        try:
            found[name] = variable.cell_contents
        except ValueError:
            continue
    return found


def _root(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


@functools.lru_cache(maxsize=4096)
def _library(name: str | None) -> bool:
    """Whether a module is one that nobody changes while a program runs."""
    file = getattr(sys.modules.get(name or ""), "__file__", None) or ""
    return (name or "").partition(".")[0] in _LIBRARIES or "site-packages" in file

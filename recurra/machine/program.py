"""A native program: the list of integers, compiled for each dtype on first use, and how it is called."""

import importlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from recurra.errors import InputError
from recurra.machine.operands import Memory
from recurra.program.layout import Layout
from recurra.program.values import Value

One = TypeVar("One")
Other = TypeVar("Other")
KINDS = {"fp32": 0, "fp64": 1, "bf16": 2, "fp32-fast": 3, "int8": 4}  # native/program.h
TRANSIENT = 1  # the address of an array that is needed only while a chunk of rows goes through the stages
HERE = 2  # that of any other, where only its being there matters


def _load() -> tuple[Any, str]:
    """The library, or None and why."""
    try:
        return importlib.import_module("recurra._native"), ""
    except ModuleNotFoundError:
        return None, ""
    except ImportError as error:  # it is there, and not for this Python or this system
        return None, f"recurra._native cannot be loaded: {error}; install Recurra again"


library, _unloadable = _load()
# The builds by the names that RECURRA_ISA gives them, from the narrowest on.
_SETS = {"v3": "avx2", "v4": "avx512", "bf16": "avx512-bf16", "amx": "amx"}


def available() -> str:
    """ "" where the native machine can run here, else why not. Raises InputError when RECURRA_ISA is no set of ours."""
    if library is None:
        return _unloadable or "this installation has no native part (recurra._native)"
    loaded = _SETS.get(library.isa(), library.isa())
    if not loaded:
        return "this processor has no AVX2"
    wish = os.environ.get("RECURRA_ISA") or loaded
    if wish not in (loaded, *_SETS.values()):
        sets = ", ".join(_SETS.values())
        raise InputError(
            f"RECURRA_ISA is {wish!r}. Choose one of {sets}, or leave it unset for the widest there is here."
        )
    if wish != loaded:
        return f"RECURRA_ISA is {wish}, and {loaded} is loaded: the processor has no more, or it was set too late"
    return ""


_forked = False  # whether this process is a child of one that had loaded us


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def leave_the_pool() -> None:
    """In a forked child PyTorch runs one thread from our first call on.

    It has none of its parent's threads, and PyTorch's own operations on many numbers would wait for them for ever.
    """
    if _forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


class _Here(threading.local):
    """waiting: the calls of this Python thread that are to be run later; None: each is run at once."""

    waiting: list[tuple[Any, tuple[Any, ...], object]] | None = None


_here = _Here()


def threads() -> tuple[int, str]:
    """The most threads that a call uses, and why PyTorch has more; "" where that needs no reason."""
    if _forked:
        return 1, "a forked child has none of its parent's threads; one that is spawned has its own"
    asked = torch.get_num_threads()
    most = asked if library is None else library.most(asked)
    return most, f"PyTorch has {asked}, and no more than {most} can run at once here" if most < asked else ""


class NativeProgram:
    """What a call hands over: the layout, addresses of arrays, the statics of the plan in their order, and targets.

    gains      what is summed up over all rows after the stages (native/program.h)
    targets    how many addresses a call has for their results; 0 is the address of one that is not wanted
    precision  a name of KINDS; "": the arithmetic of the dtype
    """

    def __init__(
        self,
        memory: Memory,
        stages: Sequence[list[int]],
        statics: Sequence[Value],
        gains: Sequence[list[int]] = (),
        targets: int = 0,
        precision: str = "",
    ) -> None:
        self._precision = precision
        self.code, self.constants = memory.procedure(stages, gains, targets), memory.constants
        self._strides = tuple(s.shape[1] if len(s.shape) == 2 else 0 for s in statics)
        self._handles: dict[torch.dtype, Any] = {}

    def handle(self, dtype: torch.dtype) -> Any:
        """The compiled program."""
        found = self._handles.get(dtype)
        if found is None:
            name = self._precision or ("fp64" if dtype is torch.float64 else "fp32")
            found = self._handles[dtype] = library.Program(self.code, self.constants, KINDS[name])
        return found

    def run(
        self,
        layout: Layout,
        arrays: list[int],
        statics: Sequence[Tensor],
        dtype: torch.dtype,
        targets: Sequence[int] = (),
        memory: object = None,
    ) -> None:
        """One call. memory: what else must live until it has run, apart from what the caller gave and is given."""
        statics, strides = self.addressable(statics)
        handle, waiting = self.handle(dtype), _here.waiting
        call = (
            layout.T, layout.B, layout.N, _offsets(layout), torch.get_num_threads(), arrays,
            [s.data_ptr() for s in statics], strides, targets,
        )  # fmt: skip
        if waiting is None:
            handle.run(*call)
        else:
            waiting.append((handle, call, (statics, memory)))

    def shape(
        self, layout: Layout, arrays: list[int], dtype: torch.dtype, threads: int, targets: Sequence[int] = ()
    ) -> dict[str, Any]:
        """What `run` would do with so many threads: how these share the work, chunks and tiles, and what is moved."""
        told: dict[str, Any] = self.handle(dtype).describe(
            layout.T, layout.B, layout.N, _offsets(layout), threads, arrays, list(targets)
        )
        return told

    def addressable(self, statics: Sequence[Tensor]) -> tuple[Sequence[Tensor], tuple[int, ...]]:
        """The statics as the machine can read them, rows whole, and their row strides."""
        for s in statics:
            if not s.is_contiguous():
                break
        else:
            return statics, self._strides
        whole = [s if s.dim() == 2 and s.stride(1) == 1 else s.contiguous() for s in statics]
        return whole, tuple(s.stride(0) if s.dim() == 2 else 0 for s in whole)


def beside(one: Callable[[], One], other: Callable[[], Other]) -> tuple[One, Other]:
    """What both give, each by a call whose results it does not read, at the same time and on a thread each."""
    if threads()[0] < 2:
        return one(), other()
    waiting: list[tuple[Any, tuple[Any, ...], object]] = []
    _here.waiting = waiting
    try:
        results = one(), other()
    finally:
        _here.waiting = None
    if len(waiting) == 2:
        (first, a, _), (second, b, _) = waiting
        library.run_both(first, a, second, b)
    else:  # one had nothing to compute
        for handle, call, _ in waiting:
            handle.run(*call)
    return results


def _offsets(layout: Layout) -> int:
    """The address of the first rows of all steps; 0 where every sequence has all steps."""
    if layout.batch_sizes is None:
        return 0
    if layout.handle is None:
        layout.handle = torch.tensor(layout.offsets, dtype=torch.int64)
    assert isinstance(layout.handle, Tensor)
    return layout.handle.data_ptr()

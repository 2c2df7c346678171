"""Everything a step may depend on apart from arguments and weights, as it was.

These are the Python attributes of a cell, and the globals and closed-over variables that its functions read.
"""

from array import array
from collections import deque
from collections.abc import Mapping
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from recurra.program.surroundings import Surroundings, contents, is_machinery

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type)
_CONTAINERS = (list, deque, Mapping, set, bytearray, array, np.ndarray, MethodType, partial)
GLOBAL_HOOKS = (
    _module._global_forward_hooks,
    _module._global_forward_pre_hooks,
    _module._global_backward_hooks,
    _module._global_backward_pre_hooks,
)


def frozen(value: Any, around: frozenset[int] = frozenset()) -> Any:
    """A copy to compare with later: what can change inside by what it holds, tensors and weights by identity.

    around: the ids of what holds the value, so that what holds itself comes to an end.
    """
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return "tensor", id(value), value._version
    if id(value) in around or _only_itself(value):
        return "same", id(value)
    around |= {id(value)}
    if isinstance(value, np.ndarray):
        return "array", value.dtype, value.shape, value.tobytes()
    if isinstance(value, (list, tuple, deque)):
        return type(value), tuple(frozen(v, around) for v in value)
    if isinstance(value, Mapping):
        return type(value), tuple((frozen(k, around), frozen(v, around)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(frozen(v, around) for v in value)
    if isinstance(value, (bytearray, array)):
        return type(value), bytes(value)
    if isinstance(value, MethodType):
        return "method", id(value.__func__), frozen(value.__self__, around)
    if isinstance(value, partial):
        return "partial", *(frozen(v, around) for v in (value.func, value.args, value.keywords))
    return "object", id(value), type(value), frozen(contents(value), around)


def _only_itself(value: Any) -> bool:
    """Functions, classes, machinery, and modules with weights: weights are no part of a trace unless registered."""
    if isinstance(value, nn.Module):
        return any(True for _ in chain(value.parameters(), value.buffers()))
    return isinstance(value, (FunctionType, BuiltinFunctionType, ModuleType)) or is_machinery(value)


def _may_change(value: Any) -> bool:
    """Whether comparing by identity is not enough."""
    if isinstance(value, (tuple, frozenset)):
        return any(_may_change(v) for v in value)
    held = hasattr(value, "__dict__") or contents(value) or isinstance(value, _CONTAINERS)
    return bool(held) and not isinstance(value, (*_PLAIN, Tensor)) and not _only_itself(value)


class Fingerprint:
    """The attributes of a cell and its submodules at one moment. `holds()` says whether they are still the same.

    Attributes are compared by identity first, so that the check of a cell without submodules costs a microsecond; what
    can change inside (lists, dicts, objects) is compared by content.
    """

    __slots__ = (
        "_attributes",
        "_cell",
        "_children",
        "_classes",
        "_closed",
        "_contents",
        "_flat",
        "_globals",
        "_hooked",
        "_hooks",
        "_missing",
        "_modes",
        "_tensors",
    )

    def __init__(self, cell: nn.Module, loose: bool = False) -> None:
        """loose: of the attributes only `training` counts, for a cell that changes itself at every step."""
        modules = list(cell.modules())
        self._modes = [(m.__dict__, m.training) for m in modules] if loose else None
        self._cell = ref(cell), cell.__class__  # whose life is not ours to prolong
        self._classes = [(m, m.__class__) for m in modules[1:]]
        around = Surroundings(cell)
        self._attributes = [
            (d, tuple(d.values())) for d in [*[m.__dict__ for m in modules], *[c.__dict__ for c in around.classes]]
        ]
        self._children = [(m._modules, dict(m._modules)) for m in modules]
        # parameters and buffers may be added, or removed, which whoever reads them by name will notice
        self._tensors = [(d, len(d)) for m in modules for d in (m._parameters, m._buffers)]
        self._missing = [(d, k) for d, _ in self._tensors for k, v in d.items() if v is None]
        self._globals, self._closed = around.places, around.closed
        own = {id(m) for m in modules}
        changing = [v for v in around.values.values() if id(v) not in own and _may_change(v)]
        self._flat = [(v, v.copy()) for v in changing if _is_flat(v)]
        self._contents = [(v, frozen(v)) for v in changing if not _is_flat(v)]
        # hooks of the cell itself do not run: the step is called, not the cell
        self._hooks = [
            h
            for m in modules[1:]
            for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
        ]
        self._hooks += GLOBAL_HOOKS if len(modules) > 1 else ()
        self._hooked = any(self._hooks)

    def holds(self) -> bool:
        """Whether no attribute has changed."""
        cell, kind = self._cell
        if cell().__class__ is not kind:
            return False
        for m, kind in self._classes:
            if m.__class__ is not kind:
                return False
        if self._modes is not None:
            return all(d.get("training") == mode for d, mode in self._modes)
        try:
            for attributes, values in self._attributes:
                if tuple(attributes.values()) != values:
                    return False
        except (RuntimeError, TypeError, ValueError):  # what cannot be compared is another object
            return False
        for namespace, name, value in self._globals:
            if namespace.get(name) is not value:
                return False
        for variable, value in self._closed:
            if variable.cell_contents is not value:
                return False
        for value, copy in self._flat:
            if value != copy:
                return False
        for value, copy in self._contents:
            if frozen(value) != copy:
                return False
        for children, same in self._children:
            if children != same:  # modules are equal when they are one
                return False
        for members, count in self._tensors:
            if len(members) != count:
                return False
        for members, key in self._missing:
            if members.get(key) is not None:
                return False
        return any(self._hooks) == self._hooked if self._hooks else True

    def hooked(self) -> bool:
        """Whether a submodule had hooks, which may do anything."""
        return self._hooked


def _is_flat(value: Any) -> bool:
    return type(value) in (dict, list) and all(
        isinstance(v, (*_PLAIN, FunctionType, BuiltinFunctionType))
        for v in (value.values() if type(value) is dict else value)
    )

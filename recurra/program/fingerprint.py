"""Everything a step may depend on apart from arguments and weights, as it was.

These are the Python attributes of a cell, and the globals and closed-over variables that its functions read.
"""

from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from recurra.program.surroundings import closed_values, functions, global_values

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type)
_SYSTEM = frozenset(nn.Module().__dict__) - {"training"}
_GLOBAL_HOOKS = (
    _module._global_forward_hooks,
    _module._global_forward_pre_hooks,
    _module._global_backward_hooks,
    _module._global_backward_pre_hooks,
)


def frozen(value: Any, depth: int = 8) -> Any:
    """A copy to compare with later: containers and objects by what they hold, tensors and modules by identity."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return "tensor", id(value), value._version
    if depth == 0 or isinstance(value, nn.Module):
        return "same", id(value)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(frozen(v, depth - 1) for v in value)
    if isinstance(value, Mapping):
        return type(value), tuple((frozen(k, depth - 1), frozen(v, depth - 1)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(frozen(v, depth - 1) for v in value)
    inside = getattr(value, "__dict__", None)
    if inside is None or callable(value):
        return "same", id(value)
    return "object", id(value), frozen(dict(inside), depth - 1)


class Fingerprint:
    """The attributes of a cell and its submodules at one moment. `holds()` says whether they are still the same.

    Attributes are compared by identity first, so that the check of a cell without submodules costs a microsecond; what
    can change inside (lists, dicts, objects) is compared by content.
    """

    __slots__ = (
        "_attributes",
        "_children",
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
        self._modes = [(m, m.training) for m in modules] if loose else None
        classes = dict.fromkeys(c for m in modules for c in type(m).__mro__ if not is_library(c))
        self._attributes = [
            (d, tuple(d.values())) for d in [*[m.__dict__ for m in modules], *[c.__dict__ for c in classes]]
        ]
        self._children = [(m._modules, dict(m._modules)) for m in modules]
        # parameters and buffers may be added, or removed, which whoever reads them by name will notice
        self._tensors = [(d, len(d)) for m in modules for d in (m._parameters, m._buffers)]
        self._missing = [(d, k) for d, _ in self._tensors for k, v in d.items() if v is None]
        read = functions(classes)
        self._globals = [place for f in read for place in global_values(f)]
        self._closed = [place for f in read for place in closed_values(f)]
        outside = [v for _, _, v in self._globals] + [v for _, v in self._closed]
        inside = [v for m in modules for k, v in m.__dict__.items() if k not in _SYSTEM]
        changing = [v for v in [*inside, *outside] if not isinstance(v, (*_PLAIN, FunctionType))]
        self._flat = [(v, v.copy()) for v in changing if _is_flat(v)]
        self._contents = [(v, frozen(v)) for v in changing if not _is_flat(v)]
        # hooks of the cell itself do not run: the step is called, not the cell
        self._hooks = [
            h
            for m in modules[1:]
            for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
        ]
        self._hooks += _GLOBAL_HOOKS if len(modules) > 1 else ()
        self._hooked = any(self._hooks)

    def holds(self) -> bool:
        """Whether no attribute has changed."""
        if self._modes is not None:
            return all(m.training == mode for m, mode in self._modes)
        try:
            for attributes, values in self._attributes:
                if tuple(attributes.values()) != values:
                    return False
        except (RuntimeError, TypeError, ValueError):  # what cannot be compared is another object
            return False
        for namespace, name, value in self._globals:
            if namespace.get(name) is not value:
                return False
        for cell, value in self._closed:
            if cell.cell_contents is not value:
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


def is_library(c: type) -> bool:
    """Classes that nobody changes while a program runs."""
    return c is object or c.__module__.partition(".")[0] == "torch" or c.__module__ == "recurra.cell.base"


def _is_flat(value: Any) -> bool:
    return type(value) in (dict, list) and all(
        isinstance(v, (*_PLAIN, FunctionType, BuiltinFunctionType))
        for v in (value.values() if type(value) is dict else value)
    )

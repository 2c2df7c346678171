"""accelerate: the recurrent layers inside somebody else's model, run by the native machine.

A layer is replaced by giving the very module the class of ours, which derives from its own: parameters, buffers, flags,
names and every reference to the module stay what they are, an optimiser's and a parent's among them; only `forward` is
another. A layer where that could mean something else is left alone, and said.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from recurra.errors import InputError, kind_of
from recurra.layers.drop_in import GRU, LSTM, RNN, DropIn
from recurra.machine import native
from recurra.machine.operands import FLOATS

_OURS: dict[type, type[DropIn]] = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}
_RECURRENT = frozenset("RNN LSTM GRU RNNCell LSTMCell GRUCell".split())
_HOOKS = {
    "_forward_pre_hooks": "a forward pre-hook",
    "_forward_hooks": "a forward hook",
    "_backward_pre_hooks": "a backward pre-hook",
    "_backward_hooks": "a backward hook",
}


@dataclass(frozen=True, slots=True)
class Replaced:
    """A layer that the native machine runs from now on. paths: its names inside the model; "" is the model itself."""

    paths: tuple[str, ...]
    kind: str

    def __str__(self) -> str:
        return f"{_named(self.paths)} ({self.kind}) is a recurra.{self.kind} now."


@dataclass(frozen=True, slots=True)
class Left:
    """A recurrent layer that stays as it was, and why."""

    paths: tuple[str, ...]
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{_named(self.paths)} ({self.kind}) is left as it was: {self.reason}."


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What `accelerate` did. `str()` has a sentence for each recurrent layer of the model."""

    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.replaced, *self.left))) or (
            "Nothing is replaced: the model has no RNN, LSTM or GRU of torch.nn."
        )

    def __repr__(self) -> str:
        return f"Acceleration({len(self.replaced)} replaced, {len(self.left)} left)"


def accelerate(model: nn.Module) -> Acceleration:
    """Replaces every torch.nn.RNN, LSTM and GRU of `model` by ours, in place; prints and returns what became of each.

    Kept: results, weights (the same Parameter objects), state_dict, flags, mode, dtype, device. Left alone: a layer
    with hooks, with a forward of its own, or whose weights are not its own float32 or float64 parameters on the CPU;
    cells, which the model's own loop steps; scripted, compiled and quantised modules.

    Dropout between layers, in training, draws its masks in its own way, equally likely.
    Raises InputError when `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"accelerate takes a torch.nn.Module, and {kind_of(model)} came. "
            f"Pass the model; its recurrent layers are replaced in place."
        )
    compiled = {inner for module in model.modules() if _is_compiled(module) for inner in module.modules()}
    replaced, left = [], []
    for module, paths in _recurrent(model):
        kind = type(module)
        if reason := _obstacle(module, module in compiled):
            left.append(Left(paths, kind.__name__, reason))
            continue
        module.__class__ = _OURS[kind]
        replaced.append(Replaced(paths, kind.__name__))
    report = Acceleration(tuple(replaced), tuple(left))
    print(report)  # asked for: nobody should have to remember to look
    return report


def _recurrent(model: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Each recurrent module that is not ours yet, with all its names: found at two places it is still one module."""
    found: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if _ancestor(module) and not isinstance(module, DropIn):
            found.setdefault(module, []).append(path)
    for module, paths in found.items():
        yield module, tuple(paths)


def _ancestor(module: nn.Module) -> str:
    """The recurrent class of torch's that a module is of, derives from, or was scripted from; "" for none."""
    names: Iterable[str] = (c.__name__ for c in type(module).__mro__ if c.__module__.startswith("torch."))
    if isinstance(module, torch.jit.ScriptModule):
        names = (module.original_name,)
    return next((name for name in names if name in _RECURRENT), "")


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


def _obstacle(module: Any, compiled: bool) -> str:
    """Why a recurrent module stays as it is; "" when nothing speaks against replacing it."""
    name = _ancestor(module)
    if missing := native.available():
        return missing
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript runs it; accelerate the model that it was made from"
    if type(module).__module__.startswith("torch.ao."):
        return "it is quantised, and the native machine runs in float32 and float64"
    if compiled:
        return "torch.compile runs it; accelerate the model before it is compiled, or leave it to the compiler"
    if name.endswith("Cell"):
        return (
            "the model's own loop steps it, and one step alone is no faster in ours; "
            f"give the whole sequence to a recurra.{name.removesuffix('Cell')}, or single steps to a recurra.Session"
        )
    return _other_meaning(module, name) or _other_weights(module)


def _other_meaning(module: Any, name: str) -> str:
    if parametrize.is_parametrized(module):
        computed = " and ".join(module.parametrizations)
        return f"a parametrization computes {computed}; build it as a recurra.{name}, which takes parametrizations"
    if type(module) not in _OURS:
        return f"its class derives from torch.nn.{name} and may compute something else; derive it from recurra.{name}"
    if "forward" in vars(module):
        return "its forward was replaced by another function"
    for hooks, what in _HOOKS.items():
        if getattr(module, hooks):
            return f"it has {what}, which may change what goes in or out; remove it, accelerate, register it again"
    return ""


def _other_weights(module: Any) -> str:
    for name, used in zip(module._flat_weights_names, module._flat_weights, strict=True):
        own = module._parameters.get(name)
        if own is None or own is not used:
            return f"its {name} is no parameter of its own, but set from elsewhere"
        if type(own) is not nn.Parameter:
            return f"its {name} is {kind_of(own)}, whose numbers only PyTorch can read"
        if own.dtype not in FLOATS:
            return f"its {name} is {own.dtype}, and the native machine runs in float32 and float64"
        if own.device.type != "cpu":
            return f"its {name} is on {own.device}, and the native machine runs on the CPU"
    return ""


def _named(paths: tuple[str, ...]) -> str:
    return " = ".join(path or "the model itself" for path in paths)

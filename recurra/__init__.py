"""Recurra: recurrent networks written as their equations, run by a native machine.

Public names are loaded when first asked for: `import recurra` is cheap, and the command line's help needs no torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra import cells
    from recurra.cell import Cell
    from recurra.check import Check, check
    from recurra.compare import Comparison, compare
    from recurra.diagnostics.through_time import gradients_through_time
    from recurra.errors import (
        CellError,
        DataError,
        FileError,
        InputError,
        ProgramError,
        RecurraError,
        StrictError,
        TrainingError,
    )
    from recurra.inference import Session
    from recurra.layers import GRU, LSTM, RNN, Bidirectional, Recurrent, Residual, Stack, accelerate
    from recurra.regularise import RecurrentDropout, VariationalDropout, WeightDrop, Zoneout
    from recurra.scan import scan
    from recurra.tasks.model import Model, load
    from recurra.training import Run, report, resume, train
    from recurra.unroll import explain, strict, unroll

# Where each public name is defined; "" for a module that is public itself.
_HOMES = {
    "cells": "",
    "Cell": "recurra.cell",
    "Check": "recurra.check",
    "check": "recurra.check",
    "CellError": "recurra.errors",
    "Comparison": "recurra.compare",
    "compare": "recurra.compare",
    "DataError": "recurra.errors",
    "FileError": "recurra.errors",
    "InputError": "recurra.errors",
    "ProgramError": "recurra.errors",
    "RecurraError": "recurra.errors",
    "StrictError": "recurra.errors",
    "TrainingError": "recurra.errors",
    "gradients_through_time": "recurra.diagnostics.through_time",
    "Session": "recurra.inference",
    "GRU": "recurra.layers",
    "LSTM": "recurra.layers",
    "RNN": "recurra.layers",
    "Bidirectional": "recurra.layers",
    "Recurrent": "recurra.layers",
    "Residual": "recurra.layers",
    "Stack": "recurra.layers",
    "accelerate": "recurra.layers",
    "RecurrentDropout": "recurra.regularise",
    "VariationalDropout": "recurra.regularise",
    "WeightDrop": "recurra.regularise",
    "Zoneout": "recurra.regularise",
    "scan": "recurra.scan",
    "Model": "recurra.tasks.model",
    "load": "recurra.tasks.model",
    "Run": "recurra.training",
    "report": "recurra.training",
    "resume": "recurra.training",
    "train": "recurra.training",
    "explain": "recurra.unroll",
    "strict": "recurra.unroll",
    "unroll": "recurra.unroll",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Cell",
    "CellError",
    "Check",
    "Comparison",
    "DataError",
    "FileError",
    "InputError",
    "Model",
    "ProgramError",
    "RecurraError",
    "Recurrent",
    "RecurrentDropout",
    "Residual",
    "Run",
    "Session",
    "Stack",
    "StrictError",
    "TrainingError",
    "VariationalDropout",
    "WeightDrop",
    "Zoneout",
    "accelerate",
    "cells",
    "check",
    "compare",
    "explain",
    "gradients_through_time",
    "load",
    "report",
    "resume",
    "scan",
    "strict",
    "train",
    "unroll",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'recurra' has no attribute {name!r}")
    value = getattr(import_module(home), name) if home else import_module(f"recurra.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The import system binds each submodule in its package; `scan` and `unroll` must go on meaning the functions."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and _HOMES.get(name)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

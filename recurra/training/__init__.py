"""The training loop, its settings, checkpoints and the run folder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra.training.observer import Observer
    from recurra.training.run import Run
    from recurra.training.settings import Settings
    from recurra.training.start import report, resume, train

__all__ = ["Observer", "Run", "Settings", "report", "resume", "train"]

# Loaded when first asked for: the command line builds its flags from `training.settings` and must not wait for torch.
_HOMES = {
    "Observer": "observer",
    "Run": "run",
    "Settings": "settings",
    "report": "start",
    "resume": "start",
    "train": "start",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recurra.training' has no attribute {name!r}")
    return getattr(import_module(f"recurra.training.{_HOMES[name]}"), name)

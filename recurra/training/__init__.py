"""The training loop, its settings, checkpoints and the run folder."""

from typing import Any

# Loaded when first asked for: the command line builds its flags from `training.settings` and must not wait for torch.
_HOME = {"train": "start", "resume": "start", "Run": "run", "Observer": "observer", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'recurra.training' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"recurra.training.{_HOME[name]}"), name)

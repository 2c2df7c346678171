"""torch.nn's RNN, LSTM and GRU beside ours: what the tests of the drop-in layers share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import numbers
from torch import Tensor, nn

import recurra

NAMES = ("RNN", "LSTM", "GRU")
over_names = pytest.mark.parametrize("name", NAMES)
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    *((name, {"bidirectional": True}) for name in NAMES),
    *((name, {"num_layers": 3, "bias": False}) for name in NAMES),
    *((name, {"num_layers": 2, "bidirectional": True, "batch_first": True}) for name in NAMES),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"proj_size": 3, "num_layers": 2, "bidirectional": True, "bias": False}),
]
over_options = pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[f"{n} {' '.join(map(str, o))}".strip() for n, o in OPTIONS]
)
D, H = 3, 4
strictly = [  # a fall-back to scan is an error
    pytest.mark.usefixtures("strict"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]


def pair(name: str, *arguments: Any, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours, with the same weights."""
    arguments = arguments or (D, H)
    theirs = getattr(nn, name)(*arguments, dtype=dtype, **options)
    ours = getattr(recurra, name)(*arguments, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def sequence(module: Any, T: int, B: int) -> Tensor:
    return numbers(B, T, D) if module.batch_first else numbers(T, B, D)


def states(module: Any, *batch: int) -> Any:
    parts = module.num_layers * (2 if module.bidirectional else 1)
    h = numbers(parts, *batch, module.proj_size or module.hidden_size, seed=2)
    return (h, numbers(parts, *batch, module.hidden_size, seed=3)) if module.mode == "LSTM" else h


def told_by(call: Callable[[], object]) -> tuple[type[BaseException], str] | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (whatever it is, ours must be the same)
        return type(error), str(error)
    return None

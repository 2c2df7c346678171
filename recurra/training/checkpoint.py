"""`last/`: a model folder that also holds all that the next step depends on.

Beside the model's own files: `training.safetensors` (AdamW's moments, the state carried from window to window) and
`training.json` (the position). The order of the data is a function of (seed, epoch) and dropout one of (seed, step),
so no generator state and no place in a file need to be kept.
"""

from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from recurra import files
from recurra.errors import FileError
from recurra.tasks.model import Model
from recurra.training.config import CONFIG
from recurra.training.settings import CHANGEABLE, Settings

LAST = "last"


class _Trained(msgspec.Struct):
    """The field of `model.json` that says how the checkpoint was trained."""

    settings: Settings


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """Where training is: counters, and the sums of the row of metrics that is being gathered."""

    step: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    clipped: int = 0
    gathered: int = 0  # steps in these sums
    best_step: int = 0
    best: float | None = msgspec.field(default=None, name="best_bits")  # its name when language was the only task
    stale: int = 0  # validations since the best one
    metrics_bytes: int = 0
    seconds: float = 0.0  # of training


def write_checkpoint(
    folder: Path,
    model: Model,
    optimiser: torch.optim.Optimizer,
    position: Position,
    state: tuple[Tensor, ...] | None,
) -> None:
    """Replaces `last/`, whole or not at all."""
    record, contents = model.folder()
    contents["training.safetensors"] = packed_state(model.network, optimiser, state)
    contents["training.json"] = msgspec.json.format(msgspec.json.encode(position), indent=2)
    files.write_folder(folder / LAST, record, contents)


def packed_state(network: nn.Module, optimiser: torch.optim.Optimizer, state: tuple[Tensor, ...] | None) -> bytes:
    """`training.safetensors`: the moments of the optimiser, and what is carried from window to window."""
    tensors = {f"state.{i}": s for i, s in enumerate(state or ())}
    for name, weight in network.named_parameters():
        for part, value in optimiser.state.get(weight, {}).items():
            tensors[f"{part}.{name}"] = value
    return files.pack(tensors)


def load_state(
    file: Path, network: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> tuple[Tensor, ...] | None:
    """Puts the moments back; gives the carried state. FileError names the file of those that do not fit."""
    for name, weight in network.named_parameters():
        parts = {part: tensors.get(f"{part}.{name}") for part in ("step", "exp_avg", "exp_avg_sq")}
        if all(value is None for value in parts.values()):
            continue  # before the first step there are no moments
        for part, value in parts.items():
            if value is None or (part != "step" and value.shape != weight.shape):
                found = "missing" if value is None else tuple(value.shape)
                raise FileError(f"{file}: tensor '{part}.{name}' is {found} but {tuple(weight.shape)} is needed.")
        optimiser.state[weight] = parts
    return tuple(tensors[f"state.{i}"] for i in range(len(tensors)) if f"state.{i}" in tensors) or None


def read_position(folder: Path) -> Position:
    """Where the training of a run folder is."""
    return files.typed(files.read_folder(folder / LAST), Position, "training.json")


def read_checkpoint(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, settings: Settings
) -> tuple[Position, tuple[Tensor, ...] | None]:
    """Puts `last/` back into the network and the optimiser; gives the position and the carried state."""
    place = files.read_folder(folder / LAST)
    _same_settings(folder, place, settings)
    position = files.typed(place, Position, "training.json")
    _load_weights(place, network, files.unpack(place, "model.safetensors"))
    name = "training.safetensors"
    return position, load_state(place.path / name, network, optimiser, files.unpack(place, name))


def _same_settings(folder: Path, place: files.Folder, settings: Settings) -> None:
    trained = files.typed(place, _Trained).settings
    changeable = (*CHANGEABLE, *(["threads"] if settings.processes != trained.processes else []))
    for name in settings.__struct_fields__:
        now, then = getattr(settings, name), getattr(trained, name)
        if now != then and name not in changeable:
            raise FileError(
                f"{folder / CONFIG}: field '{name}' is {now!r} but the checkpoint was trained with {then!r}; put it "
                "back or train again."
            )


def _load_weights(place: files.Folder, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        why = str(error).split("\n")[-1].strip()
        raise FileError(f"{place.path / 'model.safetensors'} does not fit the settings of the run: {why}") from None

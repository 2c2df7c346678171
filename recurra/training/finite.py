"""Where the first value that is not finite comes from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_broken_layer(network: nn.Module, forward: Callable[[], None]) -> str | None:
    """Runs `forward` again and names the first layer whose output holds nan or inf; None when all are finite."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, given: Any, output: Any) -> None:
            if not all_finite(output):
                found.append(f"layer '{name}' ({type(layer).__name__})")

        return hook

    inner = [(name, layer) for name, layer in network.named_modules() if name and not any(layer.children())]
    handles = [layer.register_forward_hook(look(name)) for name, layer in inner]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def first_broken_gradient(network: nn.Module) -> str | None:
    """Names the weight, nearest to the output, whose gradient holds nan or inf."""
    for name, weight in reversed(list(network.named_parameters())):
        if weight.grad is not None and not all_finite(weight.grad):
            return f"the gradient of '{name}'"
    return None


def all_finite(value: Any) -> bool:
    """Whether every number of a tensor, or of a nest of tuples of tensors, is finite."""
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, (tuple, list)):
        return all(all_finite(part) for part in value)
    return True

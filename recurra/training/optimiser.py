"""AdamW as every run uses it."""

import torch
from torch import nn

from recurra.training.settings import Settings

BETAS = (0.9, 0.99)  # a memory of 100 steps for the squares: runs here have a thousand steps, not a hundred thousand


def optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101). Matrices of products decay; biases and embeddings do not."""
    assert settings.learning_rate is not None  # complete() has set it
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in network.named_parameters():
        (decaying if weight.ndim > 1 and not name.startswith("embedding") else others).append(weight)
    groups = [{"params": decaying, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS, fused=True)

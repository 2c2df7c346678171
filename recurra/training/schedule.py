"""The learning rate as a function of the step. No clock enters it: the same settings give the same rates everywhere."""

import math

from recurra.training.settings import Settings

FLOOR = 0.02  # a cosine ends at this share of the top


def learning_rate(settings: Settings, step: int) -> float:
    """The rate of the update that follows `step` updates.

    It rises linearly over `warmup` steps, then stays level or falls along half a cosine that ends with the last step
    (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts).
    """
    assert settings.steps is not None and settings.warmup is not None and settings.learning_rate is not None
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min(1.0, done))) / 2)

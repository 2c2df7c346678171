"""What torchrun says to a process that it has started; nothing where there is no torchrun. Without torch."""

import os


def rank() -> int:
    """The number of this process among all of them; 0 leads."""
    return int(os.environ.get("RANK", "0")) if started() else 0


def world() -> int | None:
    """How many processes there are; None where nothing says so."""
    return int(os.environ["WORLD_SIZE"]) if started() else None


def here() -> int | None:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])) if started() else None


def started() -> bool:
    """Whether torchrun, or what stands in for it, has started several processes."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1

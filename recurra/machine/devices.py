"""Which executor runs programs on which device: the native machine on the CPU, Triton's kernels on CUDA."""

from typing import TYPE_CHECKING, TypeAlias

import torch

from recurra.machine import native
from recurra.machine.operands import Unsupported
from recurra.program.plan import Backward, Plan

if TYPE_CHECKING:
    from recurra.machine.triton import TritonExecutor

Executor: TypeAlias = "native.NativeExecutor | TritonExecutor"


def prepare(plan: Plan, backward: Backward | None, device: torch.device) -> Executor:
    """The executor of a plan on that device; Unsupported, with the remedy or the user's line, where there is none."""
    if device.type == "cpu":
        return native.prepare(plan, backward)
    if device.type == "cuda":
        from recurra.machine import triton  # a heavy package, and of no use without such a device

        return triton.prepare(plan, backward, device)
    raise Unsupported(f"the weights are on {device}, and programs run on the CPU and on CUDA")


def without_second(device: torch.device) -> str:
    """Why second derivatives go through PyTorch there; "" where an executor has them."""
    return "" if device.type == "cpu" else "generated kernels have none"

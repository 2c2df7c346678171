"""The precision of a call by its name: which dtype it computes in, and what it means where the machine does not run.

fp32 and fp64 are the program in that dtype: weights and x of another are cast. The others (NARROW) have executors of
their own, whose inputs, states, weights and results are fp32.
"""

import difflib
from contextlib import AbstractContextManager, nullcontext

import torch

from recurra.errors import InputError, kind_of
from recurra.machine import native
from recurra.machine.precision import NAMES, lacking

NARROW = ("fp32-fast", "bf16", "int8")
NO_GRADIENTS = (
    "precision is 'int8', which is for inference, and this call asks for gradients. "
    "Call the layer inside torch.no_grad(), or choose 'fp32' or 'bf16'."
)
_ELSEWHERE = {"fp32-fast": "fp32-fast is plain fp32 there", "bf16": "bf16 is PyTorch's autocast there"}


def checked(precision: object) -> str | None:
    """The precision, where it is a name that there is, or None. Raises InputError."""
    if precision is None or (isinstance(precision, str) and precision in NAMES):
        return precision
    known = f"give {', '.join(NAMES[:-1])} or {NAMES[-1]}, or None for that of the weights."
    if not isinstance(precision, str):
        raise InputError(f"precision is {kind_of(precision)}, but is a name; {known}")
    near = difflib.get_close_matches(precision.lower(), NAMES, 1)
    hint = f"did you mean {near[0]!r}?" if near else known
    raise InputError(f"precision is {precision!r}, which there is not; {hint}")


def refusal(precision: str) -> str:
    """Why this processor does not have the precision, and what it has; "" where it does, or has no native machine."""
    return "" if native.available() else lacking(precision)


def check_here(precision: str) -> None:
    """Whether this processor has the precision. Raises InputError."""
    if told := refusal(precision):
        raise not_here(precision, told)


def not_here(precision: str, told: str) -> InputError:
    """The processor does not have the precision."""
    return InputError(f"precision is {precision!r}, but {told}. Choose one of these.")


def elsewhere(precision: str | None, name: str, reason: str) -> str:
    """The reason why a call does not go to the machine, and what its precision means then. Raises InputError."""
    if precision == "int8":
        raise InputError(
            f"precision is 'int8', which only the native machine has, and {name} does not run there: {reason}. "
            "Choose 'fp32' or 'bf16'."
        )
    return f"{reason}; {_ELSEWHERE[precision]}" if precision in _ELSEWHERE else reason


def arithmetic(precision: str | None, device: torch.device) -> AbstractContextManager[object]:
    """Inside, PyTorch computes as the precision says."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()

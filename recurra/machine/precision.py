"""The precisions in which the machine multiplies, by name, and which of them are to be had here.

    fp32, fp64   the arithmetic of the rows' own dtype
    fp32-fast    products of fp32 numbers as three of bf16 halves (hi hi + lo hi + hi lo), summed in fp32
    bf16         products of bf16 numbers, summed in fp32; states and everything else fp32
    int8         weights of 8 bits with a scale for each output; no derivatives

Rows are float64 for fp64, float32 for all others.
"""

import torch

from recurra.machine.program import KINDS, available, library

NAMES = ("fp32", "fp64", "fp32-fast", "bf16", "int8")
DTYPES = {name: torch.float64 if name == "fp64" else torch.float32 for name in NAMES}


def to_be_had() -> tuple[str, ...]:
    """Those that this processor, and this build for it, have."""
    known = () if library is None or available() else library.kinds()
    return tuple(name for name in NAMES if KINDS[name] in known)


def lacking(name: str) -> str:
    """Why the machine cannot compute in one of NAMES here; "" when it can."""
    if reason := available():
        return reason
    if name in to_be_had():
        return ""
    needs = "AMX" if name == "fp32-fast" else "another build"
    return f"{name} needs {needs}, which this processor lacks; it has {', '.join(to_be_had())}"

"""Which frames of the stack are a step's, told by their file.

Not PyTorch's, and not those of a folder of ours whose code runs steps or wraps them: each says so of itself, so that
none has to know the folders above it. The folders of equations say nothing: they are written as a user writes a cell.
"""

import os
from types import CodeType

import torch

_no_lines: tuple[str, ...] = ()
_no_variables: tuple[str, ...] = ("<frozen ",)  # Python's own; "<stdin>" is the user at the prompt


def machinery(file: str) -> None:
    """The folder of this file runs steps: it has no line worth telling, and no variable of a step."""
    global _no_lines
    _no_lines = (*_no_lines, os.path.dirname(file) + os.sep)
    wrapping(file)


def wrapping(file: str) -> None:
    """The folder of this file wraps steps: its lines are part of what runs, its variables are not the step's."""
    global _no_variables
    _no_variables = (*_no_variables, os.path.dirname(file) + os.sep)


def has_lines(code: CodeType) -> bool:
    """Whether a message may point at lines of this code."""
    return not code.co_filename.startswith(_no_lines)


def has_variables(code: CodeType) -> bool:
    """Whether what this code calls its values are variables of a step."""
    return not code.co_filename.startswith(_no_variables)


machinery(str(torch.__file__))
wrapping(__file__)

"""The nodes of a program: rows (batch implied) and statics (tensors without a batch)."""

from dataclasses import dataclass
from typing import TypeAlias

Literal: TypeAlias = bool | int | float | str | None
Argument: TypeAlias = "Literal | Expression | tuple[Argument, ...]"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter or buffer of the cell, looked up by name at each call."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """One operation on weights alone, as data: an operator of `statics.ATEN`, its arguments, which result is meant."""

    operator: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...] = ()
    result: int | None = None


Expression: TypeAlias = Parameter | Call

LEAVES = frozenset({"input", "state", "const", "static", "cotangent"})


@dataclass(eq=False, slots=True, repr=False)
class Value:
    """One value of a step: the result of an operation of `ops.OPS`, or a leaf.

    op     a row of OPS, or "input" | "state" | "const" | "static" | "cotangent"
    args   operands
    attr   slice: (lo, hi); broadcast: (width,); const: (number,); input, state, cotangent: (name,); else ()
    width  numbers a row; 1 is one number a row and meets wider operands by broadcasting. A const is 1 wide.
           Of a static: the last dimension (1 for a scalar).
    name   the variable of the user's step that held it, or ""
    line   "my_lstm.py, line 14: c = f * c", or ""
    shape  static only: () or (n,) for an operand of a pointwise operation, (out, in) for mm and mmt
    expr   static only: how its tensor is made from the parameters
    """

    op: str
    args: tuple["Value", ...]
    attr: tuple[str | int | float, ...]
    width: int
    name: str = ""
    line: str = ""
    shape: tuple[int, ...] = ()
    expr: Expression | None = None

    @property
    def is_row(self) -> bool:
        """Whether it differs from one row of the batch to the next."""
        return self.op not in ("static", "const")

    @property
    def is_leaf(self) -> bool:
        """Whether nothing has to be computed for it inside a program."""
        return self.op in LEAVES

    @property
    def is_product(self) -> bool:
        """Whether it is a row times a matrix of weights."""
        return self.op in ("mm", "mmt")

    def __repr__(self) -> str:
        args = ", ".join(a.name or a.op for a in self.args)
        return f"<{self.name or 'value'}:{self.width} = {self.op}({args}){self.attr or ''}>"

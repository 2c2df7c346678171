"""The operations of a program: one row each, with value, derivative, native opcode and Triton text side by side.

Rows are (…, n) tensors; an operand 1 wide, a constant or a vector without batch meets them by broadcasting. Comparisons
give 0 and 1. Products: mm(a, W) = a Wᵀ with W (out, in); mmt(a, W) = a W.

The derivative column builds, in operations of this same table, one gradient per operand from (g, y, d, *args): the
builder, the result, its cotangent, the operands. None means zero. A gradient may come 1 wide where its operand is wider
(it means the same number n times), and wider where its operand is 1 wide (`derive` sums it).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.program.values import Value

Kind = Literal["product", "pointwise", "reduction", "shape"]


class Builder(Protocol):
    """Makes values: g(op, *operands), and the attr of shape operations; numbers become constants."""

    def __call__(self, op: str, *args: Any) -> Value: ...


Gradients = tuple[Value | None, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """A row of the table. `arity` None: any number of operands. `native`: number of the C++ opcode.

    triton: the text of a pointwise operation in a generated kernel (machine/triton_source.py), {0} and so on its
    operands; of a reduction the function of machine/triton_functions.py that takes a tile of the row; "" for products,
    which are tl.dot or PyTorch's, and for what is read where it lies.
    """

    name: str
    arity: int | None
    kind: Kind
    native: int | None
    triton: str
    value: Callable[..., Tensor]
    derivative: Callable[..., Gradients]


def _like(c: Tensor, a: Tensor) -> Tensor:
    return c.to(a.dtype)


def _select(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(c != 0, a, b)


def _tie(g: Builder, d: Value, a: Value, b: Value) -> Gradients:
    """The smaller gets none. Equal ones share the gradient; both get it where one is NaN, as in PyTorch."""
    shared = g("select", g("eq", a, b), g("mul", d, 0.5), d)
    return g("select", g("gt", b, a), 0.0, shared), g("select", g("gt", a, b), 0.0, shared)


def _rowmax(g: Builder, y: Value, d: Value, a: Value) -> Gradients:
    top = g("eq", a, y)
    return (g("mul", top, g("div", d, g("rowsum", top))),)


def _rowdevsq(g: Builder, y: Value, d: Value, a: Value) -> Gradients:
    mean = g("mul", g("rowsum", a), 1 / a.width)
    return (g("mul", g("sub", a, mean), g("mul", d, 2.0)),)


def _slice(g: Builder, y: Value, d: Value, a: Value) -> Gradients:
    lo, hi = int(y.attr[0]), int(y.attr[1])
    pad = [g("broadcast", 0.0, n) if n else None for n in (lo, a.width - hi)]
    d = d if d.width == hi - lo else g("broadcast", d, hi - lo)
    return (g("cat", *[p for p in (pad[0], d, pad[1]) if p is not None]),)


def _cat(g: Builder, y: Value, d: Value, *args: Value) -> Gradients:
    if d.width == 1:
        return (d,) * len(args)
    ends = [sum(a.width for a in args[: k + 1]) for k in range(len(args))]
    return tuple(g("slice", d, end - a.width, end) for a, end in zip(args, ends, strict=True))


# fmt: off  (one row of the table reads as one row)
_ROWS = (
    # products
    Op("mm", 2, "product", 1, "", lambda a, W: a @ W.mT, lambda g, y, d, a, W: (g("mmt", d, W), None)),
    Op("mmt", 2, "product", 2, "", lambda a, W: a @ W, lambda g, y, d, a, W: (g("mm", d, W), None)),
    # arithmetic
    Op("add", 2, "pointwise", 3, "{0} + {1}", torch.add, lambda g, y, d, a, b: (d, d)),
    Op("sub", 2, "pointwise", 4, "{0} - {1}", torch.sub, lambda g, y, d, a, b: (d, g("neg", d))),
    Op("mul", 2, "pointwise", 5, "{0} * {1}", torch.mul, lambda g, y, d, a, b: (g("mul", d, b), g("mul", d, a))),
    Op(
        "div",
        2,
        "pointwise",
        6,
        "{0} / {1}",
        torch.div,
        lambda g, y, d, a, b: (g("div", d, b), g("neg", g("mul", d, g("div", y, b)))),
    ),
    Op("neg", 1, "pointwise", 7, "-{0}", torch.neg, lambda g, y, d, a: (g("neg", d),)),
    Op(
        "fma",
        3,
        "pointwise",
        8,
        "{0} * {1} + {2}",
        lambda a, b, c: a * b + c,
        lambda g, y, d, a, b, c: (g("mul", d, b), g("mul", d, a), d),
    ),
    Op(
        "abs",
        1,
        "pointwise",
        9,
        "tl.abs({0})",
        torch.abs,
        lambda g, y, d, a: (g("mul", d, g("sub", g("gt", a, 0.0), g("gt", 0.0, a))),),
    ),
    Op(
        "max",
        2,
        "pointwise",
        10,
        "tl.maximum({0}, {1}, tl.PropagateNan.ALL)",
        torch.maximum,
        lambda g, y, d, a, b: _tie(g, d, a, b),
    ),
    Op(
        "min",
        2,
        "pointwise",
        11,
        "tl.minimum({0}, {1}, tl.PropagateNan.ALL)",
        torch.minimum,
        lambda g, y, d, a, b: _tie(g, d, b, a),
    ),
    # functions
    Op(
        "relu",
        1,
        "pointwise",
        12,
        "tl.where({0} <= 0, 0.0, {0})",
        torch.relu,
        lambda g, y, d, a: (g("select", g("ge", 0.0, y), 0.0, d),),
    ),
    Op("sigmoid", 1, "pointwise", 13, "tl.sigmoid({0})", torch.sigmoid, lambda g, y, d, a: (g("dsigmoid", d, y),)),
    Op("tanh", 1, "pointwise", 14, "tanh({0})", torch.tanh, lambda g, y, d, a: (g("dtanh", d, y),)),
    Op("exp", 1, "pointwise", 15, "tl.exp({0})", torch.exp, lambda g, y, d, a: (g("mul", d, y),)),
    Op("expm1", 1, "pointwise", 16, "expm1({0})", torch.expm1, lambda g, y, d, a: (g("mul", d, g("add", y, 1.0)),)),
    Op("log", 1, "pointwise", 17, "tl.log({0})", torch.log, lambda g, y, d, a: (g("div", d, a),)),
    Op("log1p", 1, "pointwise", 18, "log1p({0})", torch.log1p, lambda g, y, d, a: (g("div", d, g("add", a, 1.0)),)),
    Op("sqrt", 1, "pointwise", 19, "tl.sqrt({0})", torch.sqrt, lambda g, y, d, a: (g("div", g("mul", d, 0.5), y),)),
    Op(
        "rsqrt",
        1,
        "pointwise",
        20,
        "tl.rsqrt({0})",
        torch.rsqrt,
        lambda g, y, d, a: (g("mul", g("mul", d, -0.5), g("mul", y, g("mul", y, y))),),
    ),
    Op(
        "erf",
        1,
        "pointwise",
        21,
        "tl.erf({0})",
        torch.erf,
        lambda g, y, d, a: (g("mul", d, g("mul", g("exp", g("neg", g("mul", a, a))), 2 / math.sqrt(math.pi))),),
    ),
    Op("softplus", 1, "pointwise", 22, "softplus({0})", F.softplus, lambda g, y, d, a: (g("mul", d, g("sigmoid", a)),)),
    # the derivatives of sigmoid and tanh from their results y, one operation instead of three
    Op(
        "dsigmoid",
        2,
        "pointwise",
        23,
        "{0} * {1} * (1 - {1})",
        lambda d, y: d * y * (1 - y),
        lambda g, y, d, a, b: (g("dsigmoid", d, b), g("mul", g("mul", d, a), g("sub", 1.0, g("add", b, b)))),
    ),
    Op(
        "dtanh",
        2,
        "pointwise",
        24,
        "{0} * (1 - {1} * {1})",
        lambda d, y: d * (1 - y * y),
        lambda g, y, d, a, b: (g("dtanh", d, b), g("mul", g("mul", d, a), g("mul", b, -2.0))),
    ),
    # comparison and choice
    Op(
        "gt",
        2,
        "pointwise",
        25,
        "tl.where({0} > {1}, 1.0, 0.0)",
        lambda a, b: _like(a > b, a),
        lambda g, y, d, a, b: (None, None),
    ),
    Op(
        "ge",
        2,
        "pointwise",
        26,
        "tl.where({0} >= {1}, 1.0, 0.0)",
        lambda a, b: _like(a >= b, a),
        lambda g, y, d, a, b: (None, None),
    ),
    Op(
        "eq",
        2,
        "pointwise",
        27,
        "tl.where({0} == {1}, 1.0, 0.0)",
        lambda a, b: _like(a == b, a),
        lambda g, y, d, a, b: (None, None),
    ),
    Op(
        "select",
        3,
        "pointwise",
        28,
        "tl.where({0} != 0, {1}, {2})",
        _select,
        lambda g, y, d, c, a, b: (None, g("select", c, d, 0.0), g("select", c, 0.0, d)),
    ),
    # over the numbers of a row
    Op("rowsum", 1, "reduction", 29, "total", lambda a: a.sum(-1, keepdim=True), lambda g, y, d, a: (d,)),
    Op("rowmax", 1, "reduction", 30, "peak", lambda a: a.amax(-1, keepdim=True), _rowmax),
    Op(  # the squares of the deviations from the mean, n times the variance
        "rowdevsq",
        1,
        "reduction",
        34,
        "deviation",
        lambda a: (a - a.mean(-1, keepdim=True)).square().sum(-1, keepdim=True),
        _rowdevsq,
    ),
    # shape
    Op("slice", 1, "shape", 31, "", lambda a, lo, hi: a[..., lo:hi], _slice),
    Op("cat", None, "shape", 32, "", lambda *a: torch.cat(a, -1), _cat),
    Op(
        "broadcast",
        1,
        "shape",
        33,
        "{0}",
        lambda a, n: a.expand(*a.shape[:-1], n) if a.dim() else a.expand(n),
        lambda g, y, d, a: (d,),
    ),
)
# fmt: on

OPS: dict[str, Op] = {row.name: row for row in _ROWS}

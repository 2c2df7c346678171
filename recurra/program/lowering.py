"""ATen to the operations of a program: one row each.

What is composite in PyTorch (linear, chunk, cosine similarity) has been taken apart before it arrives here.

A row is (g, *args, **kwargs) -> Value, or a tuple with None for results nobody should use, or None: not in the table.
Arguments are ATen's own, tensors replaced by values.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from recurra.program.graph import Graph
from recurra.program.values import Value

Lowered = Value | tuple[Value | None, ...] | None
Number = float | int


def _plain(op: str) -> Callable[..., Lowered]:
    return lambda g, *args: g(op, *args)


def _scaled(op: str) -> Callable[..., Lowered]:
    return lambda g, a, b, alpha=1: g(op, a, b if alpha == 1 else g("mul", b, alpha))


def _rsub(g: Graph, a: Value, b: Any, alpha: Number = 1) -> Value:
    return g("sub", b, a if alpha == 1 else g("mul", a, alpha))


def _div(g: Graph, a: Value, b: Any, rounding_mode: str | None = None) -> Value | None:
    return g("div", a, b) if rounding_mode is None else None


def _mean(g: Graph, a: Value) -> Value:
    return g("mul", g("rowsum", a), 1 / a.width)


def _centred(g: Graph, a: Value) -> Value:
    return g("sub", a, _mean(g, a))


def _layer_norm(g: Graph, x: Value, shape: Sequence[int], w: Value | None, b: Value | None, eps: float) -> Lowered:
    if list(shape) != [x.width]:
        return None
    d = _centred(g, x)
    y = g("mul", d, g("rsqrt", g("add", _mean(g, g("mul", d, d)), eps)))
    y = y if w is None else g("mul", y, w)
    return (y if b is None else g("add", y, b)), None, None


def _var(g: Graph, x: Value, dim: Any = None, correction: Number | None = 1, keepdim: bool = False) -> Value:
    d = _centred(g, x)
    return g("mul", g("rowsum", g("mul", d, d)), 1 / (x.width - (1 if correction is None else correction)))


def _root(g: Graph, square: Value) -> Value:
    """Its gradient at zero is zero, as in PyTorch, not 0 / 0."""
    none = g("eq", square, 0.0)
    return g("select", none, 0.0, g("sqrt", g("select", none, 1.0, square)))


def _std(g: Graph, x: Value, dim: Any = None, correction: Number | None = 1, keepdim: bool = False) -> Value:
    return _root(g, _var(g, x, dim, correction))


def _norm(g: Graph, x: Value, p: Number = 2, dim: Any = None, keepdim: bool = False) -> Lowered:
    if p == 1:
        return g("rowsum", g("abs", x))
    if p == math.inf:
        return g("rowmax", g("abs", x))
    if p != 2:
        return None
    return _root(g, g("rowsum", g("mul", x, x)))


def _softmax(g: Graph, x: Value, dim: int, half: bool) -> Value:
    e = g("exp", g("sub", x, g("rowmax", x)))
    return g("div", e, g("rowsum", e))


def _log_softmax(g: Graph, x: Value, dim: int, half: bool) -> Value:
    d = g("sub", x, g("rowmax", x))
    return g("sub", d, g("log", g("rowsum", g("exp", d))))


def _logsumexp(g: Graph, x: Value, dim: Any, keepdim: bool = False) -> Value:
    top = g("rowmax", x)
    top = g("select", g("eq", g("abs", top), math.inf), 0.0, top)  # inf - inf is NaN
    return g("add", top, g("log", g("rowsum", g("exp", g("sub", x, top)))))


def _clamp(g: Graph, x: Value, low: Any = None, high: Any = None) -> Value:
    x = x if low is None else g("select", g("gt", low, x), low, x)
    return x if high is None else g("select", g("gt", x, high), high, x)


def _hardtanh(g: Graph, x: Value, low: Number = -1, high: Number = 1) -> Value:
    """clamp but for its gradient at the bounds, which is zero."""
    x = g("select", g("ge", low, x), low, x)
    return g("select", g("ge", x, high), high, x)


def _power(g: Graph, x: Value, p: Any) -> Value | None:
    if isinstance(p, Value) or isinstance(x, (int, float)):
        return None
    if p in (0.5, -0.5):
        return g("sqrt" if p > 0 else "rsqrt", x)
    if p == 1.5:
        return g("mul", x, g("sqrt", x))
    if p != int(p) or abs(p) > 8 or p == 0:
        return None
    y = x
    for _ in range(abs(int(p)) - 1):
        y = g("mul", y, x)
    return y if p > 0 else g("div", 1.0, y)


def _split(g: Graph, x: Value, sizes: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    if isinstance(sizes, int):
        sizes = [min(sizes, x.width - lo) for lo in range(0, x.width, sizes)]
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return tuple(g("slice", x, end - n, end) for end, n in zip(ends, sizes, strict=True))


def _bounds(x: Value, lo: int | None, hi: int | None) -> tuple[int, int]:
    start, stop, _ = slice(lo, hi).indices(x.width)
    return start, stop


def _slice(g: Graph, x: Value, dim: int = 0, lo: int | None = None, hi: int | None = None, step: int = 1) -> Lowered:
    start, stop = _bounds(x, lo, hi)
    return g("slice", x, start, stop) if step == 1 and stop > start else None


def _slice_scatter(
    g: Graph, x: Value, source: Value, dim: int = 0, lo: int | None = None, hi: int | None = None, step: int = 1
) -> Lowered:
    start, stop = _bounds(x, lo, hi)
    return _replace(g, x, source, start, stop) if step == 1 else None


def _select_scatter(g: Graph, x: Value, source: Value, dim: int, k: int) -> Value:
    return _replace(g, x, source, k % x.width, k % x.width + 1)


def _replace(g: Graph, x: Value, source: Value, lo: int, hi: int) -> Value:
    source = source if source.width == hi - lo else g("broadcast", source, hi - lo)
    left = [g("slice", x, 0, lo)] if lo else []
    right = [g("slice", x, hi, x.width)] if hi < x.width else []
    return g("cat", *left, source, *right)


def _copy(g: Graph, a: Value, b: Any, non_blocking: bool = False) -> Value:
    return g("broadcast", b, a.width)


def _cat(g: Graph, parts: Sequence[Value], dim: int = 0) -> Value:
    return g("cat", *[g("broadcast", p, p.width) for p in parts])


def _roll(g: Graph, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    k = -shifts[0] % x.width
    return g("cat", g("slice", x, k, x.width), g("slice", x, 0, k)) if k else x


def _repeat(g: Graph, x: Value, sizes: Sequence[int]) -> Lowered:
    return g("cat", *[x] * sizes[1]) if len(sizes) == 2 and sizes[0] == 1 else None


def _gelu(g: Graph, x: Value, approximate: str = "none") -> Value:
    half = g("mul", x, 0.5)
    if approximate == "none":
        return g("mul", half, g("add", g("erf", g("mul", x, math.sqrt(0.5))), 1.0))
    cube = g("mul", g("mul", g("mul", x, x), x), 0.044715)
    return g("mul", half, g("add", g("tanh", g("mul", g("add", x, cube), math.sqrt(2 / math.pi))), 1.0))


def _elu(g: Graph, x: Value, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Value:
    some = g("gt", x, 0.0)
    left = g("mul", g("expm1", g("mul", g("select", some, 0.0, x), input_scale)), alpha * scale)
    return g("select", some, g("mul", x, scale), left)


def _softplus(g: Graph, x: Value, beta: Number = 1, threshold: Number = 20) -> Lowered:
    return g("softplus", x) if beta == 1 and threshold == 20 else None


def _log1p_exp_minus_abs(g: Graph, x: Value) -> Value:
    return g("log1p", g("exp", g("neg", g("abs", x))))


def _log_sigmoid(g: Graph, x: Value) -> Lowered:
    return g("sub", g("min", x, 0.0), _log1p_exp_minus_abs(g, x)), None


def _logaddexp(g: Graph, a: Value, b: Value) -> Value:
    apart = g("select", g("eq", a, b), 0.0, g("sub", a, b))  # inf - inf is NaN
    return g("add", g("max", a, b), _log1p_exp_minus_abs(g, apart))


def _glu(g: Graph, x: Value, dim: int = -1) -> Value:
    half = x.width // 2
    return g("mul", g("slice", x, 0, half), g("sigmoid", g("slice", x, half, x.width)))


def _hard_sigmoid(g: Graph, x: Value) -> Value:
    return g("div", g("min", g("relu", g("add", x, 3.0)), 6.0), 6.0)


def _not(g: Graph, a: Value) -> Value:
    return g("eq", a, 0.0)


def _truth(g: Graph, a: Any) -> Value:
    return g("sub", 1.0, _not(g, a))


def _filled(number: float) -> Callable[..., Value]:
    return lambda g, a, *args, **kwargs: g("broadcast", number, a.width)


LOWERINGS: dict[str, Callable[..., Lowered]] = {
    **{
        name: _plain(name)
        for name in "mul neg sigmoid tanh relu exp expm1 log log1p sqrt rsqrt erf abs gt ge eq".split()
    },
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": _rsub,
    "div": _div,
    "maximum": _plain("max"),
    "minimum": _plain("min"),
    "where": _plain("select"),
    "lt": lambda g, a, b: g("gt", b, a),
    "le": lambda g, a, b: g("ge", b, a),
    "ne": lambda g, a, b: g("sub", 1.0, g("eq", a, b)),
    "sign": lambda g, a: g("sub", g("gt", a, 0.0), g("gt", 0.0, a)),
    "reciprocal": lambda g, a: g("div", 1.0, a),
    "square": lambda g, a: g("mul", a, a),
    "pow": _power,
    "lerp": lambda g, a, b, w: g("add", a, g("mul", w, g("sub", b, a))),
    "addcmul": lambda g, a, b, c, value=1: g("add", a, g("mul", g("mul", b, c), value)),
    "addcdiv": lambda g, a, b, c, value=1: g("add", a, g("mul", g("div", b, c), value)),
    "logaddexp": _logaddexp,
    "glu": _glu,
    "silu": lambda g, a: g("mul", a, g("sigmoid", a)),
    "mish": lambda g, a: g("mul", a, g("tanh", g("softplus", a))),
    "gelu": _gelu,
    "elu": _elu,
    "softplus": _softplus,
    "log_sigmoid_forward": _log_sigmoid,
    "leaky_relu": lambda g, a, slope=0.01: g("select", g("gt", a, 0.0), a, g("mul", a, slope)),
    "_prelu_kernel": lambda g, a, w: g("select", g("gt", a, 0.0), a, g("mul", a, w)),
    "hardsigmoid": _hard_sigmoid,
    "hardswish": lambda g, a: g("mul", a, _hard_sigmoid(g, a)),
    "threshold": lambda g, a, limit, value: g("select", g("ge", limit, a), value, a),
    "native_layer_norm": _layer_norm,
    "var": _var,
    "std": _std,
    "linalg_vector_norm": _norm,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "sum": lambda g, a, dim=None, keepdim=False: g("rowsum", a),
    "mean": lambda g, a, dim=None, keepdim=False: _mean(g, a),
    "amax": lambda g, a, dim=None, keepdim=False: g("rowmax", a),
    "amin": lambda g, a, dim=None, keepdim=False: g("neg", g("rowmax", g("neg", a))),
    "clamp": _clamp,
    "hardtanh": _hardtanh,
    "clamp_min": _clamp,
    "clamp_max": lambda g, a, high: _clamp(g, a, None, high),
    "masked_fill": lambda g, a, mask, value: g("select", mask, value, a),
    "logical_not": _not,
    "bitwise_not": _not,
    "logical_and": lambda g, a, b: g("mul", _truth(g, a), _truth(g, b)),
    "bitwise_and": lambda g, a, b: g("mul", a, b),
    "logical_or": lambda g, a, b: g("max", _truth(g, a), _truth(g, b)),
    "bitwise_or": lambda g, a, b: g("max", a, b),
    "split": _split,
    "unsafe_split": _split,  # what torch.nn.GRUCell and LSTMCell take apart; its parts share no memory
    "split_with_sizes": _split,
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "select": lambda g, a, dim, k: g("slice", a, k % a.width, k % a.width + 1),
    "select_scatter": _select_scatter,
    "unbind": lambda g, a, dim=0: tuple(g("slice", a, k, k + 1) for k in range(a.width)),
    "cat": _cat,
    "roll": _roll,
    "repeat": _repeat,
    "copy": _copy,
    "fill": _copy,
    "zero": _filled(0.0),
    "zeros_like": _filled(0.0),
    "ones_like": _filled(1.0),
    "empty_like": _filled(0.0),
    "full_like": lambda g, a, number, **kwargs: g("broadcast", number, a.width),
    "clone": lambda g, a: a,
    "alias": lambda g, a: a,
    "detach": lambda g, a: a,  # of a number written out in the step; of a row it has been refused
}

# Legal while what is left, without dimensions of 1, is still (batch, width).
VIEWS = frozenset("unsqueeze squeeze view _unsafe_view permute t transpose expand lift_fresh _to_copy".split())

# The position of the axis an operation works along: it must be the last of two.
AXIS = {
    "unbind": 1, "var": 1, "std": 1, "select": 1, "sum": 1, "mean": 1, "amax": 1, "amin": 1, "_softmax": 1,
    "_log_softmax": 1,
    "logsumexp": 1, "glu": 1, "cat": 1, "slice": 1, "split": 2, "unsafe_split": 2, "split_with_sizes": 2,
    "slice_scatter": 2,
    "select_scatter": 2,
    "linalg_vector_norm": 2, "roll": 2,
}  # fmt: skip

# Shapes filled with one number: a constant when they are as long as the batch.
FILLED: dict[str, Callable[[Sequence[Any]], float]] = {
    "zeros": lambda args: 0.0,
    "ones": lambda args: 1.0,
    "empty": lambda args: 0.0,
    "full": lambda args: float(args[1]),
    "new_zeros": lambda args: 0.0,
    "new_ones": lambda args: 1.0,
    "new_empty": lambda args: 0.0,
    "new_full": lambda args: float(args[2]),
}

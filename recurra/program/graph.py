"""Builds values: equal operations on equal operands are one value, and the few identities that pay are applied."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from recurra.program.ops import OPS
from recurra.program.values import Call, Expression, Value


class Graph:
    """g(op, *operands) gives the value, an older one where there is one; numbers become constants.

    `line` is noted on the values made from now on. A row that is as wide as it shall be is its own broadcast.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], Value] = {}
        self.line = ""

    def adopt(self, values: Iterable[Value]) -> None:
        """Makes values built elsewhere the ones that equal operations find."""
        for v in values:
            key = ("static", v.expr, v.shape) if v.op == "static" else (v.op, tuple(map(id, v.args)), v.attr)
            self._seen.setdefault(key, v)

    def leaf(self, op: str, name: str, width: int) -> Value:
        """An input, a state or a cotangent."""
        return self._intern(op, (), (name,), width, name=name)

    def const(self, number: float) -> Value:
        """One number a row."""
        return self._intern("const", (), (float(number),), 1)

    def static(self, expr: Expression, shape: Iterable[int]) -> Value:
        """A tensor made from weights alone."""
        shape = tuple(shape)
        key = ("static", expr, shape)
        found = self._seen.get(key)
        if found is None:
            found = Value("static", (), (), shape[-1] if shape else 1, line=self.line, shape=shape, expr=expr)
            self._seen[key] = found
        return found

    def _intern(
        self, op: str, args: tuple[Value, ...], attr: tuple[str | int | float, ...], width: int, name: str = ""
    ) -> Value:
        key = (op, tuple(map(id, args)), attr)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = Value(op, args, attr, width, name, self.line)
        return found

    def __call__(self, op: str, *operands: Any) -> Value:
        if op == "slice":
            return self._slice(*operands)
        args = tuple(
            a if isinstance(a, Value) else self.const(a) for a in (operands[:1] if op == "broadcast" else operands)
        )
        kind = OPS[op].kind
        if op == "broadcast":
            width = int(operands[1])
            if args[0].op == "broadcast":
                args = args[0].args
            return args[0] if args[0].width == width and args[0].is_row else self._intern(op, args, (width,), width)
        if op == "cat":
            return self._cat(args)
        if kind == "product":
            return self._intern(op, args, (), args[1].shape[0 if op == "mm" else 1])
        if kind == "reduction":
            return self._reduce(op, args[0])
        return self._pointwise(op, args)

    def _slice(self, a: Value, lo: int, hi: int) -> Value:
        if (lo, hi) == (0, a.width):
            return a
        if a.op == "slice":
            return self._slice(a.args[0], int(a.attr[0]) + lo, int(a.attr[0]) + hi)
        if a.op == "broadcast" and a.args[0].width == 1:
            return self("broadcast", a.args[0], hi - lo)
        if a.op == "broadcast":
            return self("broadcast", self._slice(a.args[0], lo, hi), hi - lo)
        if a.op == "static":
            assert a.expr is not None
            return self.static(Call("slice", (a.expr, lo, hi)), (hi - lo,))
        at = 0
        for part in a.args if a.op == "cat" else ():
            if at <= lo and hi <= at + part.width:
                return self._slice(part, lo - at, hi - at)
            at += part.width
        return self._intern("slice", (a,), (lo, hi), hi - lo)

    def _cat(self, args: tuple[Value, ...]) -> Value:
        flat = [p for a in args for p in (a.args if a.op == "cat" else (a,))]
        out: list[Value] = []
        for a in flat:  # neighbouring slices of one value are one slice
            last = out[-1] if out else None
            if last is not None and a.op == last.op == "slice" and a.args == last.args and a.attr[0] == last.attr[1]:
                out[-1] = self._slice(a.args[0], int(last.attr[0]), int(a.attr[1]))
            else:
                out.append(a)
        return out[0] if len(out) == 1 else self._intern("cat", tuple(out), (), sum(a.width for a in out))

    def _reduce(self, op: str, a: Value) -> Value:
        if a.op == "broadcast" and a.args[0].width == 1:
            return a.args[0] if op == "rowmax" else self._pointwise("mul", (a.args[0], self.const(a.width)))
        return self._folded(op, (a,), 1) or self._intern(op, (a,), (), 1)

    def _pointwise(self, op: str, args: tuple[Value, ...]) -> Value:
        width = max(a.width for a in args)
        bare = tuple(a.args[0] if a.op == "broadcast" else a for a in args)
        if bare != args:
            y = self._pointwise(op, bare)
            return self("broadcast", y, width)
        found = _simplified(self, op, args)
        if found is not None and found.width == width:
            return found
        return self._folded(op, args, width) or self._intern(op, args, (), width)

    def _folded(self, op: str, args: tuple[Value, ...], width: int) -> Value | None:
        """Constants are computed now; weights alone are left to PyTorch, as a static."""
        if any(a.is_row for a in args):
            return None
        if all(a.op == "const" for a in args):
            numbers = [torch.tensor(a.attr[0], dtype=torch.float64) for a in args]
            return self.const(float(OPS[op].value(*numbers)))
        operands = tuple(float(a.attr[0]) if a.op == "const" else a.expr for a in args)
        scalar = OPS[op].kind == "reduction" or all(a.shape == () for a in args)
        return self.static(Call(op, operands), () if scalar else (width,))


def _number(a: Value) -> float | None:
    return float(a.attr[0]) if a.op == "const" else None


def _simplified(g: Graph, op: str, args: tuple[Value, ...]) -> Value | None:
    rule = _IDENTITIES.get(op)
    return None if rule is None else rule(g, *args)


def _add(g: Graph, a: Value, b: Value) -> Value | None:
    if _number(b) == 0 and a.is_row:
        return a
    if _number(a) == 0 and b.is_row:
        return b
    if b.op == "neg":
        return g("sub", a, b.args[0])
    if a.op == "neg":
        return g("sub", b, a.args[0])
    return None


def _sub(g: Graph, a: Value, b: Value) -> Value | None:
    if _number(b) == 0 and a.is_row:
        return a
    if _number(a) == 0 and b.is_row:
        return g("neg", b)
    return g("add", a, b.args[0]) if b.op == "neg" else None


def _mul(g: Graph, a: Value, b: Value) -> Value | None:
    for x, number in ((a, _number(b)), (b, _number(a))):
        if number == 1 and x.is_row:
            return x
        if number == -1 and x.is_row:
            return g("neg", x)
    return None


def _div(g: Graph, a: Value, b: Value) -> Value | None:
    return a if _number(b) == 1 and a.is_row else None


def _neg(g: Graph, a: Value) -> Value | None:
    return a.args[0] if a.op == "neg" else g("sub", a.args[1], a.args[0]) if a.op == "sub" else None


def _select(g: Graph, c: Value, a: Value, b: Value) -> Value | None:
    number = _number(c)
    if number is not None:
        return a if number else b
    return a if a is b else None


_IDENTITIES: dict[str, Callable[..., Value | None]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "select": _select,
}


def ordered(roots: Iterable[Value]) -> list[Value]:
    """Everything the roots depend on, operands first, leaves included."""
    out: list[Value] = []
    seen: set[Value] = set()
    stack: list[tuple[Value, bool]] = [(v, False) for v in reversed(list(roots))]
    while stack:
        v, expanded = stack.pop()
        if expanded:
            out.append(v)
        elif v not in seen:
            seen.add(v)
            stack.append((v, True))
            stack.extend((a, False) for a in reversed(v.args) if a not in seen)
    return out


def reaches(values: Iterable[Value], sources: Iterable[Value]) -> set[Value]:
    """Those of `values` (in order of evaluation) that depend on a source, with the sources themselves."""
    found = set(sources)
    for v in values:
        if any(a in found for a in v.args):
            found.add(v)
    return found

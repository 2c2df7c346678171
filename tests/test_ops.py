"""The table of operations, row by row, against PyTorch's autograd on a grid; derivatives of derivatives too."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from recurra.machine.plain import evaluate
from recurra.program.graph import Graph, ordered
from recurra.program.ops import OPS, Op
from recurra.program.values import Value

ROWS, WIDTH = 4, 3
POSITIVE = {"log", "sqrt", "rsqrt", "log1p"}


def operands(op: Op) -> list[tuple[str, tuple[int, ...]]]:
    """Shapes to try: (kind, shape) for each operand."""
    if op.kind == "product":
        return [("row", (ROWS, WIDTH)), ("static", (5, WIDTH) if op.name == "mm" else (WIDTH, 5))]
    return [("row", (ROWS, 1 if op.name == "broadcast" else WIDTH))] * (op.arity or 2)


def grid(op: Op, shape: tuple[int, ...], k: int) -> Tensor:
    """Numbers on both sides of every kink, none on it (ties have tests of their own)."""
    t = torch.linspace(-1.7, 2.1, math.prod(shape), dtype=torch.double).roll(k).reshape(shape) * (-1) ** k
    if op.name in POSITIVE:
        t = t.abs() + 0.1
    if op.name == "div" and k == 1:
        t = t + t.sign()
    return t if op.name != "select" or k else (t > 0).double()


def built(op: Op, widths: list[int]) -> tuple[Graph, list[Value], Value]:
    g = Graph()
    leaves = []
    for k, (kind, shape) in enumerate(operands(op)):
        if kind == "row":
            leaves.append(g.leaf("input", f"a{k}", widths[k]))
        else:
            leaves.append(Value("static", (), (), shape[-1], shape=shape))
    attr = {"slice": (1, 3), "broadcast": (4,)}.get(op.name, ())
    y = g(op.name, *leaves, *attr) if attr else Value(op.name, tuple(leaves), (), _width(op, leaves))
    return g, leaves, y


def _width(op: Op, leaves: list[Value]) -> int:
    if op.kind == "product":
        return leaves[1].shape[0 if op.name == "mm" else 1]
    if op.kind == "reduction":
        return 1
    return sum(v.width for v in leaves) if op.name == "cat" else max(v.width for v in leaves)


def value(v: Value, given: dict[Value, Tensor]) -> Tensor:
    env = dict(given)
    like = next(iter(given.values()))
    evaluate([u for u in ordered([v]) if not u.is_leaf], env, ROWS, like)
    t = env[v] if v in env else like.new_tensor(v.attr[0])
    return t.expand(ROWS, v.width)


def gradients(g: Graph, y: Value, leaves: list[Value], d: Value) -> list[Value | None]:
    return list(OPS[y.op].derivative(g, y, d, *y.args))


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
@pytest.mark.parametrize("narrow", [None, 0, 1])
def test_a_derivative_is_that_of_the_value(op: Op, narrow: int | None) -> None:
    kinds = operands(op)
    if narrow is not None and (op.kind != "pointwise" or narrow >= len(kinds) or len(kinds) == 1):
        pytest.skip("no operand 1 wide to meet a wider one")
    widths = [1 if k == narrow else shape[-1] for k, (_, shape) in enumerate(kinds)]
    g, leaves, y = built(op, widths)
    numbers = [
        grid(op, (ROWS, w) if kind == "row" else shape, k).requires_grad_()
        for k, ((kind, shape), w) in enumerate(zip(kinds, widths, strict=True))
    ]
    given = dict(zip(leaves, numbers, strict=True))
    d = g.leaf("cotangent", "y", y.width)
    d_numbers = torch.linspace(0.5, 1.5, ROWS * y.width, dtype=torch.double).reshape(ROWS, y.width)
    out = value(y, given)
    smooth = out.requires_grad  # a comparison is not
    expected = torch.autograd.grad(out, numbers, d_numbers, allow_unused=True) if smooth else (None,) * len(numbers)
    flat = {v: t.detach() for v, t in given.items()} | {d: d_numbers}
    for v, da, e in zip(leaves, gradients(g, y, leaves, d), expected, strict=True):
        if v.op == "static":
            continue  # accumulate makes one product of all steps
        got = torch.zeros(ROWS, v.width, dtype=torch.double) if da is None else value(da, flat)
        if got.shape[1] > v.width:
            got = got.sum(-1, keepdim=True)
        got = got.expand(ROWS, v.width)  # one number stands for all
        torch.testing.assert_close(
            got, torch.zeros_like(got) if e is None else e.expand_as(got), atol=1e-12, rtol=1e-12
        )


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.kind == "pointwise"], ids=lambda op: op.name)
def test_a_derivative_is_made_of_operations_that_have_derivatives(op: Op) -> None:
    g, leaves, y = built(op, [WIDTH] * (op.arity or 2))
    d = g.leaf("cotangent", "y", WIDTH)
    for da in gradients(g, y, leaves, d):
        for v in ordered([da]) if da is not None else ():
            assert v.is_leaf or v.op in OPS


@pytest.mark.parametrize("name", ["max", "min"])
def test_equal_operands_share_the_gradient(name: str) -> None:
    g, (a, b), y = built(OPS[name], [WIDTH, WIDTH])
    d = g.leaf("cotangent", "y", WIDTH)
    same = torch.ones(ROWS, WIDTH, dtype=torch.double)
    for da in gradients(g, y, [a, b], d):
        assert da is not None
        assert torch.equal(value(da, {a: same, b: same, d: same}), same / 2)


@pytest.mark.parametrize("name", ["abs", "relu"])
def test_the_gradient_at_a_kink_is_zero_as_in_pytorch(name: str) -> None:
    g, (a,), y = built(OPS[name], [WIDTH])
    d = g.leaf("cotangent", "y", WIDTH)
    (da,) = gradients(g, y, [a], d)
    zero = torch.zeros(ROWS, WIDTH, dtype=torch.double)
    assert da is not None
    assert torch.equal(value(da, {a: zero, y: zero, d: zero + 1}), zero)


def test_every_row_is_named_as_it_is_found_and_has_a_native_number_of_its_own() -> None:
    assert all(name == op.name for name, op in OPS.items())
    numbers = [op.native for op in OPS.values() if op.native is not None]
    assert len(set(numbers)) == len(numbers)
    assert {op.kind for op in OPS.values()} == {"product", "pointwise", "reduction", "shape"}


def test_equal_operations_are_one_value() -> None:
    g = Graph()
    a, b = g.leaf("input", "a", 3), g.leaf("input", "b", 3)
    assert g("mul", a, b) is g("mul", a, b)
    assert g("mul", a, b) is not g("mul", b, a)
    assert g("mul", a, 2) is g("mul", a, 2.0)


def test_identities() -> None:
    g = Graph()
    a, b, s = g.leaf("input", "a", 3), g.leaf("input", "b", 3), g.leaf("input", "s", 1)
    assert g("add", a, 0.0) is g("mul", 1.0, a) is g("sub", a, 0) is g("div", a, 1) is g("neg", g("neg", a)) is a
    assert g("add", a, g("neg", b)) is g("sub", a, b)
    assert g("slice", g("cat", a, b), 3, 6) is b
    assert g("slice", g("slice", g("cat", a, b), 1, 6), 1, 2) is g("slice", a, 2, 3)
    assert g("cat", g("slice", a, 0, 1), g("slice", a, 1, 3)) is a
    assert g("add", s, g("broadcast", 0.0, 3)).width == 3, "a sum as wide as its widest operand"
    assert g("mul", g.const(2.0), g.const(3.0)).attr == (6.0,)
    assert g("rowsum", g("broadcast", s, 4)) is g("mul", s, 4.0)


def test_identities_keep_values() -> None:
    rows = [torch.randn(ROWS, 3, dtype=torch.double), torch.randn(ROWS, 1, dtype=torch.double)]
    for op, k, c in itertools.product(
        ("add", "sub", "mul", "div", "max", "min", "gt", "eq"), (0, 1), (-1.0, 0.0, 1.0, 2.0)
    ):
        g = Graph()
        leaves = [g.leaf("input", "a", 3), g.leaf("input", "s", 1)]
        given = dict(zip(leaves, rows, strict=True))
        for args in ((leaves[k], c), (c, leaves[k])):
            y = g(op, *args)
            plain = [a if isinstance(a, float) else given[a] for a in args]
            tensors = [torch.as_tensor(a, dtype=torch.double) for a in plain]
            like = tensors[0].new_zeros(ROWS, leaves[k].width)
            torch.testing.assert_close(value(y, given), OPS[op].value(*tensors).expand_as(like))

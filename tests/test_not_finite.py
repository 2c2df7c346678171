"""NaN, infinities, zeros of both signs and numbers at the ends of the range pass through every operation as in PyTorch.

Every operation that the engine knows, before, in and after the loop, forward and backward, over rows in which each
special number stands in the body of a vector and in its tail; against the same step by `scan`: NaN where that has NaN,
infinity of the same sign, and otherwise the same number.
"""

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from checks import needs_machine
from torch import Tensor, nn

import recurra
from examples import CELLS, CellExample
from recurra import Cell, scan, strict
from recurra.machine.program import library
from recurra.passes import compile_step
from recurra.program.lowering import LOWERINGS
from recurra.program.ops import OPS

pytestmark = needs_machine

INF, NAN = math.inf, math.nan
DTYPES = [torch.float32, torch.float64]
EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
BODY = 16  # numbers in a whole vector, or two, of every build; three more are a tail
PLACES = ("before", "loop", "after")
Form = Callable[..., Tensor]


def alone(dtype: torch.dtype) -> list[float]:
    """Operands of what has one: the ends of the range too, and where functions saturate or overflow."""
    least, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    top = math.log(most)  # exp overflows above it, and has no normal result much below -top
    ends = [least, -least, least / 3, -least / 3, most, -most, 1e10, -1e10]
    saturating = [7.9, -9.2, 17.4, 19.5, -20.5, 40.0, -40.0, top - 0.1, top + 0.1, -top, -top - 30]
    return [*TOGETHER, 1.0, -0.7, *ends, *saturating]


TOGETHER = [NAN, INF, -INF, 0.0, -0.0, 0.8, -1.5, 2.5]  # operands in every combination
COTANGENTS = [1.5, -0.5, 0.0, INF, NAN, -INF]

# ---- how each operation is written


def named(arity: int, names: str) -> dict[str, tuple[int, Form]]:
    return {name: (arity, getattr(torch, name)) for name in names.split()}


def compared(name: str) -> Form:
    return lambda a, b: getattr(torch, name)(a, b).to(a.dtype) + b


def truth(name: str) -> Form:
    return lambda a, b: getattr(torch, name)(a > 0, b > 0).to(a.dtype) + b


def along(name: str) -> Form:
    return lambda a: getattr(torch, name)(a, dim=-1, keepdim=True)


POINTWISE: dict[str, tuple[int, Form]] = {
    **named(1, "neg sigmoid tanh relu exp expm1 log log1p sqrt rsqrt erf abs sign reciprocal square clone"),
    **named(2, "add sub mul div maximum minimum logaddexp"),
    **{name: (2, compared(name)) for name in "gt ge eq lt le ne".split()},
    **{name: (2, truth(name)) for name in "logical_and logical_or bitwise_and bitwise_or".split()},
    "logical_not": (1, lambda a: torch.where(torch.logical_not(a > 0), a, 0.5)),
    "bitwise_not": (1, lambda a: torch.where(~(a > 0), a, 0.5)),
    "rsub": (1, lambda a: torch.rsub(a, 1.0)),
    "pow": (1, lambda a: a.pow(3)),
    "pow -2": (1, lambda a: a.pow(-2)),
    "silu": (1, F.silu),
    "mish": (1, F.mish),
    "gelu": (1, F.gelu),
    "gelu tanh": (1, lambda a: F.gelu(a, approximate="tanh")),
    "elu": (1, lambda a: F.elu(a, 0.7)),
    "softplus": (1, F.softplus),
    "log_sigmoid_forward": (1, F.logsigmoid),
    "leaky_relu": (1, F.leaky_relu),
    "_prelu_kernel": (1, lambda a: F.prelu(a, torch.full((1,), 0.3, dtype=a.dtype))),
    "hardsigmoid": (1, F.hardsigmoid),
    "hardswish": (1, F.hardswish),
    "threshold": (1, lambda a: F.threshold(a, 0.5, 0.25)),
    "clamp": (1, lambda a: a.clamp(-0.5, 2.0)),
    "hardtanh": (1, F.hardtanh),
    "clamp_min": (1, lambda a: a.clamp_min(0.5)),
    "clamp_max": (1, lambda a: a.clamp_max(0.5)),
    "masked_fill": (2, lambda a, b: a.masked_fill(b > 0, 0.5)),
    "lerp": (3, torch.lerp),
    "addcmul": (3, lambda a, b, c: torch.addcmul(a, b, c, value=0.5)),
    "addcdiv": (3, lambda a, b, c: torch.addcdiv(a, b, c, value=0.5)),
    "where": (3, lambda a, b, c: torch.where(a > 0, b, c)),
    "multiply and add": (3, lambda a, b, c: a * b + c),
}
OF_ROWS: dict[str, Form] = {
    **{name: along(name) for name in "sum mean amax amin logsumexp var std".split()},
    "_softmax": lambda a: torch.softmax(a, -1),
    "_log_softmax": lambda a: torch.log_softmax(a, -1),
    "native_layer_norm": lambda a: F.layer_norm(a, a.shape[-1:], eps=0.1),
    "linalg_vector_norm": lambda a: torch.linalg.vector_norm(a, dim=-1, keepdim=True),
    "linalg_vector_norm 1": lambda a: torch.linalg.vector_norm(a, 1, dim=-1, keepdim=True),
    "linalg_vector_norm inf": lambda a: torch.linalg.vector_norm(a, INF, dim=-1, keepdim=True),
    "glu": lambda a: F.glu(torch.cat([a, a.roll(1, -1)], -1)),
    "slice": lambda a: a[:, 1:-1],
    "roll": lambda a: a.roll(3, -1),
    "cat": lambda a: torch.cat([a[:, 5:], a, a[:, :1]], -1),
    "expand": lambda a: a[:, -1:].expand(-1, 3),
}
MOVING = set(  # which only fill rows or move numbers; `slice`, `cat` and `expand` above stand for them
    "split unsafe_split split_with_sizes slice_scatter select select_scatter unbind repeat copy fill zero zeros_like "
    "ones_like empty_like full_like alias detach".split()
)


class Through(Cell):
    """One operation of operands that are rows of x, the previous state, or the next one: so it is at its place."""

    def __init__(self, form: Form, arity: int, place: str, width: int, out: int) -> None:
        super().__init__(arity * width, width, m=out)
        self.form, self.arity, self.place = form, arity, place
        self.decay = nn.Parameter(torch.tensor(0.5))

    def step(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, *rest = x.chunk(self.arity, -1)
        if self.place == "after":
            h = torch.where(h > 1, h, a)  # a, to the last bit
            return self.form(h, *rest), h, m
        y = self.form(h if self.place == "loop" else a, *rest)
        return self.decay * m + y, a, self.decay * m + y


class Product(Cell):
    """h Wᵀ and h V, at its place."""

    def __init__(self, width: int, place: str) -> None:
        super().__init__(width, width, m=width + 1)
        self.place = place
        self.W, self.V = nn.Parameter(torch.randn(width + 1, width)), nn.Parameter(torch.randn(width, width + 1))

    def step(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.place == "after":
            h = torch.where(h > 1, h, x)
            return F.linear(h, self.W) + h @ self.V, h, m
        of = h if self.place == "loop" else x
        y = 0.5 * m + F.linear(of, self.W) + of @ self.V
        return y, x, y


# ---- rows of special numbers


@dataclass(frozen=True)
class Rows:
    """Operands (B, W) each, and the cotangent of the result."""

    operands: list[Tensor]
    cotangent: Tensor


def laid_out(numbers: Tensor, width: int) -> Tensor:
    """Every number in the body of a vector, then every number in the last three of a row of BODY + 3."""
    fill = -len(numbers) % width
    whole = torch.cat([numbers, numbers[:fill]]).reshape(-1, width) if fill <= len(numbers) else numbers[None, :width]
    if width == 2 * BODY:
        return whole
    tails = torch.cat([numbers, numbers[: -len(numbers) % 3]]).reshape(-1, 3)
    return torch.cat([whole, torch.cat([torch.full((len(tails), BODY), 0.6, dtype=numbers.dtype), tails], 1)])


def values_of(name: str, dtype: torch.dtype) -> list[list[float]]:
    """For each operand."""
    arity = POINTWISE[name][0]
    values = [alone(dtype)] if arity == 1 else [TOGETHER] * arity
    if name in COMPOSED:  # may overflow on the way
        values = [[v for v in vs if abs(v) != torch.finfo(dtype).max] for vs in values]
    if name in ("gelu", "lerp"):  # see docs/design.md
        values = [[v for v in vs if not math.isinf(v)] for vs in values]
    return values


def combinations(values: list[list[float]], dtype: torch.dtype, width: int) -> Rows:
    columns = torch.tensor(list(itertools.product(*values, COTANGENTS)), dtype=dtype).unbind(1)
    *operands, cotangent = [laid_out(c, width) for c in columns]
    return Rows(operands, cotangent)


def single(dtype: torch.dtype, width: int) -> Tensor:
    """Ordinary rows with one special number at the start, in the body and at the end, and rows full of it (B, W)."""
    rows = []
    ordinary = torch.linspace(-1.2, 0.9, width, dtype=dtype)
    for number in [*TOGETHER, torch.finfo(dtype).tiny / 3]:
        for at in (0, width // 2, width - 1):
            rows.append(ordinary.clone())
            rows[-1][at] = number
        rows.append(torch.full_like(ordinary, number))
    return torch.stack(rows)


def of_rows(dtype: torch.dtype, width: int, out: int) -> Rows:
    """Each row with each cotangent, which stands at the start or the end of an ordinary one."""
    rows = single(dtype, width)
    given, cotangents = [], []
    for k, d in enumerate(COTANGENTS):
        cotangent = torch.linspace(0.4, 1.3, out, dtype=dtype).expand(len(rows), -1).clone()
        cotangent[:, -(k % 2)] = d
        given.append(rows), cotangents.append(cotangent)
    return Rows([torch.cat(given)], torch.cat(cotangents))


# ---- the comparison


def results(run: Callable[..., tuple[Tensor, tuple[Tensor, ...]]], cell: Cell, rows: Rows) -> dict[str, Tensor]:
    """Output and gradients of one step."""
    a, *rest = [t.clone().requires_grad_() for t in rows.operands]
    x = torch.cat([torch.full_like(a, 0.3) if cell.place == "loop" else a, *rest], -1)[None]
    h = a if cell.place == "loop" else torch.zeros_like(a)
    y, _ = run(cell, x, (h, a.new_zeros(len(a), cell.state_sizes["m"])))
    wanted = {f"operand {k}": t for k, t in enumerate((a, *rest))} | {
        n: p for n, p in cell.named_parameters() if n != "decay"
    }
    found = torch.autograd.grad(y[0], list(wanted.values()), rows.cotangent, allow_unused=True)
    gradients = zip(wanted.items(), found, strict=True)
    return {"result": y[0].detach()} | {
        f"gradient of {name}": torch.zeros_like(t) if g is None else g for (name, t), g in gradients
    }


def assert_same(got: Tensor, want: Tensor, scale: float, counts: Tensor, what: str) -> None:
    """NaN where NaN, the same infinities, and finite numbers but for rounding, and flushing at the end of the range."""
    exact = 1e-7 if what.startswith("hards") else EXACT[want.dtype]  # PyTorch's one sixth is a number of fp32
    close = (got - want).abs() <= max(exact, EXACT[want.dtype]) * (want.abs() + scale) + 2 * torch.finfo(
        want.dtype
    ).tiny
    same = torch.where(want.isfinite(), close & got.isfinite(), (got == want) | (got.isnan() & want.isnan())) | ~counts
    if not bool(same.all()):
        at = tuple(int(i) for i in (~same).nonzero()[0])
        raise AssertionError(
            f"{what} at {at}: {got[at].item()!r}, by scan {want[at].item()!r} ({int((~same).sum())} wrong)"
        )


def counting(want: Tensor, y: Tensor, rows: Rows, composed: bool, whole: bool) -> Tensor:
    """Which numbers of an operand's gradient are compared. whole: a number depends on all numbers of its row."""
    known = [rows.cotangent, y, *rows.operands]
    if composed:
        if whole:
            return torch.cat(known, 1).isfinite().all(1, True).expand_as(want)
        return torch.stack(known).isfinite().all(0)
    denormal = (y != 0) & (y.abs() < torch.finfo(y.dtype).tiny)  # is flushed: infinity times it is not infinity then
    return torch.ones_like(want, dtype=torch.bool) if whole else ~denormal | rows.cotangent.isfinite()


def check(cell: Cell, rows: Rows, what: str, composed: bool = False, whole: bool = False) -> None:
    with strict():
        ours = results(recurra.unroll, cell, rows)
    truth = results(scan, cell, rows)
    for name, want in truth.items():
        operand = name.startswith("gradient of operand")
        counts = counting(want, truth["result"], rows, composed, whole) if operand else torch.ones_like(want).bool()
        scale = 1.0 if composed or whole or name != "result" else 0.0
        assert_same(ours[name], want, scale, counts, f"{what}: {name}")


# Composed of several operations of the table. PyTorch has formulas of its own for their gradients: where an infinity
# meets a zero the one gives 0 and the other NaN, so these are held against it where everything is finite.
COMPOSED = set(
    "pow silu mish gelu elu log_sigmoid_forward hardsigmoid hardswish clamp hardtanh clamp_min clamp_max lerp square "
    "logaddexp _softmax _log_softmax logsumexp var std native_layer_norm linalg_vector_norm glu".split()
)


def check_form(name: str, dtype: torch.dtype) -> None:
    composed = name.split()[0] in COMPOSED
    for place, width in itertools.product(PLACES, (BODY + 3, 2 * BODY)):
        what = f"{name} {place} {dtype} {width}"
        if name in POINTWISE:
            arity, form = POINTWISE[name]
            cell, rows = Through(form, arity, place, width, width), combinations(values_of(name, dtype), dtype, width)
        else:
            form = OF_ROWS[name]
            out = form(torch.zeros(1, width)).shape[1]
            cell, rows = Through(form, 1, place, width, out), of_rows(dtype, width, out)
        check(cell.to(dtype), rows, what, composed, name in OF_ROWS)


@pytest.mark.parametrize("name", [*POINTWISE, *OF_ROWS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_numbers_pass_as_in_pytorch(name: str, dtype: torch.dtype) -> None:
    check_form(name, dtype)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_numbers_pass_through_products(place: str, dtype: torch.dtype) -> None:
    check_product(place, dtype)


def check_product(place: str, dtype: torch.dtype) -> None:
    """In the rows, in the weights, and in both: 0 times infinity is NaN, and beside the row there is nothing."""
    for width in (BODY + 3, 2 * BODY):
        for number in (None, NAN, INF, -INF):
            cell = Product(width, place).to(dtype)
            with torch.no_grad():
                cell.V[:, 2] = 0.0
                if number is not None:
                    cell.W[3, 1], cell.W[-1, -1], cell.V[-1, -2] = number, number, number
            check(cell, of_rows(dtype, width, width + 1), f"products {place} {dtype} {width} {number}", whole=True)


def test_every_operation_is_here() -> None:
    """Every name of ATen that is lowered, and every operation of the table, forward or backward."""
    assert {name.split()[0] for name in (*POINTWISE, *OF_ROWS)} | MOVING >= LOWERINGS.keys()
    seen = set()
    for name in POINTWISE:
        arity, form = POINTWISE[name]
        seen |= operations(Through(form, arity, "loop", 3, 3))
    for form in OF_ROWS.values():
        seen |= operations(Through(form, 1, "loop", 9, form(torch.zeros(1, 9)).shape[1]))
    assert seen | operations(Product(3, "loop")) >= OPS.keys()


def operations(cell: Cell) -> set[str]:
    plan, backward = compile_step(cell)
    parts = (*plan.before, *plan.body, *plan.after, *backward.before, *backward.body, *backward.after)
    return {v.op for v in parts}


@pytest.mark.skipif(library is None or library.isa() == "v3", reason="the narrow build is the one in use")
def test_the_narrow_build_too() -> None:
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = [{json.dumps(str(here))}, {json.dumps(str(here.parent))}]\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_not_finite import *\n"
        "assert library.isa() == 'v3'\n"
        "for dtype in DTYPES:\n"
        "    for name in (*POINTWISE, *OF_ROWS): check_form(name, dtype)\n"
        "    for place in PLACES: check_product(place, dtype)\n"
    )
    env = os.environ | {"RECURRA_ISA": "avx2", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300)


# ---- whole cells


LERPING = ("MinGRU", "MinLSTM", "user's Leaky")  # of numbers without bounds: see docs/design.md


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_a_sequence_that_is_not_finite_is_as_by_scan_and_leaves_the_others_alone(
    example: CellExample, number: float
) -> None:
    cell = example.make(5, 19).double()
    x = torch.randn(7, 4, cell.input_size, dtype=torch.double)
    bad = x.clone()
    bad[3, 2, 1] = number
    lengths = torch.tensor([7, 2, 6, 0])
    with strict():
        ours, clean = run(recurra.unroll, cell, bad, lengths), run(recurra.unroll, cell, x, lengths)
    for name, want in run(scan, cell, bad, lengths).items():
        got = ours[name]
        if example.name in LERPING:  # not finite where scan is not, be it NaN or infinity
            assert torch.equal(got.isfinite(), want.isfinite()), name
            got = torch.where(want.isfinite(), got, want)
        assert_same(got, want, 1.0, torch.ones_like(want).bool(), f"{example}: {name}")
    for name in ("y", "gradient of x"):
        for others in (0, 1, 3):
            assert torch.equal(ours[name][:, others], clean[name][:, others]), name


def run(
    how: Callable[..., tuple[Tensor, tuple[Tensor, ...]]], cell: Cell, x: Tensor, lengths: Tensor
) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y, last = how(cell, x, lengths=lengths)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    wanted = {"x": x} | dict(cell.named_parameters())
    found = torch.autograd.grad(
        (y * weights).sum() + sum(s.sum() for s in last), list(wanted.values()), allow_unused=True
    )
    gradients = {f"gradient of {n}": g for n, g in zip(wanted, found, strict=True) if g is not None}
    return {"y": y.detach()} | {f"last {k}": s.detach() for k, s in enumerate(last)} | gradients

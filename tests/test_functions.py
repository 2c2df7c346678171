"""The machine's own exp, tanh and their kin: how exact, at the edges, and whatever their place in a vector."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from checks import needs_machine
from torch import Tensor

from recurra.machine.program import library
from recurra.program.ops import OPS

pytestmark = needs_machine

DTYPES = [torch.float32, torch.float64]
Array = np.ndarray
Function = Callable[[Array], Array]

# What each function is, in float64 for fp32 and, for fp64, in long double, which has 11 bits more (but for erf).
EXACT: dict[str, Function] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.where(x > 20, x, np.logaddexp(0, x)),  # PyTorch's, with its threshold
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": lambda x: np.array([math.erf(v) for v in x], dtype=x.dtype),
}
POSITIVE = ("log", "sqrt", "rsqrt")
ULPS = 4


def apply(name: str, *operands: Tensor) -> Tensor:
    """One operation of the machine on whole tensors; numbers beside the result must stay as they are."""
    dtype, n = operands[0].dtype, operands[0].numel()
    operands = tuple(o.contiguous() for o in operands)
    to = torch.full((n + 20,), -77.0, dtype=dtype)
    addresses = [o.data_ptr() for o in operands] + [0] * (3 - len(operands))
    library.apply(dtype is torch.float64, OPS[name].native, n, *addresses, to.data_ptr())
    wide = 1 if OPS[name].kind == "reduction" else n
    assert bool((to[wide:] == -77).all()), "written beyond its end"
    return to[:wide]


def numbers(name: str, dtype: torch.dtype) -> Tensor:
    """A wide grid: every size from the smallest normal numbers to where the function saturates, and near its zeros."""
    rng = np.random.default_rng(1)
    tiny = float(torch.finfo(dtype).tiny)
    largest = math.log(float(torch.finfo(dtype).max))
    smallest = 1000 * tiny if name == "tanh" else tiny  # x times a coefficient has to be a normal number as well
    sizes = np.exp(rng.uniform(math.log(smallest) * 0.999, math.log(largest), 6000))
    if name in POSITIVE:
        sizes = np.exp(rng.uniform(math.log(tiny) * 0.99, largest * 0.99, 6000))
        near = 1 + rng.uniform(-0.4, 0.4, 3000) * np.exp(rng.uniform(-12, 0, 3000))
        return torch.tensor(np.concatenate([sizes, near])).to(dtype)
    usual = rng.uniform(-10, 10, 6000)
    wide = rng.uniform(-largest * 1.1, largest * 1.1, 6000)
    if name == "log1p":
        wide, usual = (
            np.exp(np.minimum(wide, largest)),
            np.concatenate([rng.uniform(-1, 1, 3000), -1 + np.exp(rng.uniform(-15, 0, 3000))]),
        )
        return torch.tensor(np.concatenate([sizes, -sizes[sizes < 1], wide, usual])).to(dtype)
    return torch.tensor(np.concatenate([sizes, -sizes, usual, wide])).to(dtype)


def ulps(name: str, x: Tensor) -> Tensor:
    """Error of each result in units of the last place of the exact one. Below the normal numbers, zero is right too."""
    exact = np.float64 if x.dtype is torch.float32 else np.longdouble
    with np.errstate(all="ignore"):
        truth = EXACT[name](x.numpy().astype(exact))
    assert truth.dtype == exact
    info = np.finfo(x.numpy().dtype)
    normal = (np.abs(truth) >= info.tiny) & (np.abs(truth) <= info.max)
    y = apply(name, x).numpy()
    place = np.spacing(np.abs(truth[normal]).astype(y.dtype)).astype(exact)
    small = np.abs(truth) < info.tiny
    assert (np.abs(y[small]) <= info.tiny).all()
    large = np.abs(truth) > info.max * (1 - 1e-6)
    assert (np.abs(y[large & ~normal]) >= info.max * (1 - 1e-5)).all()
    return torch.tensor((np.abs(y[normal].astype(exact) - truth[normal]) / place).astype(np.float64))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_four_units_in_the_last_place(name: str, dtype: torch.dtype) -> None:
    x = numbers(name, dtype)
    error = ulps(name, x)
    worst = float(error.max())
    assert len(error) > 5000
    assert worst <= ULPS, f"{name} of {float(x[int(error.argmax())])}: {worst:.2f} ulp"


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_are_those_of_pytorch(name: str, dtype: torch.dtype) -> None:
    inf = math.inf
    x = torch.tensor([math.nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 2.0, 200.0, -200.0, 800.0, -800.0], dtype=dtype)
    got, expected = apply(name, x), OPS[name].value(x)
    assert torch.equal(got.isnan(), expected.isnan()), (x, got, expected)
    assert torch.equal(got.isinf(), expected.isinf()), (x, got, expected)
    torch.testing.assert_close(
        got, expected, rtol=1e-6 if dtype is torch.float32 else 1e-14, atol=1e-37, equal_nan=True
    )


@pytest.mark.parametrize("name", [op.name for op in OPS.values() if op.kind == "pointwise" and op.arity == 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_never_swallowed(name: str, dtype: torch.dtype) -> None:
    for n in (1, 7, 16, 17, 33):
        for at in {0, n // 2, n - 1}:
            x = torch.full((n,), 0.25, dtype=dtype)
            x[at] = math.nan
            assert apply(name, x).isnan().nonzero().tolist() == [[at]]


@pytest.mark.parametrize("name", [op.name for op in OPS.values() if op.kind == "pointwise" and op.arity == 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_of_any_bits(name: str, dtype: torch.dtype) -> None:
    """What sorts bits into the exponent must not make a number of one of the many NaNs."""
    bits, quiet = (torch.int32, 0x7FC00000) if dtype is torch.float32 else (torch.int64, 0x7FF8000000000000)
    x = torch.tensor([quiet, quiet + 1, quiet + 0x155, quiet + 0x1FF, -1, -2], dtype=bits).view(dtype)
    assert bool(apply(name, x).isnan().all())


@pytest.mark.parametrize("name", ["max", "min", "add", "sub", "mul", "div", "dtanh", "dsigmoid"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_either_operand(name: str, dtype: torch.dtype) -> None:
    nan, one = torch.full((19,), math.nan, dtype=dtype), torch.ones(19, dtype=dtype)
    for a, b in ((nan, one), (one, nan), (nan, nan)):
        assert bool(apply(name, a, b).isnan().all())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_place_in_a_vector_does_not_matter(name: str, dtype: torch.dtype) -> None:
    x = numbers(name, dtype)
    x = x[torch.randperm(len(x))[:53]].contiguous()
    whole = apply(name, x)
    for n in range(1, 53):
        assert torch.equal(apply(name, x[:n]), whole[:n])
        assert torch.equal(apply(name, x[n:]), whole[n:])
    assert torch.equal(apply(name, x.flip(0)), whole.flip(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_monotone_where_gates_are(dtype: torch.dtype) -> None:
    """tanh and sigmoid stay within their bounds, are odd or symmetric to a few ulp, and never step back by more."""
    x = torch.linspace(-30, 30, 20001, dtype=dtype)
    few = 4 * torch.finfo(dtype).eps
    for name, low in (("tanh", -1.0), ("sigmoid", 0.0)):
        y = apply(name, x)
        assert float(y.min()) >= low and float(y.max()) <= 1
        assert float((y[:-1] - y[1:]).max()) <= few
        assert float((y + apply(name, -x) - (low + 1)).abs().max()) <= few

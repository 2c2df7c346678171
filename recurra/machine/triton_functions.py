"""What generated kernels call, and the one place where the package `triton` is met.

Written with what Triton's compiler and its interpreter both have; tanh, expm1 and log1p are in neither. The reductions
take a row tile by tile, each as three numbers a row (how many columns were seen, and two more), so that programs which
have columns each can put theirs together in the end.
"""

from typing import Any

import torch

try:
    import triton
    import triton.language as tl

    missing = ""
except ImportError as error:
    triton = tl = None
    missing = f"Triton cannot be imported ({error}); pip install 'recurra[cuda]' installs it"

jit: Any = triton.jit if triton is not None else lambda function: function
INTERPRETED = triton is not None and bool(triton.knobs.runtime.interpret)  # kernels run on the CPU, in NumPy
REALS: dict[torch.dtype, Any] = {} if tl is None else {torch.float32: tl.float32, torch.float64: tl.float64}


@jit
def tanh(x):  # type: ignore[no-untyped-def]
    """Cephes's tanh (Moshier 1989): a rational function where 1 - 2 / (exp(2 x) + 1) would lose digits."""
    z = x * x
    p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3
    q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3
    size = tl.abs(x)
    far = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    return tl.where(size < 0.625, x + x * z * (p / q), tl.where(x < 0, -far, far))


@jit
def expm1(x):  # type: ignore[no-untyped-def]
    """Kahan's: what exp(x) lost is lost in its logarithm too."""
    u = tl.exp(x)
    near = (u - 1.0) * x / tl.log(u)
    return tl.where(u == 1.0, x, tl.where((u - 1.0 == -1.0) | (tl.abs(x) > 40.0), u - 1.0, near))


@jit
def log1p(x):  # type: ignore[no-untyped-def]
    """Kahan's: what 1 + x lost of x is divided out again."""
    u = 1.0 + x
    return tl.where((u == 1.0) | (u == float("inf")), x, tl.log(u) * x / (u - 1.0))


@jit
def softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)); above 20 it is x, as in PyTorch."""
    near = tl.maximum(x, 0.0, tl.PropagateNan.ALL) + log1p(tl.exp(-tl.abs(x)))
    return tl.where(x > 20.0, x, near)


@jit
def largest(x):  # type: ignore[no-untyped-def]
    """The largest number of each row; NaN where there is one, which tl.max drops."""
    top = tl.max(x, 1)
    return tl.where(tl.max((x != x).to(tl.int32), 1) > 0, float("nan"), top)


@jit
def total(count, a, b, x, inside):  # type: ignore[no-untyped-def]
    """a: the sum so far."""
    return count, a + tl.sum(tl.where(inside, x, 0.0), 1), b


@jit
def total_of(count, a, b):  # type: ignore[no-untyped-def]
    """The sums of all programs together."""
    return tl.sum(a, 1)


@jit
def peak(count, a, b, x, inside):  # type: ignore[no-untyped-def]
    """a: the largest so far."""
    return count, tl.maximum(a, largest(tl.where(inside, x, float("-inf"))), tl.PropagateNan.ALL), b


@jit
def peak_of(count, a, b):  # type: ignore[no-untyped-def]
    """The largest of all programs."""
    return largest(a)


@jit
def deviation(count, a, b, x, inside):  # type: ignore[no-untyped-def]
    """a: the mean so far; b: the squared deviations from it (Chan, Golub and LeVeque 1983): no digit is lost."""
    n = tl.sum(tl.where(inside, 1.0, 0.0), 1).to(count.dtype)
    mean = tl.sum(tl.where(inside, x, 0.0), 1) / tl.maximum(n, 1.0)
    apart = tl.where(inside, x - mean[:, None], 0.0)
    both = tl.maximum(count + n, 1.0)
    away = mean - a
    between = tl.where((count > 0) & (n > 0), away * away * (count * n / both), 0.0)
    return count + n, tl.where(n > 0, a + away * (n / both), a), b + tl.sum(apart * apart, 1) + between


@jit
def deviation_of(count, a, b):  # type: ignore[no-untyped-def]
    """The squared deviations of all programs, from the mean of all."""
    n = tl.sum(count, 1)
    mean = tl.sum(tl.where(count > 0, a * count, 0.0), 1) / n
    away = a - mean[:, None]
    return tl.sum(b + tl.where(count > 0, count * away * away, 0.0), 1)


@jit
def meet(counter, goal):  # type: ignore[no-untyped-def]
    """Waits until all programs that share these rows have come here, `goal` arrivals in all since the launch.

    As torch._inductor's x_grid_barrier: all of them run at the same time, which the cooperative launch guarantees.
    """
    tl.debug_barrier()  # what every thread of this program wrote comes before the arrival
    arrived = tl.atomic_add(counter, 1, sem="acq_rel") + 1
    while arrived < goal:
        arrived = tl.atomic_add(counter, 0, sem="acquire")
    tl.debug_barrier()

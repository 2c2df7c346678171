"""The floating-point mode of whoever calls stays as it is, and states that decay to nothing decay as by scan."""

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from checks import needs_machine
from torch import Tensor

import recurra
from examples import CELLS, CellExample
from recurra import Cell, cells, scan, strict
from recurra.machine.program import library
from recurra.program.ops import OPS

pytestmark = needs_machine

FLUSHED = {torch.float32: 1e-37, torch.float64: 1e-306}  # of which errors may be: some of the smallest normal numbers

# ---- the caller's mode


def modes(numbers: int) -> tuple[int, int, bool, bool]:
    """The rounding of this thread; how many of so many denormals stay what they are, shared among PyTorch's threads;
    whether this thread flushes results, and operands."""
    kept = int((torch.full((numbers,), 1e-39) * 0.5 > 4e-40).sum())
    least = ctypes.c_float(1e-39).value
    return libm.fegetround(), kept, (torch.tensor(2e-38) * 0.25).item() == 0, (torch.tensor(least) * 1e30).item() == 0


libm = ctypes.CDLL(None)
ROUNDINGS = {"nearest": 0, "down": 0x400, "up": 0x800, "to zero": 0xC00} if os.uname().machine == "x86_64" else {}


@pytest.fixture
def _mode_of_before() -> Iterator[None]:
    rounding = libm.fegetround()
    yield
    libm.fesetround(rounding)
    torch.set_flush_denormal(False)


def training(B: int) -> Callable[[], object]:
    """A training step whose states and gradients become denormal; with so many sequences, on all threads there are."""
    cell, x = cells.LeakyIntegrator(16, 64), torch.zeros(300, B, 16, requires_grad=True)
    state = torch.full((B, 64), 1e-30)

    def work() -> None:
        with strict():
            y, _ = recurra.unroll(cell, x, (state,))
        torch.autograd.grad(y[-1].sum() * 1e-30, [x, *cell.parameters()])

    return work


def streaming() -> object:
    return recurra.Session(recurra.GRU(8, 32)).step(torch.full((1, 8), 1e-39))


def masked() -> object:
    return recurra.unroll(recurra.Zoneout(cells.GRU(8, 32), h=0.3), torch.full((30, 8, 8), 1e-39))


def applied() -> object:
    to = torch.full((99,), 1e-39)
    return library.apply(False, OPS["mul"].native, 99, to.data_ptr(), to.data_ptr(), 0, to.data_ptr())


CALLS = {
    "one sequence": training(1),
    "two threads": training(32),
    "session": streaming,
    "masks": masked,
    "apply": applied,
}


@pytest.mark.skipif(not ROUNDINGS, reason="the numbers of the modes are those of x86")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.usefixtures("_mode_of_before")
def test_the_callers_mode_is_as_it_was(call: str, rounding: str, flush: bool) -> None:
    """In the calling thread, and in those of PyTorch's pool, which the machine uses too."""
    numbers = 1 << 18
    modes(numbers)  # so that the pool has all its threads, in the mode that new ones have
    torch.set_flush_denormal(flush)
    assert libm.fesetround(ROUNDINGS[rounding]) == 0
    before = modes(numbers)
    CALLS[call]()
    after = modes(numbers)
    assert after == before
    assert before[0] == ROUNDINGS[rounding]
    assert before[2:] == (flush, flush)
    assert before[1] == numbers or flush


@pytest.mark.skipif(not ROUNDINGS, reason="the numbers of the modes are those of x86")
def test_the_mode_of_a_thread_of_ones_own_is_as_it_was() -> None:
    seen: list[object] = []

    def work() -> None:
        torch.set_flush_denormal(True)
        before = modes(9)
        CALLS["two threads"]()
        seen.append((modes(9) == before, before[2]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, True)]
    assert modes(9)[2:] == (False, False)


# ---- values


def decaying(cell: Cell, dtype: torch.dtype) -> tuple[Cell, tuple[Tensor, ...]]:
    """The cell without any drive, which forgets half of its state at each step, and states of all sizes."""
    cell = cell.to(dtype)
    with torch.no_grad():
        for p in cell.parameters():
            p.zero_()
    _, states = scan(cell, torch.zeros(1, 40, cell.input_size, dtype=dtype))
    sizes = torch.linspace(0, math.log(torch.finfo(dtype).tiny), 40, dtype=dtype).exp()[:, None]
    return cell, tuple(torch.ones_like(s) * sizes for s in states)


DECAYING: list[Callable[[], Cell]] = [
    lambda: cells.LeakyIntegrator(3, 19),
    lambda: cells.GRU(3, 19),
    lambda: cells.LSTM(3, 19),
    lambda: cells.MinGRU(3, 19),
]


@pytest.mark.parametrize("make", DECAYING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.usefixtures("_mode_of_before")
def test_a_state_decays_as_by_scan(make: Callable[[], Cell], dtype: torch.dtype, flush: bool) -> None:
    """Number by number, to the smallest normal one; gradients too, which decay in the other direction."""
    torch.set_flush_denormal(flush)
    cell, states = decaying(make(), dtype)
    x = torch.zeros(60, 40, 3, dtype=dtype)

    def run(how: Callable[..., tuple[Tensor, tuple[Tensor, ...]]]) -> list[Tensor]:
        given = tuple(s.clone().requires_grad_() for s in states)
        y, last = how(cell, x, given)
        d = torch.autograd.grad(y[-1], given, states[0], allow_unused=True)
        return [
            y.detach(),
            *[s.detach() for s in last],
            *[torch.zeros_like(s) if g is None else g for s, g in zip(states, d)],
        ]

    with strict():
        ours = run(recurra.unroll)
    exact = 1e-5 if dtype is torch.float32 else 1e-12
    for got, want in zip(ours, run(scan), strict=True):
        assert bool(((got - want).abs() <= exact * want.abs() + FLUSHED[dtype]).all())
        assert bool((got.abs() < FLUSHED[dtype]).any()), "nothing was that small"


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_denormal_inputs_and_states_are_as_by_scan(example: CellExample) -> None:
    cell = example.make(5, 19)
    x = torch.full((9, 12, cell.input_size), 1e-39, requires_grad=True)
    _, states = scan(cell, x)
    states = tuple(torch.full_like(s, -2e-40) for s in states)

    def run(how: Callable[..., tuple[Tensor, tuple[Tensor, ...]]]) -> list[Tensor]:
        y, last = how(cell, x, states)
        weights = torch.linspace(-1, 1, y.numel()).view_as(y)
        of = torch.autograd.grad((y * weights).sum(), [x, *cell.parameters()], allow_unused=True)
        return [y.detach(), *(s.detach() for s in last), *of]

    with strict():
        ours = run(recurra.unroll)
    for got, want in zip(ours, run(scan), strict=True):
        if want is not None:
            flushed = 300 * FLUSHED[x.dtype]  # of every number of a sum
            assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max()) + flushed

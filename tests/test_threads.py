"""Several Python threads, forked children, graphs walked twice, and memory over many steps."""

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from checks import needs_machine
from torch import Tensor
from torch.utils._pytree import tree_leaves

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import Cell, cells, strict
from recurra.machine.program import library

pytestmark = needs_machine
Result = TypeVar("Result")

SECONDS = 30  # a child that has not answered by then hangs
LETTERS = 200  # of what it answers


def inputs(cell: Cell, T: int, B: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(T, B, cell.input_size, generator=g)


def step(cell: Cell, x: Tensor, weights: list[torch.nn.Parameter] | None = None) -> list[Tensor]:
    """Outputs, last states, and gradients, on the machine."""
    x = x.clone().requires_grad_()
    with strict():
        y, last = recurra.unroll(cell, x)
    loss = y.square().sum() + sum(s.sum() for s in last)
    found = torch.autograd.grad(loss, [x, *(weights or cell.parameters())], allow_unused=True)
    return [y.detach(), *(s.detach() for s in last), *(g for g in found if g is not None)]


def layer_step(layer: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs, last states, and the gradients of the input and of every parameter, on the machine."""
    x = x.clone().requires_grad_()
    with strict():
        y, states = layer(x)
    last = tree_leaves(states)
    loss = y.square().sum() + sum(s.sum() for s in last)
    return [y.detach(), *(s.detach() for s in last), *torch.autograd.grad(loss, [x, *layer.parameters()])]


def assert_equal(a: list[Tensor], b: list[Tensor]) -> None:
    for mine, other in zip(a, b, strict=True):
        assert torch.equal(mine, other)


def together(count: int, work: Callable[[int], Result]) -> list[Result]:
    """What work(k) returns in each of so many threads, which begin at once."""
    ready = threading.Barrier(count)
    found: dict[int, Result] = {}

    def run(k: int) -> None:
        ready.wait()
        found[k] = work(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(SECONDS)
        assert not t.is_alive()
    return [found[k] for k in range(count)]


@pytest.mark.tsan
@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_several_threads_at_once(example: LayerExample) -> None:
    """One layer and its programs, called with several sizes at once: each thread has scratch of its own."""
    layer = example.make(5, False)
    calls = [torch.randn(6 + 5 * k, 1 + 3 * k, 5) for k in range(4)]
    serial = [layer_step(layer, x) for x in calls]
    found = together(len(calls), lambda k: [layer_step(layer, calls[k]) for _ in range(5)])
    for results, expected in zip(found, serial, strict=True):
        for result in results:
            assert_equal(result, expected)


@pytest.mark.tsan
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_every_cell_in_several_threads_at_once(example: CellExample) -> None:
    cell = example.make(5, 19)
    calls = [inputs(cell, 4 + 3 * k, 1 + 4 * k, k) for k in range(3)]
    weights = list(cell.parameters())  # once, as an optimiser has them: while others stand in, parameters() are those
    serial = [step(cell, x) for x in calls]
    found = together(len(calls), lambda k: [step(cell, calls[k], weights) for _ in range(3)])
    for results, expected in zip(found, serial, strict=True):
        for result in results:
            assert_equal(result, expected)


@pytest.mark.tsan
def test_layers_of_one_size_in_several_threads_on_the_plain_loop() -> None:
    """They share the cell whose equation they are, and each has its own weights."""
    layers = [recurra.LSTM(8, 16).bfloat16().requires_grad_(False) for _ in range(2)]
    x = torch.randn(20, 4, 8).bfloat16()
    expected = [layer(x)[0] for layer in layers]
    found = together(2, lambda k: [layers[k](x)[0] for _ in range(50)])
    for k, results in enumerate(found):
        assert_equal(results, 50 * [expected[k]])


@pytest.mark.tsan
def test_a_new_cell_met_by_several_threads_at_once() -> None:
    cell = cells.GRU(3, 9)
    x = inputs(cell, 4, 2, 0)
    found = together(4, lambda k: step(cell, x))
    for result in found:
        assert_equal(result, step(cell, x))


@pytest.mark.tsan
@pytest.mark.parametrize("example", CELLS[::4], ids=str)
@pytest.mark.parametrize("batch", [3, 16], ids=["waiting for each other", "each its own sequences"])
def test_one_thread_and_two_give_the_same_training_step(example: CellExample, batch: int) -> None:
    cell = example.make(5, 64)
    x = inputs(cell, 80, batch, 1)
    torch.set_num_threads(2)
    two = step(cell, x)
    torch.set_num_threads(1)
    for a, b in zip(step(cell, x), two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# ---- forked children


def answer(child: int, read: int) -> bytes:
    """What the child writes; it is ended if it says nothing."""
    ready, _, _ = select.select([read], [], [], SECONDS)
    told = os.read(read, LETTERS) if ready else b"silent"
    deadline = time.monotonic() + 5
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if not ready or time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            break
        time.sleep(0.01)
    return told


def in_child(work: Callable[[], str]) -> str:
    """What a forked child's work returns; what it raises comes back as text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        told = "silent"
        try:
            told = work()
        except BaseException as error:  # noqa: BLE001 (told in the parent)
            told = repr(error)
        finally:
            os.write(write, told.encode()[:LETTERS])
            os._exit(0)
    os.close(write)
    try:
        return answer(child, read).decode()
    finally:
        os.close(read)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_a_forked_child_computes_the_same(example: LayerExample) -> None:
    """Enough work for two threads in the parent, too few numbers for PyTorch's own operations to start them."""
    layer = example.make(3, False)
    x = torch.randn(40, 16, 3)
    torch.set_num_threads(2)
    expected = layer_step(layer, x)

    values = len(expected) - 1 - len(list(layer.parameters()))  # gradients are summed in the order of the threads

    def work() -> str:
        same = zip(layer_step(layer, x)[:values], expected, strict=False)
        return "same" if all(torch.equal(a, b) for a, b in same) else "different"

    assert in_child(work) == "same"
    assert_equal(layer_step(layer, x), expected)


LARGE = [
    *CELLS,
    CellExample("Zoneout, masks drawn", lambda D, H: recurra.Zoneout(cells.LSTM(D, H), h=0.3, c=0.5)),
    CellExample("masks of whole calls", lambda D, H: recurra.VariationalDropout(cells.LSTM(D, H), x=0.3, h=0.5)),
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("example", LARGE, ids=str)
def test_a_forked_child_trains_a_large_batch(example: CellExample) -> None:
    """Of so many numbers that an operation of PyTorch's on them would wait for threads that the child does not have."""
    torch.set_num_threads(2)
    cell = example.make(16, 48)
    x = torch.randn(32, 128, 16, requires_grad=True)
    torch.manual_seed(1)  # of masks
    with strict():
        y, _ = recurra.unroll(cell, x)
    dy, leaves = torch.randn_like(y), [x, *cell.parameters()]
    assert y.numel() > 150_000
    (expected,) = torch.autograd.grad(y, x, dy)

    def work() -> str:
        torch.manual_seed(1)
        with strict():
            y, _ = recurra.unroll(cell, x)
        dx, *found = torch.autograd.grad(y, leaves, dy, allow_unused=True)
        same = torch.equal(dx, expected) and all(g is None or bool(g.isfinite().all()) for g in found)
        return "same" if same else "different"

    assert in_child(work) == "same"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_runs_what_its_parent_never_ran() -> None:
    """Traces, packs and resets are PyTorch's own operations, some of them on many numbers."""
    layer, x = recurra.LSTM(64, 256), torch.randn(40, 128, 64)
    torch.set_num_threads(2)
    x.exp()  # PyTorch's pool has threads now
    lengths, resets = torch.arange(128) % 41, torch.arange(40 * 128).view(40, 128) % 7 == 0

    def work() -> str:
        layer(x, lengths=lengths)
        layer(x, resets=resets)
        layer(torch.nn.utils.rnn.pack_padded_sequence(x, 1 + lengths % 40, enforce_sorted=False))
        return str(torch.get_num_threads())

    assert in_child(work) == "1"
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_says_that_it_runs_one_thread() -> None:
    layer, x = recurra.GRU(16, 48), torch.randn(24, 4, 16)
    torch.set_num_threads(2)
    assert "native machine, 2 threads at most\n" in f"{recurra.explain(layer, x)}\n"
    told = in_child(lambda: str(recurra.explain(layer, x)).split("native machine, ")[1].splitlines()[0])
    assert told == "1 thread at most (a forked child has none of its parent's threads; one that is spawned has its own)"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no cores to choose here")
def test_no_more_threads_than_cores() -> None:
    """A step that threads share waits for all of them; one without a core of its own comes a time slice late."""
    layer, x = recurra.LSTM(3, 4), torch.randn(9, 2, 3)
    torch.set_num_threads(4)
    cores = os.sched_getaffinity(0)
    library.more_than_cores(False)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert library.most(4) == 1 and library.most(1) == 1
        told = str(recurra.explain(layer, x))
    finally:
        os.sched_setaffinity(0, cores)
        library.more_than_cores(True)
    assert "1 thread at most (PyTorch has 4, and no more than 1 can run at once here)" in told
    assert "4 threads at most\n" in str(recurra.explain(layer, x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_runs_one_direction_after_the_other() -> None:
    """Also the backward of a call whose directions ran side by side in the parent."""
    layer, x = recurra.LSTM(3, 4, bidirectional=True), torch.randn(9, 2, 3, requires_grad=True)
    torch.set_num_threads(2)
    y, _ = layer(x)
    (expected,) = torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)

    def work() -> str:
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
        same = torch.equal(dx, expected) and torch.equal(layer(x)[0], y)
        return f"{same} {[v.beside for v in recurra.explain(layer, x).visits]}"

    assert [v.beside for v in recurra.explain(layer, x).visits] == [True, True]
    assert in_child(work) == "True [False, False]"


# ---- graphs and memory


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_a_graph_is_walked_twice(example: CellExample) -> None:
    """What forward kept is still there for a second backward, which gives the same, and a third with another loss."""
    cell = example.make(3, 11)
    x = inputs(cell, 9, 4, 3).requires_grad_()
    with strict():
        y, last = recurra.unroll(cell, x)
        weights = [x, *cell.parameters()]
        first = torch.autograd.grad(y.sum(), weights, retain_graph=True, allow_unused=True)
        second = torch.autograd.grad(y.sum(), weights, retain_graph=True, allow_unused=True)
        both = torch.autograd.grad(y.sum() + last[-1].sum(), weights, retain_graph=True, allow_unused=True)
        alone = torch.autograd.grad(last[-1].sum(), weights, allow_unused=True)
    for a, b, c, d in zip(first, second, both, alone, strict=True):
        if a is not None:
            assert torch.equal(a, b)
            torch.testing.assert_close(c, a if d is None else a + d, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), x)


def resident() -> int:
    """Bytes of memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(work: object, times: int) -> int:
    for _ in range(20):
        work()  # type: ignore[operator]
    before = resident()
    for _ in range(times):
        work()  # type: ignore[operator]
    return resident() - before


LIMIT = 25 << 20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
@pytest.mark.parametrize("make", [cells.LSTM, cells.GRU])
def test_memory_does_not_grow_over_training_steps(make: type[Cell]) -> None:
    """What one step keeps is 1 MB and more, so that 200 steps that lose it could not be missed."""
    cell = make(16, 48)
    x = inputs(cell, 64, 16, 4)
    assert growth(lambda: step(cell, x), 200) < LIMIT


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_does_not_grow_over_sessions() -> None:
    layer = recurra.LSTM(64, 128)  # 0.4 MB of packed weights each

    def work() -> None:
        recurra.Session(layer).step(torch.zeros(1, 64))

    assert growth(work, 150) < LIMIT


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_that_is_kept_would_be_noticed() -> None:
    """1 MB a step, as below; of what is free already a process may take 40 MB without growing."""
    kept: list[list[Tensor]] = []
    assert growth(lambda: kept.append([torch.ones(1 << 18)]), 200) > LIMIT


CHILD = """
import os, sys, torch, recurra
torch.set_num_threads(2)
torch.randn(400000).exp()  # PyTorch's pool has threads now
cell, x = recurra.cells.LSTM(16, 48), torch.randn(32, 8, 16)
with torch.no_grad():
    torch.set_num_threads(1)
    y, _ = recurra.unroll(cell, x)  # but the machine has not used it
    torch.set_num_threads(2)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(recurra.unroll(cell, x)[0], y) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_process_whose_machine_never_used_the_pool() -> None:
    """The machine knows a child by the process that loaded it, not by the one that first used two threads."""
    subprocess.run([sys.executable, "-c", CHILD], check=True, timeout=SECONDS, cwd=Path(__file__).parents[1])


@pytest.mark.tsan
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_threads_that_share_the_columns_of_a_step_change_no_bit(example: CellExample) -> None:
    """Few sequences and wide states: the threads of a team meet in every step (native/sequence.h, meeting_pays)."""
    torch.manual_seed(1)
    cell = example.make(20, 130)
    x = torch.randn(13, 3, cell.input_size, requires_grad=True)
    first: dict[tuple[bool, bool], list[Tensor]] = {}
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        for lengths in (None, torch.tensor([9, 0, 13])):
            for reverse in (False, True):
                torch.manual_seed(2)  # of masks
                with strict():
                    y, last = recurra.unroll(cell, x, lengths=lengths, reverse=reverse)
                weights = torch.linspace(-1, 1, y.numel()).view_as(y)
                loss = (y * weights).sum() + sum(s.sum() for s in last)
                of = torch.autograd.grad(loss, [x, *cell.parameters()], allow_unused=True)
                found = [y, *last, *[g for g in of if g is not None]]
                assert_equal(found, first.setdefault((lengths is None, reverse), found))

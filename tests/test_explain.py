"""explain in numbers: multiply-adds, bytes, threads, tiles and reasons against what is counted by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checks import needs_machine
from steps import Dropping
from torch import Tensor

import recurra
from recurra import Cell, InputError, Recurrent, cells, explain
from recurra.machine import peak
from recurra.machine.caches import caches, level_of
from recurra.machine.program import library
from recurra.machine.shape import Shape
from recurra.unroll import account, reasons
from recurra.unroll.wording import in_all, in_bytes, in_time

T, B, D, H = 12, 5, 32, 48
SMALL = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the caches of one processor, whichever runs the tests."""
    torch.set_num_threads(2)

    def level(size: int) -> str:
        return next((name for name, room in SMALL.items() if size <= 0.75 * room), "memory")

    for module in (account, reasons):
        monkeypatch.setattr(module, "caches", lambda: SMALL)
        monkeypatch.setattr(module, "level_of", level)


def shapes(layer: torch.nn.Module, x: Tensor, **given: object) -> tuple[Shape, ...]:
    (found,) = explain(layer, x, **given).accounts
    return found.shapes


def line(told: object, name: str) -> str:
    """What stands behind a name, which is there once."""
    (found,) = lines(told, name)
    return found


def lines(told: object, name: str) -> list[str]:
    return [part[2:].partition(":")[2].strip() for part in str(told).splitlines() if part.startswith(f"  {name}:")]


# Multiply-adds of the products of a row: from x, from the states, and after the loop.
COUNTED: list[tuple[Callable[[], Cell], int, int, int]] = [
    (lambda: cells.LSTM(D, H), 4 * H * D, 4 * H * H, 0),
    (lambda: cells.GRU(D, H), 3 * H * D, 3 * H * H, 0),
    (lambda: cells.Elman(D, H), H * D, H * H, 0),
    (lambda: cells.MinGRU(D, H), 2 * H * D, 0, 0),
]


@needs_machine
@pytest.mark.parametrize(("make", "before", "inside", "after"), COUNTED)
def test_multiply_adds(make: Callable[[], Cell], before: int, inside: int, after: int) -> None:
    cell, N = make(), T * B
    forward, backward = shapes(cell, torch.randn(T, B, D, requires_grad=True))
    assert forward.multiply_adds == (N * before, N * inside, N * after, 0)
    # The loop gives back to the states what it took, x gets its gradient, and each weight gathers one product.
    assert backward.multiply_adds[1] == N * inside
    assert backward.multiply_adds[0] + backward.multiply_adds[2] == N * before
    assert backward.multiply_adds[3] == N * (before + inside + after)
    _, unasked = shapes(cell, torch.randn(T, B, D))
    assert unasked.arithmetic == N * (inside + before + inside)
    with torch.no_grad():
        (alone,) = shapes(cell, torch.randn(T, B, D))
    assert alone.arithmetic == N * (before + inside)
    lengths = torch.tensor([12, 1, 7, 0, 3])
    with torch.no_grad():
        (packed,) = shapes(Recurrent(cell), torch.randn(T, B, D), lengths=lengths)
    assert packed.arithmetic == 23 * (before + inside)
    for p in cell.parameters():
        p.requires_grad_(False)
    _, frozen = shapes(cell, torch.randn(T, B, D, requires_grad=True))
    assert frozen.multiply_adds[3] == 0 and frozen.arithmetic == N * (before + inside)


@needs_machine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes(dtype: torch.dtype) -> None:
    """Of an LSTM whose widths fill vectors. A call that keeps nothing passes the gates on inside a chunk."""
    H, size = 64, dtype.itemsize
    layer = recurra.LSTM(D, H).to(dtype)
    inside, outside = 4 * H * H * size, 4 * H * D * size
    with torch.no_grad():
        told = explain(layer, torch.randn(T, 32, D, dtype=dtype))
    (shape,) = told.accounts[0].shapes
    assert (shape.weights, shape.own, shape.weights_outside) == (inside, inside, outside)
    assert (shape.rows_read, shape.rows_written, shape.rows_passed) == (D * size, H * size, 2 * 4 * H * size)
    assert shape.chunk == 3  # 96 rows
    rows = T * 32 * (D + H + 8 * H) * size
    moved = 2 * (inside + outside) + 2 * T * inside + 2 * (T // 3) * outside + rows  # packed once; by both threads
    assert (shape.use, shape.read, shape.moved) == ("sequences", 2 * T * inside, moved)
    assert line(told, "bytes moved") == f"{in_bytes(moved)} in all, {in_bytes(moved / T)} a step"
    assert line(told, "rows").startswith(f"each {in_bytes(D * size)} read, {in_bytes(H * size)} written, ")
    level = "L2"
    caught = f"{in_bytes(inside)}, read by each thread at every step from {level} (L1 32.8 KB, L2 1.05 MB, L3 33.6 MB)"
    assert line(told, "weights in the loop") == caught
    assert line(told, "precision") == {4: "fp32", 8: "fp64"}[size]


@needs_machine
def test_a_call_that_keeps_writes_what_it_keeps() -> None:
    forward, backward = shapes(recurra.LSTM(D, 64), torch.randn(T, 32, D))
    gates, h, c = 4 * 64 * 4, 64 * 4, 64 * 4
    assert forward.rows_written == gates + gates + h + c  # the stream of x, the gates over it, the output, c
    assert forward.rows_read == D * 4 + gates and forward.rows_passed == 0
    assert backward.rows_read >= gates + c + h


@needs_machine
def test_how_threads_share() -> None:
    lstm = recurra.LSTM(256, 256)
    with torch.no_grad():
        apart, told = shapes(lstm, torch.zeros(8, 32, 256))[0], explain(lstm, torch.zeros(8, 32, 256))
        assert (apart.threads, apart.use, apart.sequences) == (2, "sequences", (16, 16))
        assert line(told, "threads") == "2: each has sequences of its own (16, 16) and waits for none"
        shared, told = shapes(lstm, torch.zeros(128, 1, 256))[0], explain(lstm, torch.zeros(128, 1, 256))
        assert (shared.use, shared.own, shared.weights) == ("columns", 512 << 10, 1 << 20)
        assert [p.columns for p in shared.phases] == [128] and shared.read == 128 << 20  # once a step, by both together
        assert line(told, "threads") == "2: they share the columns of every step, and meet after each phase of it"
        assert line(told, "weights in the loop").startswith("1.05 MB, of which each thread reads 524 KB at every step")
        lengths = torch.tensor([9, *[1] * 11])
        uneven = shapes(lstm, torch.zeros(9, 12, 256), lengths=lengths)[0]
        assert uneven.sequences[0] < uneven.sequences[1] and uneven.phases[0].rows == max(uneven.sequences)
        few = explain(recurra.LSTM(32, 32), torch.zeros(400, 2, 32))
        assert line(few, "threads") == "2: they share the rows outside of the loop, and its sequences (1, 1)"
        alone = explain(recurra.LSTM(8, 8), torch.zeros(9, 2, 8))
        assert line(alone, "threads") == "1"
        assert "1 of 2 threads: there is too little work to wake more" in lines(alone, "what takes time")
        torch.set_num_threads(1)
        assert shapes(lstm, torch.zeros(8, 32, 256))[0].use == "alone"
        both = explain(recurra.LSTM(256, 256), torch.zeros(8, 32, 256))
        assert not any("threads" in told for told in lines(both, "what takes time"))


@needs_machine
def test_directions_side_by_side() -> None:
    told = explain(recurra.LSTM(16, 16, bidirectional=True), torch.randn(20, 2, 16), measure=True)
    assert [a.shapes[0].threads for a in told.accounts] == [1, 1]
    assert lines(told, "threads") == ["1, beside the other direction"] * 2
    assert all(a.measured is not None and a.measured.backward is not None for a in told.accounts)


@needs_machine
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (3, 48), (32, 256), (40, 17), (200, 1000)])
def test_tiles(rows: int, width: int) -> None:
    """A tile is whole units of columns, and no more than the first-level cache has room for beside others."""
    torch.set_num_threads(1)
    with torch.no_grad():
        told = explain(recurra.GRU(8, width), torch.zeros(9, rows, 8))
    lanes = library.lanes(False)
    for phase in told.accounts[0].shapes[0].phases:
        tall, wide = phase.tile
        assert phase.rows == rows and phase.columns == width and 0 < tall <= rows and 0 < wide <= width
        assert phase.unit % lanes == 0 and (wide % phase.unit == 0 or wide == width)
        assert tall * wide * 4 <= 3072 or wide <= phase.unit
        assert 1 <= phase.block[0] <= min(tall, phase.full) and phase.block[1] % lanes == 0
        whole = -(-width // phase.unit) * phase.unit
        assert 0 <= phase.padded <= 1 - width / whole + 1e-9
    tiles = "; ".join(
        f"{p.tile[0]} x {p.tile[1]} of {rows} rows x {width} columns, in registers {p.block[0]} x {p.block[1]}"
        for p in told.accounts[0].shapes[0].phases
    )
    assert line(told, "tiles in the loop") == tiles


# ---- reasons


def why(layer: torch.nn.Module, x: Tensor, **given: object) -> list[str]:
    with torch.no_grad():
        return lines(explain(layer, x, **given), "what takes time")


@needs_machine
def test_reasons() -> None:
    torch.set_num_threads(1)
    full = 6 if library.lanes(False) != 4 else 4
    assert why(recurra.LSTM(256, 256), torch.zeros(128, 1, 256)) == [
        "one sequence: each step waits for the one before, and reads 1.05 MB of weights from L3 for 1 row, "
        f"where a register block has room for {full}",
        "1.05 MB, weights, does not fit this core's 1.05 MB L2, and comes from L3 at every step",
    ]
    assert why(recurra.LSTM(256, 256), torch.zeros(128, 64, 256)) == []
    assert why(recurra.LSTM(8, 32), torch.zeros(1, 1, 8)) == [
        "T = 1: one step bears the cost of the whole call; recurra.Session keeps weights packed from step to step",
        "1 row in all: too few for weights to be packed, which are turned as they are read",
    ]
    few = "20 rows in all: packing 512 KB of weights, once a call, serves few"  # 4 H (D + H) numbers
    assert why(recurra.LSTM(122, 128), torch.zeros(2, 10, 122))[0] == few
    lengths = torch.tensor([20, 2, 5, 13, 1, 20, 7, 20, 3, 4])
    assert why(recurra.LSTM(64, 64), torch.zeros(20, 10, 64), lengths=lengths)[0] == (
        "lengths differ: 52 % of the 200 padded rows are skipped, and half of the steps have no more than 4 sequences"
    )
    assert why(recurra.LSTM(64, 64), torch.zeros(20, 10, 64), lengths=torch.full((10,), 20)) == []
    lanes = library.lanes(False)
    assert why(recurra.LSTM(64, lanes + 1), torch.zeros(20, 10, 64)) == [
        f"{100 * (lanes - 1) / (2 * lanes):.0f} % of the loop's multiply-adds only fill vectors: "
        f"a width that is a multiple of {lanes} wastes none"
    ]
    assert why(Recurrent(cells.LSTM(64, 64)), torch.zeros(0, 10, 64)) == []


@needs_machine
def test_reasons_of_threads_that_wait() -> None:
    torch.set_num_threads(2)
    idle = "1 sequence, and steps too small to be shared: 1 of 2 threads runs the loop"
    assert idle in why(recurra.LSTM(64, 16), torch.zeros(400, 1, 64))
    shared = why(recurra.LSTM(640, 640), torch.zeros(90, 2, 640))
    far = "does not fit this core's 1.05 MB L2, and comes from L3 at every step"
    assert f"3.28 MB, a thread's part of the weights, {far}" in shared
    told = explain(recurra.LSTM(64, 64, memory="sqrt"), torch.zeros(100, 4, 64))
    assert 'memory="sqrt": the backward pass runs the forward once more' in lines(told, "what takes time")
    assert not any("sqrt" in r for r in why(recurra.LSTM(64, 64, memory="sqrt"), torch.zeros(100, 4, 64)))


def test_other_executors() -> None:
    scanned = explain(Dropping(), torch.randn(3, 2, 5, dtype=torch.double))
    assert scanned.accounts[0].shapes == () and lines(scanned, "precision") == []
    assert lines(scanned, "what takes time") == ["the plain loop: Python runs the step operation by operation, 3 times"]
    assert line(scanned, "time").endswith(" in this one call")
    told: list[recurra.unroll.Explanation] = []
    cell = cells.LSTM(4, 8)
    torch.func.vmap(lambda v: told.append(explain(cell, v)) or v, 1)(torch.randn(3, 2, 1, 4).movedim(1, 1))
    if told[0].executors == ("PyTorch",):
        assert line(told[0], "arithmetic") == "1.15 thousand multiply-adds forward"  # 3 steps, 4 H (D + H)
        assert lines(told[0], "what takes time") == ["PyTorch runs the program operation by operation, 3 times"]
    json.dumps([t.as_dict() for t in (scanned, *told)])


# ---- measuring


@needs_machine
def test_measured() -> None:
    layer, x = recurra.LSTM(D, H), torch.randn(T, B, D, requires_grad=True)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    told = explain(layer, x, measure=True)
    assert torch.equal(torch.rand(3), expected)
    assert all(t.grad is None for t in (x, *layer.parameters()))
    (found,) = told.accounts
    m, (forward, backward) = found.measured, found.shapes
    assert m is not None and m.backward is not None and m.itself is not None
    for against, shape in ((m.forward, forward), (m.backward, backward)):
        assert against.seconds > 0 and against.rate == peak.multiply_rate("fp32", shape.threads)
        assert against.arithmetic == shape.arithmetic / against.rate
        assert against.read == peak.read_rate(shape.own, shape.threads)
        assert against.reading == shape.read / against.read
    assert 0 < m.itself < m.backward.seconds + m.forward.seconds
    assert line(told, "time") == (
        f"{in_time(m.forward.seconds)} forward, {in_time(m.backward.seconds)} backward; "
        f"the call itself {in_time(m.itself)} (shortest of several)"
    )
    part = 100 * m.forward.arithmetic / m.forward.seconds
    assert f"forward {part:.0f} % of {2e-9 * m.forward.rate:.3g} GFLOP/s" in line(told, "of the peak, arithmetic")
    assert any(r.startswith("forward: ") for r in found.reasons)
    assert any(r.startswith("backward: ") for r in found.reasons)
    once = explain(recurra.LSTM(8, 8), torch.zeros(1, 1, 8), measure=True)
    assert lines(once, "what takes time")[0].startswith("T = 1: the call itself, ")


@needs_machine
def test_peaks() -> None:
    """A core multiplies at least once a cycle, twice as much in fp32 as in fp64; and reads faster what is nearer."""
    single, double = peak.multiply_rate("fp32", 1), peak.multiply_rate("fp64", 1)
    assert 1e9 * library.lanes(False) < single < 1e12 and 1.2 < single / double < 3
    assert peak.multiply_rate("fp32", 1) == single  # measured once
    assert 1e9 < peak.read_rate(16 << 10, 1) < 2e12


def test_measured_on_the_plain_loop_and_refused() -> None:
    told = explain(Dropping(), torch.randn(3, 2, 5, dtype=torch.double), measure=True)
    assert told.accounts[0].measured is None and told.accounts[0].seconds > 0
    assert lines(told, "what takes time")[-1] == "not measured: only the native machine's peak is known"
    with (layer := recurra.LSTM(3, 4)).record("i"):
        told = explain(layer, torch.zeros(2, 1, 3), measure=True)
    assert told.accounts[0].shapes and told.accounts[0].measured is None
    assert lines(told, "what takes time")[-1] == "not measured: a layer that records is run once"
    with pytest.raises(InputError, match="measure is 3, but answers yes or no"):
        explain(recurra.LSTM(3, 4), torch.zeros(2, 1, 3), measure=3)  # type: ignore[arg-type]


@needs_machine
def test_as_dict() -> None:
    told = explain(recurra.LSTM(D, H), torch.randn(T, B, D), measure=True)
    found = json.loads(json.dumps(told.as_dict()))
    assert found["caches"] == caches() and found["threads"] == 2
    (visit,) = found["visits"]
    assert (visit["cell"], visit["T"], visit["B"], visit["executor"]) == ("LSTM", T, B, "native machine")
    assert visit["multiply_adds"] == T * B * 4 * H * (D + H) and visit["precision"] == "fp32"
    assert visit["shapes"]["forward"]["phases"][0]["tile"] == list(told.accounts[0].shapes[0].phases[0].tile)
    assert visit["shapes"]["backward"]["weights_in"] == "L1" and visit["measured"]["forward"]["seconds"] > 0
    assert visit["reasons"] == list(told.accounts[0].reasons)


# ---- words


def test_caches_are_read_as_linux_tells_them(tmp_path: Path) -> None:
    for n, (kind, level, size) in enumerate(
        [("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2M")]
    ):
        folder = tmp_path / f"index{n}"
        folder.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(text + "\n")
    (tmp_path / "index9").mkdir()
    assert caches(tmp_path) == {"L1": 48 << 10, "L2": 2 << 20}
    assert [level_of(n, tmp_path) for n in (0, 36 << 10, 37 << 10, 3 << 19, (3 << 19) + 1)] == [
        "L1", "L1", "L2", "L2", "memory",
    ]  # fmt: skip
    assert caches(tmp_path / "none") == {} and level_of(5, tmp_path / "none") == ""


def test_numbers_in_words() -> None:
    assert [in_bytes(n) for n in (0, 64, 999.4, 1000, 1 << 20, 5.5e9)] == [
        "0 bytes", "64 bytes", "999 bytes", "1 KB", "1.05 MB", "5.5 GB",
    ]  # fmt: skip
    assert [in_all(n) for n in (12, 268435456, 3e12)] == ["12", "268 million", "3 T"]
    assert [in_time(n) for n in (2.8e-5, 0.00123, 1.5)] == ["28 us", "1.23 ms", "1.5 s"]

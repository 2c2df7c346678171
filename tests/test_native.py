"""The machine: operations against PyTorch, gradients of weights, lists that are no programs, and both builds."""

import json
import math
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks import needs_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_functions import apply
from torch import Tensor

from examples import CELLS, CellExample
from recurra import InputError, cells, unroll
from recurra.machine import native
from recurra.machine.operands import NOTHING, Memory, Place
from recurra.machine.program import library
from recurra.program.ops import OPS, Op
from recurra.unroll.compiled import find

pytestmark = needs_machine

DTYPES = [torch.float32, torch.float64]
LENGTHS = (1, 7, 16, 17, 250)
COMPUTED = [op for op in OPS.values() if op.native is not None and op.kind in ("pointwise", "reduction")]
ROUNDED = [
    "fma",
    "sigmoid",
    "tanh",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "erf",
    "softplus",
    "dsigmoid",
    "dtanh",
    "rowsum",
    "rowdevsq",
]


def grid(op: Op, n: int, dtype: torch.dtype) -> list[Tensor]:
    """Operands that meet in every combination of sign and in equal numbers; positive where roots and logarithms are."""
    pattern = torch.tensor([-2.5, -1.0, -0.3, 0.0, 0.2, 1.0, 3.0], dtype=dtype)
    i = torch.arange(n)
    operands = [pattern[i % 7], pattern[(i // 7 + i // 49 + i) % 7], pattern[(i // 3) % 7]][: op.arity]
    if op.name in ("log", "log1p", "sqrt", "rsqrt"):
        operands = [o.abs() + 0.1 for o in operands]
    return operands


@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_is_that_of_pytorch(op: Op, dtype: torch.dtype) -> None:
    for n in LENGTHS:
        operands = grid(op, n, dtype)
        got, expected = apply(op.name, *operands), op.value(*operands).reshape(-1)
        if op.name in ROUNDED:
            exact = 4 * torch.finfo(dtype).eps
            largest = max(float(o.abs().max()) for o in operands) ** 2 + 1  # a fused chain rounds once, PyTorch twice
            torch.testing.assert_close(got, expected, rtol=exact, atol=exact * largest)
        else:
            assert torch.equal(got.nan_to_num(7, 8, 9), expected.nan_to_num(7, 8, 9)), (op.name, n, got, expected)


def test_every_operation_of_the_table_is_known_to_the_machine() -> None:
    """An opcode that the machine lacks would leave its result unwritten."""
    assert {op.name for op in COMPUTED} >= {op.name for op in OPS.values() if op.kind in ("pointwise", "reduction")}
    for op in COMPUTED:
        if op.name != "rowsum":
            assert not bool((apply(op.name, *grid(op, 33, torch.float32)) == -77).any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_comparisons_and_choice_with_nan(dtype: torch.dtype) -> None:
    nan, inf = math.nan, math.inf
    a = torch.tensor([nan, 1.0, nan, inf, -inf, 0.0, -0.0], dtype=dtype)
    b = torch.tensor([1.0, nan, nan, inf, inf, -0.0, 0.0], dtype=dtype)
    for name in ("gt", "ge", "eq", "max", "min"):
        torch.testing.assert_close(apply(name, a, b), OPS[name].value(a, b), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(apply("select", a, b, b + 1), OPS["select"].value(a, b, b + 1), equal_nan=True)
    for name in ("rowsum", "rowmax", "rowdevsq"):
        for n in (1, 5, 17, 40, 300):
            for at in (0, n // 2, n - 1):
                x = torch.zeros(n, dtype=dtype)
                x[at] = nan
                assert bool(apply(name, x).isnan().all())
    assert apply("rowmax", torch.full((19,), -inf, dtype=dtype)).item() == -inf
    assert apply("rowmax", torch.full((19,), -3.0, dtype=dtype)).item() == -3


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_squared_deviations_of_a_row_far_from_zero_keep_their_digits(dtype: torch.dtype) -> None:
    """As PyTorch's own, which goes through the row twice; the difference of two sums would have no digit right."""
    g = torch.Generator().manual_seed(0)
    for n in (2, 7, 33, 128, 513, 5000):
        for shift in (1e3, -1e3):
            x = (shift + torch.randn(n, dtype=torch.float64, generator=g)).to(dtype)
            for at in (0, n // 2, None):  # one number apart from all others, also where a block's first value is
                y = x if at is None else x.index_fill(0, torch.tensor([at]), 3 * shift)
                exact = OPS["rowdevsq"].value(y.double())
                error = (apply("rowdevsq", y).double() - exact).abs() / exact
                assert error.item() < 40 * torch.finfo(dtype).eps, (n, shift, at)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_squared_deviations_of_what_is_too_large_to_be_squared(dtype: torch.dtype) -> None:
    large = torch.finfo(dtype).max / 64
    for n in (3, 20, 150):
        row = torch.zeros(n, dtype=dtype)
        assert apply("rowdevsq", row).item() == 0
        row[n // 2] = large
        assert apply("rowdevsq", row).item() == math.inf == OPS["rowdevsq"].value(row).item()
        row[n // 2] = math.inf
        assert math.isnan(apply("rowdevsq", row).item()) and math.isnan(OPS["rowdevsq"].value(row).item())


# ---- the gradient of a weight


def gained(
    left: Tensor,
    right: Tensor,
    gains: list[list[int]],
    sizes: list[list[int]],
    shifted: tuple[int, ...] = (),
    T: int = 0,
) -> list[Tensor]:
    """What a program of gains alone writes to targets of these sizes, over rows `left` and `right` (arrays 0 and 1)."""
    arrays = [left, right, torch.randn(5, right.shape[1], dtype=left.dtype)]
    widths = [a.shape[1] for a in arrays]
    code = [3, *widths, len(shifted) // 3, *shifted, 0, 0, len(sizes), len(gains), *(n for g in gains for n in g)]
    program = library.Program(code, [], left.dtype is torch.float64)
    to = [torch.full(size, math.nan, dtype=left.dtype) for size in sizes]
    N, B = len(left), (len(left) // T if T else 1)
    pointers = [a.data_ptr() for a in arrays], [], (), [t.data_ptr() for t in to]
    program.run(T or N, B, N, 0, torch.get_num_threads(), *pointers)
    return [*to, arrays[2]]


@pytest.mark.tsan
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("N", "R", "C"), [(0, 3, 5), (1, 1, 1), (2, 7, 17), (127, 6, 64), (128, 37, 65), (129, 13, 3), (300, 250, 130)]
)
@pytest.mark.usefixtures("poisoned")
def test_what_weights_gain(N: int, R: int, C: int, dtype: torch.dtype) -> None:
    exact = 1e-5 if dtype is torch.float32 else 1e-13
    left, right = torch.randn(N, R + 2, dtype=dtype), torch.randn(N, 2 * C, dtype=dtype)
    operands = [Place.ROWS, 0, 1, 0, Place.ROWS, 1, C, 0]  # columns [1, R + 1) and [C, 2 C)
    product, double = [R, C, *operands, 2, 0, 1], [R, C, *operands, 1, 1]
    total = [1, C, *NOTHING, *operands[4:], 2, 2, 3]
    sizes = [[R, C], [R, C], [C], [C]]
    once, twice, sums, again, _ = gained(left, right, [product, double, total], sizes)
    expected = left[:, 1:-1].double().mT @ right[:, C:].double()
    whole = right[:, C:].double().sum(0)
    for got, truth in ((once, expected), (twice, 2 * expected), (sums, whole), (again, whole)):
        assert float((got - truth).abs().max()) <= exact * max(1.0, float(truth.abs().max()))
    torch.set_num_threads(1)
    for got, other in zip(
        gained(left, right, [product, double, total], sizes), (once, twice, sums, again), strict=False
    ):
        assert torch.equal(got, other)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.usefixtures("poisoned")
def test_rows_one_step_earlier(order: int) -> None:
    """Gains from rows one step earlier in time, or later, and before the first from the initial ones."""
    T, B, R, C = 60, 5, 7, 20
    left, right = torch.randn(T * B, R), torch.randn(T * B, C)
    gain = [R, C, Place.ROWS, 0, 0, 0, Place.SHIFTED, 0, 0, 0, 1, 0]
    got, first = gained(left, right, [gain], [[R, C]], (1, 2, order), T)
    before = torch.cat([first, right[:-B]]) if order > 0 else torch.cat([right[B:], first])
    torch.testing.assert_close(got, left.mT @ before, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("poisoned")
def test_nan_reaches_what_a_weight_gains() -> None:
    left, right = torch.ones(9, 5), torch.zeros(9, 4)
    left[3, 2] = math.nan
    got, _ = gained(left, right, [[5, 4, Place.ROWS, 0, 0, 0, Place.ROWS, 1, 0, 0, 1, 0]], [[5, 4]])
    assert got.isnan().nonzero().tolist() == [[2, c] for c in range(4)]


# ---- programs that are none


def programs() -> list[tuple[list[int], list[float]]]:
    """The lists of integers of every cell's forward and backward."""
    found = []
    for example in CELLS:
        executor = find(example.make(3, 5), None)[0].executor
        assert isinstance(executor, native.NativeExecutor)
        both = (
            executor._forward_program(True).program,
            executor._backward_program(True, (True,) * len(executor.plan.inputs)).program,
        )
        found += [(p.code, p.constants) for p in both]
    return found


def accepted(code: list[int], constants: list[float]) -> bool:
    try:
        library.Program(code, constants, False)
    except ValueError:
        return False
    return True


def test_every_cells_program_is_accepted_and_nothing_shorter_or_longer() -> None:
    for code, constants in programs():
        assert accepted(code, constants)
        for n in range(len(code)):
            assert not accepted(code[:n], constants)
        assert not accepted([*code, 0], constants)


def test_zeros_of_both_signs_are_two_constants_and_nan_is_one() -> None:
    memory = Memory(())
    assert [memory.constant(n) for n in (0.0, -0.0, torch.nan, 0.0, torch.nan)] == [0, 1, 2, 0, 2]


def test_constants_that_are_not_there_are_refused() -> None:
    with_constants = [(code, constants) for code, constants in programs() if constants]
    assert with_constants
    for code, constants in with_constants:
        assert not accepted(code, constants[:-1])


@settings(max_examples=400)
@given(data=st.data())
def test_a_changed_program_is_refused_or_is_a_program(data: st.DataObject) -> None:
    every = programs_once()
    code, constants = every[data.draw(st.integers(0, len(every) - 1))]
    changed = list(code)
    odd = st.sampled_from(
        [-(2**63), -(2**31) - 1, -(2**31), -2, -1, 0, 1, 2, 64, 65, 2**20, 2**30, 2**31, 2**40, 2**63 - 1]
    )
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(code) - 1))] = data.draw(odd | st.integers(-100, 100))
    accepted(changed, constants)


@settings(max_examples=200)
@given(code=st.lists(st.integers(-3, 40) | st.integers(-(2**63), 2**63 - 1), max_size=60))
def test_any_list_of_integers_is_refused_or_is_a_program(code: list[int]) -> None:
    accepted(code, [])


_programs: list[tuple[list[int], list[float]]] = []


def programs_once() -> list[tuple[list[int], list[float]]]:
    if not _programs:
        _programs.extend(programs())
    return _programs


@pytest.mark.parametrize("code", [[], [-1], [2**20 + 1], [1, 0], [1, -5], [0, 0, 0], [0, 0, -1, 0], [0, 1, 0, -1, 0]])
def test_lists_that_are_no_programs(code: list[int]) -> None:
    with pytest.raises(ValueError, match="native program"):
        library.Program(code, [], False)


def test_a_call_with_too_few_addresses_is_refused() -> None:
    code, constants = programs_once()[0]
    program = library.Program(code, constants, False)
    with pytest.raises(ValueError, match=r"0 arrays, not \d+"):
        program.run(1, 1, 1, 0, 1, [], [], (), ())


# ---- memory


def flags_of(address: int) -> str:
    """The kernel's flags of the mapping in which an address lies."""
    inside, mapping = False, re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := mapping.match(line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line
    return ""


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="this kernel gives no large pages")
def test_large_results_ask_for_large_pages() -> None:
    """Outputs and gradients of inputs: the first of 4 KiB would be a fault, and so would every other one."""
    cell = cells.LeakyIntegrator(64, 512)
    x = torch.randn(70, 512, 64, requires_grad=True)  # 8.75 MiB, of which the output has 8 times as much
    y, _ = unroll(cell, x)
    wide = torch.randn(1200, 64, 64, requires_grad=True)
    (dx,) = torch.autograd.grad(unroll(cell, wide)[0].sum(), wide)
    for t in (y, dx):
        assert t.nbytes > 1 << 24
        assert " hg" in flags_of(t.data_ptr() + t.nbytes // 2)
    fresh = torch.frombuffer(mmap.mmap(-1, 1 << 24), dtype=torch.uint8)  # a tensor may lie where a result has lain
    assert " hg" not in flags_of(fresh.data_ptr()), "every mapping has this flag here"


# ---- both builds


def results() -> dict[str, Tensor]:
    """Every operation and every cell, forward and backward, in both dtypes."""
    found = {}
    for dtype in DTYPES:
        for op in COMPUTED:
            found[f"{op.name} {dtype}"] = apply(op.name, *grid(op, 250, dtype))
        for example in CELLS:
            for k, t in enumerate(cell_results(example, dtype)):
                found[f"{example} {k} {dtype}"] = t.contiguous().clone()
    return found


def cell_results(example: CellExample, dtype: torch.dtype) -> list[Tensor]:
    import recurra

    torch.manual_seed(3)
    cell = example.make(5, 37).to(dtype)
    x = torch.randn(9, 7, 5, dtype=dtype, requires_grad=True)
    with recurra.strict():
        y, last = recurra.unroll(cell, x, lengths=torch.tensor([9, 3, 0, 7, 7, 1, 9]))
    weights = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
    gradients = torch.autograd.grad((y * weights).sum() + last[0].sum(), [x, *cell.parameters()])
    return [y.detach(), *(s.detach() for s in last), *gradients]


@pytest.mark.skipif(library is None or library.isa() == "v3", reason="the narrow build is the one in use")
def test_both_instruction_sets_agree(tmp_path: Path) -> None:
    here, path = Path(__file__).parent, tmp_path / "narrow.safetensors"
    code = (
        f"import sys; sys.path[:0] = [{json.dumps(str(here))}, {json.dumps(str(here.parent))}]\n"
        "import torch; torch.set_num_threads(1)\n"
        "from safetensors.torch import save_file\n"
        "from test_native import library, results\n"
        "assert library.isa() == 'v3' and library.lanes(False) == 8\n"
        f"save_file(results(), {json.dumps(str(path))})\n"
    )
    env = os.environ | {"RECURRA_ISA": "avx2", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=120)
    narrow, wide = load_file(path), results()
    assert narrow.keys() == wide.keys()
    for name, a in wide.items():
        b, exact = narrow[name], 1e-5 if a.dtype is torch.float32 else 1e-13
        assert float((a - b).nan_to_num(0, 0, 0).abs().max()) <= exact * max(
            1.0, float(a.nan_to_num(0, 0, 0).abs().max())
        ), name
        assert torch.equal(a.isfinite(), b.isfinite()), name


@pytest.mark.parametrize("wish", ["avx512bw", "v3"])
def test_an_instruction_set_that_there_is_not(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setenv("RECURRA_ISA", wish)
    with pytest.raises(InputError) as error:
        native.available()
    assert str(error.value) == (
        f"RECURRA_ISA is '{wish}'. Choose one of avx2, avx512, avx512-bf16, amx, or leave it unset for the widest "
        "there is here."
    )


@pytest.mark.skipif(library is None or library.isa() == "v3", reason="a wider build is not the one in use")
def test_an_instruction_set_asked_for_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"v4": "avx512", "bf16": "avx512-bf16", "amx": "amx"}[library.isa()]
    monkeypatch.setenv("RECURRA_ISA", loaded)
    assert native.available() == ""
    monkeypatch.setenv("RECURRA_ISA", "avx2")
    assert native.available() == (
        f"RECURRA_ISA is avx2, and {loaded} is loaded: the processor has no more, or it was set too late"
    )


def test_a_program_tells_what_a_call_would_do() -> None:
    """Of an LSTM over (T, B): its threads, chunks and tiles, and what each row reads and writes."""
    T, B, D, H = 12, 32, 48, 80
    compiled, _ = find(cells.LSTM(D, H), None)
    assert compiled.executor is not None
    forward = compiled.executor._forward
    arrays = forward.blank(False)
    for i in (*forward.inputs, forward.output, *forward.last):
        arrays[i] = 2
    told = forward.program.handle(torch.float32).describe(T, B, T * B, 0, 2, arrays, [])
    assert (told["threads"], told["together"], told["apart"], told["packed"]) == (2, False, True, True)
    assert told["sequences"] == [16, 16] and told["steps"] == 3  # 96 rows go through all stages together
    before, loop = told["stages"]
    assert [p["multiply_adds"] for p in (*before["phases"], *loop["phases"])] == [4 * H * D, 4 * H * H]
    assert (before["rows_read"], before["chunk_written"]) == (D, 4 * H)
    assert (loop["chunk_read"], loop["rows_written"]) == (4 * H, H)
    (phase,) = loop["phases"]
    lanes = library.lanes(False)
    assert phase["packed_bytes"] == 4 * 4 * H * H and phase["rows"] == 16 and phase["columns"] == H
    assert phase["tile"][0] == 16 and phase["tile"][1] % lanes == 0 and 16 * phase["tile"][1] * 4 <= 3072
    assert phase["block"] == (6, lanes * (4 if lanes == 16 else 2))

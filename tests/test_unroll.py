"""The door: unroll means what scan means; what ran is told, and no fall-back is silent."""

import functools
import gc
import os
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import needs_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import STEPS, Dropping, Gated, IfTensor, PassingThrough, Step, random_states
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import Cell, InputError, StrictError, cells, unroll
from recurra.cell import innermost
from recurra.layers.layer import Layer
from recurra.scan import scan
from recurra.unroll import Call, answer, describe, explain, strict

D, H = 3, 4


def same(a: Tensor, b: Tensor, exact: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, atol=exact, rtol=exact)


def assert_same(
    cell: Cell, x: Tensor, states: tuple[Tensor, ...] | None, lengths: Tensor | None, reverse: bool
) -> None:
    """Outputs, last states and every gradient are those of scan."""
    given = [x, *(states or ()), *cell.parameters()]
    ours, theirs = (run(cell, x, states, lengths, reverse) for run in (unroll, scan))
    weights = None
    gradients = []
    for y, last in (ours, theirs):
        weights = weights or [torch.randn_like(t) for t in (y, *last)]
        moving = [(t * w).sum() for t, w in zip((y, *last), weights, strict=True) if t.requires_grad]
        gradients.append(torch.autograd.grad(sum(moving), given, allow_unused=True) if moving else [None] * len(given))
    for a, b in zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True):
        same(a, b)
    for t, a, b in zip(given, *gradients, strict=True):
        zero = torch.zeros_like(t)
        same(zero if a is None else a, zero if b is None else b)


@pytest.mark.parametrize("example", CELLS, ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_unroll_is_scan(example: CellExample, data: st.DataObject) -> None:
    cell = example.make(D, H).double()
    T, B = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 5))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B).map(torch.tensor))
    x = torch.randn(T, B, D, dtype=torch.double, requires_grad=True)
    states = random_states(cell, B) if data.draw(st.booleans()) else None
    with strict():
        assert_same(cell, x, states, lengths, data.draw(st.booleans()))


def starting_in(cell: Cell, dtype: torch.dtype) -> Cell:
    """The cell, whose `initial` gives ones of this dtype."""
    inner = innermost(cell)

    def initial(self: Cell, batch: int) -> tuple[Tensor, ...]:
        return tuple(torch.ones(batch, n, dtype=dtype) for n in self.state_sizes.values())

    kind = type(inner)
    inner.__class__ = type(kind.__name__, (kind,), {"initial": initial}, named_by_step=False)
    return cell


def outcome(call: Callable[[], tuple[Tensor, tuple[Tensor, ...]]]) -> list[Tensor] | tuple[type, str]:
    try:
        y, last = call()
    except recurra.RecurraError as error:
        return type(error), str(error)
    return [y, *last]


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.float32], ids=str)
def test_first_states_of_another_dtype_are_what_they_are_to_scan(example: CellExample, dtype: torch.dtype) -> None:
    """Refused in the same words, or promoted as PyTorch promotes: never taken for numbers of the weights' dtype."""
    cell, x = starting_in(example.make(D, H), dtype).eval(), torch.randn(5, 3, D)
    for more in ({}, {"lengths": torch.tensor([2, 0, 5])}, {"resets": torch.eye(5, 3, dtype=torch.bool)}):
        with torch.no_grad():
            ours, theirs = (outcome(lambda: run(cell, x, **more)) for run in (unroll, scan))  # noqa: B023
        if isinstance(theirs, tuple):
            assert ours == theirs and dtype is not torch.float32
            assert f"which has the dtype {dtype}, but the weights" in theirs[1]
            continue
        assert isinstance(ours, list)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_message_about_first_states_names_initial() -> None:
    cell = starting_in(cells.GRU(D, H), torch.float64)
    told = (
        "initial(batch) of GRU returns h, which has the dtype torch.float64, but the weights of GRU are torch.float32. "
        "Convert one of them: h.to(torch.float32)."
    )
    x, marks = torch.randn(5, 3, D), torch.eye(5, 3, dtype=torch.bool)
    for call in (
        lambda: scan(cell, x),
        lambda: unroll(cell, x),
        lambda: recurra.Recurrent(cell)(x),
        lambda: unroll(cell, x, (torch.zeros(3, H),), resets=marks),
        lambda: scan(cell, x, (torch.zeros(3, H),), resets=marks),
        lambda: recurra.Session(recurra.Recurrent(cell)).step(x[0]),
    ):
        with pytest.raises(recurra.CellError) as caught:
            call()
        assert str(caught.value) == told


@pytest.mark.parametrize("make", STEPS)
@pytest.mark.parametrize("lengths", [None, [2, 0, 5]], ids=["whole", "lengths"])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_idiom_is_scan(make: type[Step], lengths: list[int] | None, reverse: bool) -> None:
    cell = make()
    x = torch.randn(5, 3, cell.input_size, dtype=torch.double, requires_grad=True)
    given = None if lengths is None else torch.tensor(lengths)
    assert_same(cell, x, random_states(cell, 3), given, reverse)


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_packed_rows(example: CellExample) -> None:
    cell = example.make(D, H).double()
    lengths = torch.tensor([5, 3, 3, 1])
    x = torch.randn(5, 4, D, dtype=torch.double)
    packed = pack_padded_sequence(x, lengths)
    states = random_states(cell, 4, grad=False)
    for reverse in (False, True):
        with strict():
            data, last = answer(Call(cell, packed.data, states, reverse=reverse, batch_sizes=packed.batch_sizes))
        y, ends = scan(cell, x, states, lengths, reverse)
        same(data, pack_padded_sequence(y, lengths).data)
        for a, b in zip(last, ends, strict=True):
            same(a, b)


def test_packed_rows_of_a_step_that_runs_on_scan() -> None:
    cell = IfTensor()
    lengths = torch.tensor([4, 2])
    packed = pack_padded_sequence(torch.randn(4, 2, 5, dtype=torch.double), lengths)
    for reverse in (False, True):
        data, last = answer(Call(cell, packed.data, reverse=reverse, batch_sizes=packed.batch_sizes))
        padded, _ = torch.nn.utils.rnn.pad_packed_sequence(packed)
        y, ends = scan(cell, padded, None, lengths, reverse)
        same(data, pack_padded_sequence(y, lengths).data)
        same(last[0], ends[0])


@needs_machine
@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_every_layer_runs_on_the_machine(example: LayerExample) -> None:
    told = explain(example.make(D, False), torch.randn(4, 2, D))
    assert told.native, told
    assert set(told.executors) == {"native machine"}


@needs_machine
def test_explain_tells_what_the_passes_did() -> None:
    told = str(explain(recurra.LSTM(3, 4), torch.randn(5, 2, 3)))
    assert told.startswith("LSTM (input 3; states h 4, c 4), T = 5, B = 2: ")
    for words in (
        "before the loop (hoisted): 1 mm, 2 add",
        "in the loop:               1 mm, 1 add, 3 sigmoid, 2 tanh, 2 mul, 1 fma",
        "after the loop (sunk):     nothing",
        "saved for the backward:    16 numbers a step and row",
        "multiply-adds of products: 48 before, 64 in",
        "fused:                     1 multiply-add",
    ):
        assert words in told
    assert "linear, unit by unit" in str(explain(next(m for m in STEPS if m.__name__ == "Minimal")(), _x()))


def _x(B: int = 2) -> Tensor:
    return torch.randn(3, B, 5, dtype=torch.double)


def test_explain_asks_the_door_and_draws_no_random_numbers() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    layer = recurra.LSTM(3, 4, 2, dropout=0.5)
    torch.manual_seed(1)
    told = explain(layer, torch.zeros(3, 1, 3))
    assert torch.equal(torch.rand(3), expected)
    assert len(told.visits) == 2
    assert explain(torch.nn.Linear(3, 3), torch.zeros(2, 3)).visits == () and "None of Recurra's layers" in str(
        explain(torch.nn.Linear(3, 3), torch.zeros(2, 3))
    )


def test_explain_names_the_line_that_keeps_a_step_on_scan() -> None:
    told = str(explain(Dropping(), _x()))
    assert "scan" in told and "random" in told
    assert "steps.py, line" in told and "F.dropout(super().step(x, h), 0.5)" in told


def test_strict_mode_nests_and_ends() -> None:
    cell = Dropping()
    with strict():
        with (
            strict(),
            pytest.raises(StrictError, match=r"Dropping would run on scan.* random numbers .*See steps.py, line \d+"),
        ):
            unroll(cell, _x())
        with pytest.raises(StrictError):
            unroll(cell, _x())
    unroll(cell, _x())


def test_strict_mode_is_of_one_thread() -> None:
    seen = []
    with strict():
        thread = threading.Thread(target=lambda: seen.append(unroll(Dropping(), _x())))
        thread.start()
        thread.join()
    assert seen


def test_strict_mode_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECURRA_STRICT", "1")
    with pytest.raises(StrictError):
        unroll(Dropping(), _x())
    monkeypatch.setenv("RECURRA_STRICT", "0")
    unroll(Dropping(), _x())


def test_strict_mode_speaks_of_tensors_that_do_not_fit() -> None:
    with strict(), pytest.raises(InputError, match=r"x has the dtype torch.float32, but the weights of Step are .*64"):
        unroll(Step(), _x().float())
    with strict(), pytest.raises(StrictError, match="autocast is on"), torch.autocast("cpu", torch.float16):
        unroll(cells.LSTM(3, 4), torch.randn(2, 1, 3))


def test_without_the_native_part_everything_runs_on_scan() -> None:
    code = (
        "import sys; sys.modules['recurra._native'] = None\n"
        "import torch, recurra\n"
        "told = recurra.explain(recurra.LSTM(3, 4), torch.randn(3, 2, 3))\n"
        "print(told.executors, 'no native part' in str(told))\n"
        "with recurra.strict():\n"
        "    try: recurra.LSTM(3, 4)(torch.randn(3, 2, 3))\n"
        "    except recurra.StrictError as e: print('no native part' in str(e))\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "RECURRA_STRICT"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.split("\n")[:2] == ["('scan',) True", "True"]
    assert out.stderr.count("no native part") == 1  # said once, for all layers


def test_a_native_part_that_cannot_be_loaded_says_why() -> None:
    code = (
        "import sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'recurra._native': raise ImportError('undefined symbol: omp_get_num_threads')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import torch, recurra\n"
        "print(recurra.explain(recurra.LSTM(3, 4), torch.randn(3, 2, 3)).visits[0].reason)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == (
        "recurra._native cannot be loaded: undefined symbol: omp_get_num_threads; install Recurra again\n"
    )


BAD = [
    (lambda x, s, n: (x[..., :2], s, None), r"takes \(T, B, 3\)"),
    (lambda x, s, n: (x[0], s, None), r"takes \(T, B, 3\)"),
    (lambda x, s, n: (x, s[:1], None), "h, c"),
    (lambda x, s, n: (x, (s[0][:1], s[1]), None), r"\(2, 4\)"),
    (lambda x, s, n: (x, s, torch.tensor([5, 6])), r"lengths\[1\] is 6, but x has 5 steps"),
    (lambda x, s, n: (x, s, torch.tensor([-1, 5])), r"lengths\[0\] is -1"),
    (lambda x, s, n: (x, s, torch.tensor([5])), "2 sequences"),
    (lambda x, s, n: (x, s, torch.tensor([1.0, 2.0])), "whole numbers"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
@pytest.mark.parametrize("run", [unroll, scan])
def test_bad_arguments_are_refused_as_by_scan(change, message: str, run) -> None:
    cell = cells.LSTM(3, 4).double()
    x, states = torch.randn(5, 2, 3, dtype=torch.double), random_states(cell, 2)
    x, states, lengths = change(x, states, None)
    with pytest.raises(InputError, match=message):
        run(cell, x, states, lengths)


class Shrinking(Gated):
    def step(self, x, h, c):
        h, c = super().step(x, h, c)
        c = c[:, :3]
        return h, c


class Silent(Gated):
    def step(self, x, h, c):
        return super().step(x, h, c)[0]


@pytest.mark.parametrize("make", [Shrinking, Silent])
@pytest.mark.parametrize("mode", [False, True])
def test_a_step_that_breaks_the_contract_is_told_in_scans_words(make: type[Step], mode: bool) -> None:
    cell = make()
    with pytest.raises(recurra.CellError) as expected:
        scan(cell, _x())
    with pytest.raises(recurra.CellError) as told:
        if mode:
            with strict():
                unroll(cell, _x())
        else:
            unroll(cell, _x())
    assert str(told.value) == str(expected.value)


def test_an_error_inside_the_step_is_the_users_own() -> None:
    class Failing(Step):
        def step(self, x, h):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        unroll(Failing(), _x())


@needs_machine
def test_the_bits_of_inference_are_those_of_training() -> None:
    cell = cells.GRU(D, H)
    x = torch.randn(5, 3, D)
    y, last = unroll(cell, x)
    with torch.no_grad():
        z, end = unroll(cell, x)
    with torch.inference_mode():
        w, _ = unroll(cell, x)
    assert torch.equal(y, z) and torch.equal(last[0], end[0]) and torch.equal(z, w)
    assert y.requires_grad and not z.requires_grad


def test_what_goes_in_is_not_written() -> None:
    for make in STEPS:
        cell = make()
        x, states = _x(), random_states(cell, 2, grad=False)
        before = [t.clone() for t in (x, *states, *cell.parameters())]
        y, last = unroll(cell, x, states)
        for t in (y, *last):
            t.detach().zero_()
        assert all(torch.equal(a, b) for a, b in zip(before, (x, *states, *cell.parameters()), strict=True)), make


def test_states_that_pass_through_are_copies() -> None:
    cell = PassingThrough()
    x, states = _x(), random_states(cell, 2, grad=False)
    with torch.no_grad():
        _, last = unroll(cell, x, states)
    assert torch.equal(last[2], states[2]) and torch.equal(last[1], x[-1])
    assert last[2].data_ptr() != states[2].data_ptr() and last[1].data_ptr() != x[-1].data_ptr()


def test_nothing_of_a_call_stays_alive() -> None:
    cell = cells.LSTM(D, H).double()
    x = torch.randn(5, 2, D, dtype=torch.double, requires_grad=True)
    y, last = unroll(cell, x)
    (y.sum() + last[1].sum()).backward()
    alive = [weakref.ref(t) for t in (x, y, *last)]
    del x, y, last
    gc.collect()
    assert [t() for t in alive] == [None] * 4


def guarded(work, wrong: list) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 (told in the test's own thread)
        wrong.append(error)


def test_many_threads_call_one_cell() -> None:
    cell = cells.LSTM(D, H).double()
    x = torch.randn(7, 3, D, dtype=torch.double)
    expected, wrong = scan(cell, x)[0], []

    def work() -> None:
        for _ in range(20):
            y, _ = unroll(cell, x)
            y.sum().backward()
            if not torch.allclose(y, expected):
                wrong.append(y)

    threads = [threading.Thread(target=guarded, args=(work, wrong)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_description_has_equation_program_and_numbers() -> None:
    told = describe(cells.GRU(5, 6))
    assert told.name == "GRU" and told.parameters == 3 * 6 * (5 + 6 + 2) and told.states == {"h": 6}
    assert told.equation and told.program.startswith("program GRU\n") and "loop:\n" in told.program
    assert "in the loop:" in str(told) and told.reason == ""
    lost = describe(Dropping())
    assert not lost.program and "It runs on scan: the step draws random numbers" in str(lost)


def test_compiled_code_runs_the_cell() -> None:
    cell = cells.Elman(D, H)
    x = torch.randn(4, 2, D)
    compiled = torch.compile(lambda v: unroll(cell, v)[0], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), scan(cell, x)[0])


def test_whoever_records_operations_sees_them() -> None:
    cell = cells.Elman(D, H).requires_grad_(False)
    x = torch.randn(4, 2, D)
    told = []
    traced = torch.jit.trace(lambda v: told.append(explain(cell, v)) or unroll(cell, v)[0], (x,), check_trace=False)
    assert "recording" in str(told[0])
    other = torch.randn(4, 2, D)
    torch.testing.assert_close(traced(other), scan(cell, other)[0])
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        unroll(cell, x)
    assert counter.get_total_flops() == 4 * 2 * 2 * (D * H + H * H)


def test_a_model_without_our_layers_is_told_so() -> None:
    told = str(explain(torch.nn.LSTM(4, 5), torch.randn(3, 2, 4)))
    assert "None of Recurra's layers ran a cell" in told and "recurra.LSTM" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(2, 3, 4, dtype=torch.long),),
            r"x has the dtype torch.int64, but the weights of GRU are torch.fl",
        ),
        ((torch.zeros(2, 3, 4).double(),), r"x has .*float64, .* are torch.float32. .*x.to\(torch.float32\)"),
        (
            (torch.zeros(2, 3, 4), torch.zeros(3, 5).half()),
            r"state h has the dtype torch.float16, .* are torch.float32",
        ),
        ((torch.zeros(2, 3, 4, device="meta"),), r"x is on meta, .* of GRU are on cpu. Move .*: x.to\('cpu'\)"),
        ((torch.zeros(2, 3, 4), [[0.0]]), r"state of GRU is 1 value, but its states are h: give one tensor for each"),
        (([[1.0]],), r"x is a list, but GRU takes a tensor"),
        ((None,), r"x is a NoneType, but GRU takes a tensor"),
        ((torch.zeros(2, 3, 4).numpy(),), r"x is an ndarray, but GRU takes a tensor. Pass torch.as_tensor\(x\)"),
        ((torch.zeros(2, 3, 4), None, "abc"), r"^lengths is a str, but counts steps\. Pass one whole number for each"),
        (
            (torch.zeros(2, 3, 4), None, [None] * 3),
            r"^lengths\[0\] is a NoneType, but counts steps\. Pass one whole num",
        ),
        (
            (torch.zeros(2, 3, 4), None, [1, 2, "a"]),
            r"^lengths\[2\] is a str, but counts steps\. Pass one whole number",
        ),
        (
            (torch.zeros(2, 3, 4), None, [[1], [2, 3]]),
            r"^lengths\[0\] is a list, but counts steps\. Pass one whole num",
        ),
        (
            (torch.zeros(2, 3, 4), None, [1, 2**70, 1]),
            rf"^lengths\[1\] is {2**70}, but x has 2 steps\. Give lengths from",
        ),
        (
            (torch.zeros(2, 3, 4), None, [1, 1, -(2**70)]),
            rf"^lengths\[2\] is -{2**70}, but x has 2 steps\. Give lengths",
        ),
    ],
)
def test_arguments_of_another_kind(arguments: tuple[Any, ...], message: str) -> None:
    layer = recurra.Recurrent(recurra.cells.GRU(4, 5))
    for call in (layer, functools.partial(recurra.explain, layer), functools.partial(recurra.unroll, layer.cell)):
        with pytest.raises(recurra.InputError, match=message) as told:
            call(*arguments)
        assert "".join(traceback.format_exception(told.value)).count("Traceback") == 1  # no other error before it


def test_explain_takes_a_module() -> None:
    with pytest.raises(recurra.InputError) as told:
        recurra.explain(3, torch.zeros(2, 3, 4))  # type: ignore[arg-type]
    assert str(told.value) == "explain takes a torch.nn.Module and its x, and got an int. Pass the layer first."


def test_weights_of_two_dtypes_are_told_by_name() -> None:
    for layer, cell in (((drop_in := recurra.GRU(4, 5)), None), (recurra.Recurrent(cells.GRU(4, 5)), "cell")):
        home = layer.cell if cell else drop_in
        name = "weight_hh" if cell else "weight_hh_l0"
        setattr(home, name, torch.nn.Parameter(getattr(home, name).detach().double()))
        with pytest.raises(recurra.CellError) as told:
            layer(torch.zeros(2, 3, 4))
        assert str(told.value) == (
            "weight_hh of GRU has the dtype torch.float64, but its weight_ih is torch.float32. "
            "Convert one of them, or all: .to(torch.float32)."
        )
        assert "".join(traceback.format_exception(told.value)).count("Traceback") == 1


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh"])
def test_a_weight_without_numbers_is_named(name: str) -> None:
    """PyTorch's own functions give whatever lies in memory."""
    cell, x, layer = cells.GRU(D, 4), torch.zeros(3, 2, D), recurra.GRU(D, 4)
    setattr(cell, name, torch.nn.Parameter(getattr(cell, name).detach().to("meta")))
    told = rf"{name} of GRU is on meta, .* and \w+ is on cpu. Load the numbers of all weights"
    for call in (recurra.Recurrent(cell), functools.partial(scan, cell), functools.partial(unroll, cell)):
        with pytest.raises(InputError, match=told):
            call(x)
    if name == "weight_hh":  # torch.nn looks at the other itself
        layer.weight_hh_l0 = cell.weight_hh
        with pytest.raises(InputError, match=told):
            layer(x)


@pytest.mark.parametrize(
    "module",
    [
        recurra.LSTM(D, 4),
        recurra.Recurrent(cells.GRU(D, 4)),
        recurra.Bidirectional(recurra.GRU(D, 4)),
        cells.LSTM(D, 4),
    ],
    ids=lambda m: type(m).__name__,
)
def test_torchscript_is_refused_and_what_records_works(module: torch.nn.Module) -> None:
    told = (
        f"torch.jit.script cannot compile {type(module).__name__}, which is Python that TorchScript does not know. "
        "Use torch.export.export, which records its operations."
    )
    for scripted in (module, torch.nn.Sequential(module)):
        with pytest.raises(InputError) as caught:
            torch.jit.script(scripted)
        assert str(caught.value) == told
    if isinstance(module, Layer):
        x = torch.randn(3, 2, D)
        expected = module(x)[0]
        torch.testing.assert_close(torch.export.export(module, (x,)).module()(x)[0], expected)


def test_what_torch_jit_trace_cannot_record_is_told_and_exported() -> None:
    module, x = recurra.Bidirectional(recurra.GRU(D, 4)), torch.randn(3, 2, D)
    with pytest.raises(InputError) as caught:
        torch.jit.trace(module, (x,), check_trace=False)
    assert str(caught.value) == (
        "torch.jit.trace cannot record GRU here, where other weights stand in for its own. "
        "Use torch.export.export, which can."
    )
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x)[0], module(x)[0])

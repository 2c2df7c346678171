"""Tracing: every idiom of a step becomes the right program; what cannot be one is refused, with the user's line."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from steps import (
    REFUSED,
    STEPS,
    ConstantOutput,
    ConstantState,
    Data,
    Gated,
    GatedMethods,
    GatedOneByOne,
    HookOnGradient,
    InPlace,
    OneRow,
    Refused,
    Step,
    WeightAsState,
    random_states,
)

import recurra
from recurra.passes import compile_step
from recurra.program.recorder import Untraceable
from recurra.program.text import plan_text, step_text
from recurra.program.trace import outside_transforms, rows_of, trace
from recurra.scan import scan
from recurra.unroll import explain, unroll

LINES = Path(__file__).with_name("steps.py").read_text().splitlines()


def traced(cell: recurra.Cell):
    with outside_transforms():
        return trace(cell, {**dict(cell.named_parameters()), **dict(cell.named_buffers())})


@pytest.mark.parametrize("make", STEPS)
def test_a_traced_step_is_the_step(make: type[Step]) -> None:
    cell = make()
    x, states = torch.randn(4, 3, cell.input_size, dtype=torch.double, requires_grad=True), random_states(cell, 3)
    expected = scan(cell, x, states)
    assert explain(cell, x, states).executors[0] != "scan", explain(cell, x, states)
    given = unroll(cell, x, states)
    for a, b in zip((given[0], *given[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_a_step_that_cannot_be_a_program_runs_on_scan_and_the_line_is_named(refused: Refused) -> None:
    cell = refused.make()
    x = torch.randn(2, 3, cell.input_size, dtype=torch.double)
    told = explain(cell, x)
    assert told.executors == ("scan",)
    visit = told.visits[0]
    assert refused.word in visit.reason
    marked = [line for line in class_lines(refused.make) if "# here" in line]
    if marked:
        assert marked[0].strip() in visit.line and "steps.py, line " in visit.line
    with pytest.raises(recurra.StrictError, match=refused.make.__name__), recurra.strict():
        unroll(cell, x)


def class_lines(make: type) -> list[str]:
    start = next(k for k, line in enumerate(LINES) if line.startswith(f"class {make.__name__}("))
    end = next(k for k in range(start + 1, len(LINES)) if LINES[k] and not LINES[k].startswith(" "))
    return LINES[start:end]


def test_a_refused_step_still_means_what_it_says() -> None:
    cell = REFUSED[0].make()
    x, states = torch.randn(3, 2, cell.input_size, dtype=torch.double), random_states(cell, 2)
    torch.testing.assert_close(unroll(cell, x, states)[0], scan(cell, x, states)[0])


@pytest.mark.parametrize("make", [HookOnGradient, Data, ConstantOutput, ConstantState, WeightAsState, OneRow])
@pytest.mark.parametrize("B", [1, 3])
def test_values_and_gradients_that_no_program_gives_are_those_of_scan(make: type[Step], B: int) -> None:
    cell = make()
    x, states = torch.randn(4, B, cell.input_size, dtype=torch.double, requires_grad=True), random_states(cell, B)
    results = []
    for run in (unroll, scan):
        y, last = run(cell, x, states)
        loss = y.sin().sum() + sum((s.cos()).sum() for s in last) + 0 * x.sum()
        results.append([y, *last, *torch.autograd.grad(loss, [x, *states, *cell.parameters()], allow_unused=True)])
    for given, expected in zip(*results, strict=True):
        assert (given is None) == (expected is None)
        assert given is None or torch.equal(given, expected)


def test_values_keep_the_names_of_the_step() -> None:
    text = step_text(traced(Gated())[0])
    for name in ("i:6 = slice", "f:6 = slice", "g:6 = slice", "o:6 = slice", "c.1:6 = add"):
        assert name in text
    assert "steps.py, line" in text and "c = torch.sigmoid(f) * c" in text


@pytest.mark.parametrize("make", [GatedMethods, GatedOneByOne])
def test_other_words_for_an_lstm_give_the_same_operations(make: type[Step]) -> None:
    def shape(cell: Step) -> list[list[tuple[str, int]]]:
        plan, backward = compile_step(cell)
        parts = (plan.body, plan.after, backward.after, backward.body, backward.before)
        return [sorted((v.op, v.width) for v in part) for part in parts]

    assert shape(make()) == shape(Gated())


def test_tracing_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    cell = Gated()
    torch.manual_seed(3)
    traced(cell)
    assert torch.equal(torch.randn(4), expected)


def test_tracing_leaves_weights_and_modes_alone() -> None:
    cell = Gated().eval()
    before = dict(cell.named_parameters())
    with torch.no_grad():
        traced(cell)
        assert not torch.is_grad_enabled()
    assert all(p is before[k] for k, p in cell.named_parameters())
    assert all(p.grad is None and p.requires_grad for p in cell.parameters())


def test_a_profiler_stays_where_it_was() -> None:
    calls = []
    sys.setprofile(lambda *a: calls.append(1))
    try:
        traced(Gated())
        assert sys.getprofile() is not None
    finally:
        sys.setprofile(None)
    assert calls


def test_tracing_works_under_a_profiler_of_pythons_own() -> None:
    import cProfile

    with cProfile.Profile():
        traced(Gated())


def test_tracing_inside_a_transform_and_in_inference_mode() -> None:
    cell = Step()
    x = torch.randn(2, 3, 1, cell.input_size, dtype=torch.double)
    torch.testing.assert_close(torch.vmap(lambda v: unroll(cell, v)[0], 1, 1)(x)[:, :, 0], unroll(cell, x[:, :, 0])[0])
    cell = Step()
    with torch.inference_mode():
        unroll(cell, x[:, :, 0])
    assert unroll(cell, x[:, :, 0])[0].requires_grad


def test_a_new_cell_is_compiled_within_a_tenth_of_a_second() -> None:
    compile_step(Gated())  # the first of a process loads what tracing needs
    for make in STEPS:
        if make is not InPlace:  # in-place operations make PyTorch import sympy, once
            cell = make()
            times = []
            while len(times) < 10 and min(times, default=1) >= 0.1:  # a busy machine is slower by a factor of three
                times.append(_seconds(cell))
            assert min(times) < 0.1, f"{make.__name__} took {min(times):.3f} s"


def _seconds(cell: Step) -> float:
    begin = time.process_time()  # others may be busy on this machine
    compile_step(cell)
    return time.process_time() - begin


def test_the_first_trace_of_a_process_is_quick_and_imports_no_compiler() -> None:
    code = (
        "import sys, time, torch, recurra, recurra.unroll\n"
        "c = recurra.cells.LSTM(4, 5); x = torch.randn(2, 3, 4)\n"
        "t = time.perf_counter(); recurra.unroll(c, x); t = time.perf_counter() - t\n"
        "print(t < 1, [m for m in ('sympy', 'torch._dynamo', 'torch._inductor') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[0] == "True []", out.stdout + out.stderr


def test_rows_have_the_dtype_of_the_first_floating_weight() -> None:
    assert rows_of({"n": torch.zeros(1, dtype=torch.long), "w": torch.zeros(1, dtype=torch.double)})[0] == torch.double


def test_a_reason_can_be_read_alone() -> None:
    refusal = Untraceable("the step draws random numbers", "a.py, line 3: torch.rand(1)")
    assert str(refusal) == "the step draws random numbers (a.py, line 3: torch.rand(1))"


def test_show_prints_the_program_after_a_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECURRA_SHOW", "hoist")
    plan, _ = compile_step(Gated())
    shown = capsys.readouterr().err
    assert shown.startswith("# after hoist\nprogram Gated\n") and shown.count("# after") == 1
    monkeypatch.setenv("RECURRA_SHOW", "all")
    compile_step(Gated())
    shown = capsys.readouterr().err
    for name in recurra.passes.PASSES:
        assert f"# after {name}\n" in shown
    assert plan_text(plan) in shown


def test_a_trial_step_leaves_no_trace_in_the_cell() -> None:
    for refused in REFUSED:
        cell = refused.make()
        with recurra.strict(), pytest.raises(recurra.StrictError):
            unroll(cell, torch.randn(2, 3, cell.input_size, dtype=torch.double))
        assert getattr(cell, "n", 0) == 0 and getattr(cell, "seen", []) == []
        assert all(torch.equal(b, torch.ones_like(b)) for k, b in cell.named_buffers() if k == "k")


def test_show_refuses_a_pass_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECURRA_SHOW", "hoisting")
    with pytest.raises(recurra.InputError, match="RECURRA_SHOW is 'hoisting', but the passes are trace"):
        compile_step(Gated())

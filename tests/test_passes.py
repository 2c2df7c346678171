"""The passes: what leaves the loop, what is merged, fused and saved; and that each keeps what the step means."""

from dataclasses import replace

import pytest
import torch
from steps import (
    STEPS,
    Concatenating,
    Einsum,
    Exponential,
    Gated,
    GatedOneByOne,
    LeakyRows,
    Minimal,
    Normed,
    NormedByHand,
    OneByOne,
    OutputBefore,
    OutputFedBack,
    PassingThrough,
    Projected,
    ResetAfter,
    ResetBefore,
    Step,
    Tied,
    random_states,
)
from torch import Tensor, nn

from examples import CELLS, CellExample
from recurra import Cell, ProgramError, cells
from recurra.machine.plain import PlainExecutor, run
from recurra.passes import backward_of, compile_step, own_weights, plan_of
from recurra.passes.pipeline import REWRITES
from recurra.passes.save import FUNCTIONS
from recurra.program.graph import ordered
from recurra.program.layout import Layout
from recurra.program.ops import OPS
from recurra.program.plan import Backward, Plan
from recurra.program.statics import Evaluator
from recurra.program.trace import outside_transforms, trace
from recurra.program.values import Value
from recurra.program.verify import verify_backward, verify_plan, verify_step
from recurra.program.views import is_view
from recurra.scan import scan

H = 6
LAYOUTS = [None, (5, 3, 3, 1), (5, 5, 4, 2, 2)]


def traced(cell: Cell):
    with outside_transforms():
        return trace(cell, own_weights(cell))


def products(part: tuple[Value, ...]) -> list[Value]:
    return [v for v in part if v.op in ("mm", "mmt")]


def count(part: tuple[Value, ...]) -> int:
    return sum(v.op not in ("slice", "broadcast") for v in part)


def statics_of(plan: Plan, cell: Cell) -> list[Tensor]:
    return Evaluator(plan.statics)(own_weights(cell), torch.float64, torch.device("cpu"))


@pytest.mark.parametrize("make", STEPS)
def test_every_rewrite_keeps_the_meaning(make: type[Step]) -> None:
    cell = make()
    step, sample = traced(cell)
    layout = Layout(1, len(sample.inputs[0]))
    for k in range(len(REWRITES)):  # the last one is not followed by another rewrite
        if k:
            step = verify_step(REWRITES[k - 1](step))
        plan = plan_of(step)
        y, nexts = run(plan, layout, sample.inputs, statics_of(plan, cell), sample.states)
        for got, expected in zip((y, *nexts), (sample.output, *sample.nexts), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("make", STEPS)
@pytest.mark.parametrize("sizes", LAYOUTS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_plan_and_backward_are_those_of_scan(make: type[Step], sizes: tuple[int, ...] | None, reverse: bool) -> None:
    cell = make()
    T, B = (4, 5) if sizes is None else (len(sizes), sizes[0])
    layout = Layout(T, B, sizes, reverse)
    lengths = None if sizes is None else torch.tensor([sum(n > r for n in sizes) for r in range(B)])
    mask = torch.arange(T)[:, None] < (torch.full((B,), T) if lengths is None else lengths)
    x = torch.randn(T, B, cell.input_size, dtype=torch.double, requires_grad=True)
    states = random_states(cell, B)
    y, last = scan(cell, x, states, lengths, reverse)
    d = [torch.randn_like(t) for t in (y, *last)]
    given = [x, *states, *cell.parameters()]
    moving = [(t, g) for t, g in zip((y, *last), d, strict=True) if t.requires_grad]
    expected = torch.autograd.grad([t for t, _ in moving], given, [g for _, g in moving], allow_unused=True)

    plan, backward = compile_step(cell)
    statics = statics_of(plan, cell)
    plain = [t.detach() for t in statics]
    executor = PlainExecutor(plan, backward)
    inputs = [t.detach()[mask] for t in (x, *cell.sides(x))]
    first = [s.detach() for s in states]
    output, ends, saved = executor.forward(layout, inputs, plain, first, True)
    for got, e in zip((output, *ends), (y[mask], *last), strict=True):
        torch.testing.assert_close(got, e.detach(), atol=1e-12, rtol=1e-12)
    need = [True] * len(statics)
    needs = [True] * len(inputs)
    d_inputs, d_statics, d_states = executor.backward(
        layout, saved, inputs, plain, first, output, d[0][mask], d[1:], needs, need
    )
    live = [(s, g) for s, g in zip(statics, d_statics, strict=True) if s.requires_grad]
    d_weights = torch.autograd.grad(
        [s for s, _ in live], list(cell.parameters()), [g for _, g in live], allow_unused=True
    )
    padded = torch.zeros_like(x)
    padded[mask] = 0 if d_inputs[0] is None else d_inputs[0]
    for t, got, e in zip(given, (padded, *d_states, *d_weights), expected, strict=True):
        zero = torch.zeros_like(t)
        torch.testing.assert_close(zero if got is None else got, zero if e is None else e, atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("make", [Gated, GatedOneByOne, ResetAfter, Concatenating, Einsum, Normed, Exponential])
def test_one_product_before_the_loop_and_one_in_it(make: type[Step]) -> None:
    plan, backward = compile_step(make())
    assert len(products(plan.before)) == len(products(plan.body)) == 1
    assert len(products(backward.body)) == len(products(backward.before)) == 1
    assert not plan.after


def test_gates_are_as_wide_as_the_state_and_the_sum_of_the_product_is_one() -> None:
    plan, _ = compile_step(GatedOneByOne())
    pointwise = [v for v in plan.body if v.op not in ("mm", "slice")]
    assert [v.width for v in pointwise if v.op == "add" and v.width > H] == [4 * H]
    assert all(v.width == H for v in pointwise if v.op != "add")
    assert [s.width for s in plan.streams] == [4 * H]


def test_hoisted_values_stay_as_wide_as_they_are() -> None:
    for make in (Normed, Gated, ResetBefore):
        plan, _ = compile_step(make())
        assert len(plan.streams) == 1 and plan.streams[0].width in (3 * H, 4 * H)
        assert not [s for s in plan.statics if s.expr is not None and "slice" in repr(s.expr)]
        read = {a for v in plan.before for a in v.args}
        assert not [v for v in plan.before if is_view(v) and v not in read]


@pytest.mark.parametrize(("make", "variances", "waits"), [(Normed, 3, 2), (NormedByHand, 1, 1)])
def test_mean_and_variance_of_a_row_wait_for_nothing_but_the_row(make: type[Step], variances: int, waits: int) -> None:
    plan, backward = compile_step(make())
    values = [*plan.before, *plan.body]
    spreads = [v for v in values if v.op == "rowdevsq"]
    assert len(spreads) == variances
    assert {v.args[0] for v in values if v.op == "rowsum"} == {v.args[0] for v in spreads}
    depth: dict[Value, int] = {}  # sums of the reverse loop that wait for each other
    for v in backward.body:
        depth[v] = max((depth.get(a, 0) for a in v.args), default=0) + (v.op == "rowsum")
    assert max(depth.values()) == waits
    assert not [v for v in backward.body if v.op == "neg" and v.width > 1], "signs are those of sums, not of rows"


def test_what_is_almost_a_variance_is_none() -> None:
    class Almost(Step):
        def step(self, x, h):
            a = self.W(x) + self.U(h)
            d = a - 0.1 * a.sum(-1, keepdim=True)
            return torch.tanh(a + 0.1 * (d * d).sum(-1, keepdim=True))

    plan, _ = compile_step(Almost())
    assert not [v for v in plan.body if v.op == "rowdevsq"]


def test_what_is_computed_of_a_wide_value_stays_wide() -> None:
    """Four thin additions would each be an operation; one wide addition goes into a multiply-add."""
    plan, _ = compile_step(Normed())
    assert [v.width for v in plan.body if v.op == "fma"] == [1, 4 * H, H, 1, H]
    assert not [v for v in plan.body if v.op == "add"]


def test_a_bias_of_the_recurrent_product_leaves_the_loop() -> None:
    for make in (Step, GatedOneByOne, ResetBefore):
        plan, _ = compile_step(make())
        assert not [a for v in plan.body for a in v.args if a.op == "static" and len(a.shape) == 1]
    for cell in (cells.LSTM(3, 4), cells.Elman(3, 4)):
        assert not [a for v in compile_step(cell)[0].body for a in v.args if a.op == "static" and len(a.shape) == 1]


def test_an_output_that_nothing_recurs_on_leaves_the_loop() -> None:
    plan, backward = compile_step(cells.ElmanOutput(3, 4, 2))
    assert [(v.op, v.width) for v in plan.after] == [("mm", 2), ("add", 2), ("sigmoid", 2)]
    assert len(products(backward.after)) == 1, "its gradient is computed ahead of the reverse loop"
    plan, _ = compile_step(OutputBefore())
    assert products(plan.after) and len(products(plan.body)) == 1


def test_the_reverse_loop_of_an_lstm_has_fourteen_pointwise_operations() -> None:
    _, backward = compile_step(cells.LSTM(3, 4))
    assert sum(OPS[v.op].kind == "pointwise" for v in backward.body) == 14  # docs/design.md


def test_weight_gradients_leave_the_loop() -> None:
    for example in CELLS:
        plan, backward = compile_step(example.make(3, 4))
        recurrent = {s for v in products(plan.body) for s in v.args if s.op == "static"}
        assert {s for s, _, _ in backward.matrices} >= recurrent
        sums = [v for v in backward.body if v.op == "rowsum" and v.args[0].width > 8]
        needed = ordered([d for d in backward.d_states if d is not None])
        assert not set(sums) - set(needed), "only what the state's gradient needs is summed in the loop"


SAVED = {
    Step: 0, Gated: 4, GatedOneByOne: 4, ResetAfter: 4, ResetBefore: 3, Minimal: 2, Exponential: 5, LeakyRows: 0,
    OneByOne: 0,
    Projected: 4, Einsum: 0, Tied: 1,
}  # fmt: skip


@pytest.mark.parametrize(("make", "states"), SAVED.items(), ids=lambda p: getattr(p, "__name__", p))
def test_what_is_saved_is_no_more_than_the_rule_says(make: type[Step], states: int) -> None:
    _, backward = compile_step(make())
    assert sum(v.width for v in backward.saved) == states * H


LINEAR = {LeakyRows: "diag", Minimal: "diag", Step: "no", PassingThrough: "no", OutputFedBack: "no", Gated: "no"}


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_no_function_comes_back_into_the_reverse_loop(example: CellExample) -> None:
    plan, backward = compile_step(example.make(3, 4))
    assert [v for v in backward.body if v in plan.before and v.op in FUNCTIONS] == []


@pytest.mark.parametrize(("make", "kind"), LINEAR.items(), ids=lambda p: getattr(p, "__name__", p))
def test_linear_recurrences_are_seen(make: type[Step], kind: str) -> None:
    assert compile_step(make())[0].linear == kind


class LinearDense(Step):
    def step(self, x, h):
        return self.W(x) + self.U(h)


class Permuting(Step):
    def step(self, x, h):
        return self.W(x) + h.roll(1, -1)


class Forgetful(Step):
    def step(self, x, h):
        return torch.tanh(self.W(x))


@pytest.mark.parametrize(("make", "kind"), [(LinearDense, "dense"), (Permuting, "dense"), (Forgetful, "none")])
def test_linear_recurrences_that_mix_units_are_dense(make: type[Step], kind: str) -> None:
    plan, _ = compile_step(make())
    assert plan.linear == kind
    if kind == "none":
        assert not plan.body


def test_multiply_adds_are_fused_where_no_product_of_matrices_waits() -> None:
    plan, _ = compile_step(Gated())
    assert [v.op for v in plan.body].count("fma") == 1

    class Waiting(Step):
        def step(self, x, h):
            return torch.tanh(h * torch.sigmoid(h) + h @ self.U.weight.t())

    plan, _ = compile_step(Waiting())
    assert sorted(v.op for v in plan.body) == ["add", "mm", "mul", "sigmoid", "tanh"]


def test_a_tied_weight_gathers_both_gradients() -> None:
    plan, backward = compile_step(Tied())
    (recurrent,) = {s for v in products(plan.body) for s in v.args if s.op == "static"}
    assert [s for s, _, _ in backward.matrices].count(recurrent) == 2


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_every_operand_of_a_part_is_at_hand(example: CellExample) -> None:
    plan, backward = compile_step(example.make(3, 4))
    assert verify_plan(plan) is plan
    assert verify_backward(plan, backward) is backward


# ---- the checks themselves


def lstm() -> tuple[Plan, Backward]:
    return compile_step(cells.LSTM(3, 4))


def test_verification_finds_what_is_wrong_with_a_plan() -> None:
    plan, _ = lstm()
    wrong = [
        replace(plan, body=plan.body[1:]),
        replace(plan, body=(*plan.body, plan.body[-1])),
        replace(plan, body=plan.body[::-1]),
        replace(plan, statics=plan.statics[1:]),
        replace(plan, nexts=plan.nexts[:1]),
        replace(plan, nexts=(plan.inputs["x"], plan.nexts[1])),
        replace(plan, output=Value("tanh", (plan.output,), (), 4)),
        replace(plan, body=(*plan.body, Value("cumsum", (plan.output,), (), 4))),
        replace(plan, body=(*plan.body, Value("tanh", (plan.output,), (), 5))),
        replace(plan, body=(*plan.body, Value("tanh", (plan.output, plan.output), (), 4))),
        replace(plan, body=(*plan.body, Value("slice", (plan.output,), (2, 7), 5))),
        replace(plan, body=(*plan.body, Value("mm", (plan.output, plan.output), (), 4))),
        replace(plan, before=(plan.body[-1], *plan.before)),
    ]
    for p in wrong:
        with pytest.raises(ProgramError):
            verify_plan(p)


def test_verification_finds_what_is_wrong_with_a_backward() -> None:
    plan, b = lstm()
    static, left, right = b.matrices[0]
    wrong = [
        replace(b, saved=b.saved[1:]),
        replace(b, saved=(*b.saved, Value("tanh", (plan.output,), (), 4))),
        replace(b, body=b.body[1:]),
        replace(b, matrices=((static, right, left),)),
        replace(b, vectors=((static, left),)),
        replace(b, d_states=(left, *b.d_states[1:])),
        replace(b, exported=()),
        replace(b, d_nexts=b.d_nexts[:1], d_states=b.d_states[:1]),
        replace(b, d_nexts=(*b.d_nexts, b.d_nexts[0])),
    ]
    for w in wrong:
        with pytest.raises(ProgramError):
            verify_backward(plan, w)


def test_a_wrong_rewrite_does_not_go_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is run on the traced rows: a lowering or rewrite that changes a value is caught before it is used."""
    from recurra.program import lowering
    from recurra.unroll import explain

    monkeypatch.setitem(lowering.LOWERINGS, "tanh", lambda g, a: g("sigmoid", a))
    told = explain(Step(), torch.randn(2, 3, 5, dtype=torch.double))
    assert told.executors == ("scan",) and "does not give what the step gives" in str(told)


def test_derive_adds_slices_of_gradients_without_padding() -> None:
    plan, backward = compile_step(Gated())
    assert not [
        v for v in (*backward.body, *backward.before) if v.op == "cat" and any(a.op == "broadcast" for a in v.args)
    ]
    assert backward_of(plan).saved


def test_ordered_lists_operands_first() -> None:
    plan, _ = lstm()
    values = ordered([plan.output, *plan.nexts])
    place = {v: k for k, v in enumerate(values)}
    assert all(place[a] < place[v] for v in values for a in v.args)


def test_modules_inside_a_cell_keep_their_names() -> None:
    class Deep(Step):
        def build(self):
            self.net = nn.Sequential(nn.Linear(5, H), nn.Sequential(nn.Tanh(), nn.Linear(H, H)))

        def step(self, x, h):
            return torch.tanh(self.net(x) + h)

    plan, _ = compile_step(Deep())
    assert {s.expr.name for s in plan.statics} == {"net.0.weight", "net.0.bias", "net.1.1.weight", "net.1.1.bias"}

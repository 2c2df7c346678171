"""A program's text: readable, with the step's own names; it loads back to the same, and loading runs nothing."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import STEPS, Gated, GatedOneByOne, Idioms, Masked, Step

from examples import CELLS, CellExample
from recurra import Cell, ProgramError, cells
from recurra.machine.plain import run
from recurra.passes import compile_step, own_weights
from recurra.program.layout import Layout
from recurra.program.parse import parse
from recurra.program.statics import Evaluator
from recurra.program.text import plan_text
from recurra.program.values import Call, Parameter

LSTM = """\
program LSTM
input x:3
state h:2, c:2
static @weight_ih (8, 3)
static @bias_ih (8)
static @bias_hh (8)
static @weight_hh (8, 2)
before:
  %1:8 = mm x @weight_ih
  %2:8 = add %1 @bias_ih
  %3:8 = add %2 @bias_hh
loop:
  %4:8 = mm h @weight_hh
  gates:8 = add %3 %4
  %5:2 = slice gates 6 8
  o:2 = sigmoid %5
  %6:2 = slice gates 2 4
  f:2 = sigmoid %6
  %7:2 = slice gates 0 2
  i:2 = sigmoid %7
  %8:2 = slice gates 4 6
  g:2 = tanh %8
  %9:2 = mul i g
  c.1:2 = fma f c %9
  %10:2 = tanh c.1
  h.1:2 = mul o %10
after:
next h.1, c.1
output h.1
linear no
"""


def without_lines(text: str) -> str:
    return re.sub(r" +#.*", "", text)


def text_of(cell: Cell) -> str:
    return plan_text(*compile_step(cell))


def test_a_program_can_be_read() -> None:
    plan, _ = compile_step(cells.LSTM(3, 2))
    assert without_lines(plan_text(plan)) == LSTM


@pytest.mark.parametrize("make", [*STEPS, *CELLS], ids=lambda m: getattr(m, "__name__", str(m)))
def test_equal_text_loads_back(make: type[Step] | CellExample) -> None:
    cell = make.make(3, 4) if isinstance(make, CellExample) else make()
    text = text_of(cell)
    plan, backward = parse(text)
    assert plan_text(plan, backward) == text
    assert text_of(cell) == text
    alone = plan_text(plan)
    assert plan_text(*parse(alone)) == alone and text.startswith(alone)


@pytest.mark.parametrize("make", STEPS)
def test_a_loaded_program_computes_the_same(make: type[Step]) -> None:
    cell = make()
    plan, _ = compile_step(cell)
    loaded, _ = parse(plan_text(plan))
    layout = Layout(3, 2)
    x = [torch.randn(6, cell.input_size, dtype=torch.double)]
    states = [torch.randn(2, n, dtype=torch.double) for n in cell.state_sizes.values()]
    results = []
    for p in (plan, loaded):
        statics = Evaluator(p.statics)(own_weights(cell), torch.float64, torch.device("cpu"))
        results.append(run(p, layout, x, statics, states))
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)


def test_operations_on_weights_are_data() -> None:
    plan, _ = compile_step(GatedOneByOne())
    joined = [s.expr for s in plan.statics if isinstance(s.expr, Call)]
    assert joined and all(e.operator == "aten.cat.default" for e in joined)
    assert all(isinstance(a, Parameter) for e in joined for a in e.args[0])
    assert "static @1 (24, 5) = aten.cat.default([@W." in plan_text(plan)


WRONG = [
    ("program LSTM", "programme LSTM", "expected 'program'"),
    ("mm x @weight_ih", "mm x @weight_hh", "mm of a row 3 wide"),
    ("%1:8 = mm", "%1:9 = mm", "8 wide, not 9"),
    ("tanh %8", "cumsum %8", "'cumsum' is not an operation"),
    ("tanh %8", "tanh %99", "read before it is assigned"),
    ("%6:2 = slice gates 2 4", "%6:2 = slice gates 2 40", "slice"),
    ("%9:2 = mul i g", "%9:2 = mul i", "takes 2 operands"),
    ("f:2 = sigmoid %6", "o:2 = sigmoid %6", "assigned twice"),
    ("next h.1, c.1", "next h.1", "1 next states"),
    ("next h.1, c.1", "next gates, c.1", "8 wide"),
    ("state h:2, c:2", "state h:2, c:-2", "not name:width"),
    ("static @bias_hh (8)", "static @bias_hh (8) = os.system('true')", "not an operation"),
    ("static @bias_hh (8)", "static @bias_hh (8) = aten.set_.source_Tensor(@bias_ih, @bias_ih)", "not an operation"),
    ("static @bias_hh (8)", "static @bias_hh (8) = aten.randn.default([8])", "not an operation"),
    ("static @bias_hh (8)", "static @bias_hh (8) = aten.neg.nothing(@bias_ih)", "not an operation"),
    ("static @bias_hh (8)", "static @bias_hh (8) = " + "aten.neg.default(" * 300 + "@b" + ")" * 300, "deep"),
    ("  %2:8 = add %1 @bias_ih\n", "", "read before it is assigned"),
    ("loop:\n", "loop\n", "expected 'loop:'"),
    ("linear no\n", "linear no\nmore\n", "expected the end"),
    ("static @bias_hh (8)", "static @bias_ih (8)", "'@bias_ih' is assigned twice"),
    ("linear no\n", "linear maybe\n", "linear is none, diag, dense or no, not 'maybe'"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_what_is_wrong_with_a_text_is_said_with_its_line(old: str, new: str, message: str) -> None:
    assert old in LSTM
    with pytest.raises(ProgramError, match=message) as caught:
        parse(LSTM.replace(old, new, 1))
    assert re.match(r"line \d+ of the program", str(caught.value))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cotangent ^h:2, ^c:2", "cotangent ^h:1, ^c:2", "the cotangent of the state h is 1 wide instead of 2"),
        ("cotangent ^h:2, ^c:2", "cotangent ^h:2, ^c:2, ^g:2", "LSTM has 2 states and 3 cotangents of them"),
        ("output ^output:2", "output ^output:1", "the cotangent of the output is 1 wide instead of 2"),
        ("gradient @bias_ih += sum", "gradient @weight_ih += sum", "cannot be a sum of rows 8 wide"),
    ],
)
def test_what_is_wrong_with_a_backward_is_said(old: str, new: str, message: str) -> None:
    text = text_of(cells.LSTM(3, 2))
    assert old in text
    with pytest.raises(ProgramError, match=message):
        parse(text.replace(old, new, 1))


TEXTS = [text_of(make()) for make in (Gated, Idioms, Masked)]


@settings(max_examples=400)
@given(st.data())
def test_a_mutated_text_is_refused_or_another_program(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    words = re.split(r"(\W)", text)
    for _ in range(data.draw(st.integers(1, 3))):
        k = data.draw(st.integers(0, len(words) - 1))
        words[k] = data.draw(
            st.sampled_from(
                ["", "0", "-1", "x", "@", "(", "]", "'", "\n", words[data.draw(st.integers(0, len(words) - 1))]]
            )
        )
    try:
        plan, backward = parse("".join(words))
    except ProgramError:
        return
    assert plan_text(*parse(plan_text(plan, backward))) == plan_text(plan, backward)


def test_numbers_that_are_no_numbers() -> None:
    class Infinite(Step):
        def step(self, x, h):
            inf, nan = torch.tanh(self.W(x)), torch.tanh(self.U(h))
            return torch.where(inf > nan, torch.clamp(inf, -torch.inf, torch.inf), nan * 1e-300)

    text = text_of(Infinite())
    assert "inf.0:6 = tanh" in text and "+inf" in text and "1e-300" in text
    assert plan_text(*parse(text)) == text

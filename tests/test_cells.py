"""The cells against torch.nn's own and against equations written out once more; the list of examples is complete."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples import CELLS, CellExample
from recurra import Cell, CellError, cells, scan

ROOT = Path(__file__).parent.parent
PUBLIC = [getattr(cells, name) for name in cells.__all__]
WITH_TORCH_CELL = [e for e in CELLS if e.torch_cell]
WITH_TORCH_LAYER = [e for e in CELLS if e.torch_layer]


def test_every_cell_is_in_the_list_of_examples() -> None:
    listed = {type(e.make(3, 4)) for e in CELLS}
    assert [c.__name__ for c in PUBLIC if c not in listed] == []
    defined = {c for c in vars(cells).values() if inspect.isclass(c) and issubclass(c, Cell) and c is not Cell}
    assert defined == set(PUBLIC)


@pytest.mark.parametrize("cell", PUBLIC)
def test_every_cell_is_a_page(cell: type[Cell]) -> None:
    """Equation, source with its year, states, parameters, deviations; and the gate order where there are gates."""
    page = " ".join((inspect.getdoc(cell) or "").split())
    assert "_t = " in page and "Deviation" in page and "Parameters:" in page
    assert any(f" {year}" in page for year in range(1980, 2030))
    for state in cell.state_names:
        assert f"{state} (B, " in page or f"{state} and " in page or f" and {state} (B" in page, state
    made = make(cell, 3, 4)
    assert ("Gate order" in page) == (made.get_parameter("weight_ih").shape[0] > made.hidden_size)
    for name, _ in made.named_parameters():
        assert name.partition(".")[0] in page, name


def make(cell: type[Cell], *arguments: object, third: int = 2, **options: object) -> Cell:
    """Of two widths, and of a third where one must be given."""
    more = [p.name for p in inspect.signature(cell).parameters.values() if p.default is p.empty][2:]
    return cell(*arguments, **dict.fromkeys(more, third), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", PUBLIC)
def test_a_constructor_names_all_it_takes(cell: type[Cell]) -> None:
    """Widths, bias, what is particular, device and dtype, in this order; a gate's bias by keyword; nothing else."""
    taken = inspect.signature(cell).parameters
    plain = [p for p in taken.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    names, widths = [p.name for p in plain], [p.name for p in plain if p.default is p.empty]
    assert names[:2] == widths[:2] == ["input_size", "hidden_size"]
    assert (names[len(widths)], names[-2:]) == ("bias", ["device", "dtype"])
    assert set(taken) - set(names) <= {"forget_bias"}
    with pytest.raises(TypeError):
        make(cell, 3, 4, before=3)


def test_a_list_of_all_cells_is_in_the_docs() -> None:
    """One row each in "How to choose a cell"."""
    text = (ROOT / "docs" / "cells.md").read_text()
    table = text[text.index("## How to choose a cell") : text.index("## Write your own")]
    rows = [line.split("|")[1].strip(" `") for line in table.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(cells.__all__)


@pytest.mark.parametrize("example", WITH_TORCH_CELL, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_those_of_torch_bit_for_bit(example: CellExample, bias: bool) -> None:
    assert example.torch_cell is not None
    torch.manual_seed(5)
    ours = example.make(3, 4, bias)  # type: ignore[call-arg]
    torch.manual_seed(5)
    theirs = example.torch_cell(3, 4, bias)  # type: ignore[call-arg, arg-type]
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=0, atol=0)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("example", WITH_TORCH_CELL, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_a_step_is_that_of_torch(example: CellExample, dtype: torch.dtype, tolerance: float) -> None:
    assert example.torch_cell is not None
    ours, theirs = example.make(3, 4).to(dtype), example.torch_cell(3, 4).to(dtype)  # type: ignore[call-arg]
    theirs.load_state_dict(ours.state_dict())
    x, states = torch.randn(5, 3, dtype=dtype), [torch.randn(5, n, dtype=dtype) for n in ours.state_sizes.values()]
    expected = theirs(x, tuple(states) if len(states) > 1 else states[0])
    torch.testing.assert_close(ours.step(x, *states), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("example", WITH_TORCH_LAYER, ids=str)
def test_a_sequence_is_that_of_torch(example: CellExample) -> None:
    assert example.torch_layer is not None
    ours, theirs = example.make(3, 4).double(), example.torch_layer(3, 4).double()
    theirs.load_state_dict({f"{name}_l0": p for name, p in ours.state_dict().items()})
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    y, last = scan(ours, x)
    y_torch, last_torch = theirs(x)
    torch.testing.assert_close(y, y_torch, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(last, tuple(s[0] for s in last_torch) if len(last) > 1 else (last_torch[0],))


@pytest.mark.parametrize("example", [e for e in CELLS if e.at_least], ids=str)
@pytest.mark.parametrize("size", [0.1, 30])
def test_a_state_stays_above_what_is_said_of_it(example: CellExample, size: float) -> None:
    cell = example.make(3, 4)
    for T in range(1, 9):
        states = dict(zip(cell.state_names, scan(cell, size * torch.randn(T, 5, 3))[1], strict=True))
        for name, least in example.at_least.items():
            assert bool((states[name] >= least).all())


# Parameters that are not drawn from U(-1/√H, 1/√H), at D = 30 and H = 25: the least and the largest number.
OTHERWISE = {
    "IndRNN.weight_hh": (0, 1),
    "LeakyIntegrator.logit_leak": (0, 0),
    "SRU.weight_ih": (-math.sqrt(3 / 30), math.sqrt(3 / 30)),
    "SRU.weight_ch": (-math.sqrt(1.5), math.sqrt(1.5)),
    "SRU.bias_ih": (0, 0),
}


def interval(cell: type[Cell], name: str) -> tuple[float, float]:
    if name.startswith("norm_"):
        return (1, 1) if name.endswith("weight") else (0, 0)
    return OTHERWISE.get(f"{cell.__name__}.{name}", (-1 / math.sqrt(25), 1 / math.sqrt(25)))


@pytest.mark.parametrize("cell", PUBLIC)
def test_parameters_are_drawn_from_the_stated_interval(cell: type[Cell]) -> None:
    torch.manual_seed(3)
    made = make(cell, 30, 25, third=20)
    first = {name: p.detach().clone() for name, p in made.named_parameters()}
    for name, p in first.items():
        low, high = interval(cell, name)
        assert low <= p.min() <= low + 0.2 * (high - low) and high - 0.2 * (high - low) <= p.max() <= high, name
    made.reset_parameters()  # type: ignore[operator]
    for name, p in made.named_parameters():
        assert torch.equal(first[name], p) == (len(set(interval(cell, name))) == 1), name


@pytest.mark.parametrize("cell", PUBLIC)
def test_factory_arguments(cell: type[Cell]) -> None:
    assert {p.dtype for p in make(cell, 3, 4, dtype=torch.float64).parameters()} == {torch.float64}
    assert {str(p.device) for p in make(cell, 3, 4, device="meta").parameters()} == {"meta"}
    unbiased = make(cell, 3, 4, bias=False)
    assert not [name for name, _ in unbiased.named_parameters() if "bias" in name]


@pytest.mark.parametrize("cell", [c for c in PUBLIC if "forget_bias" in inspect.signature(c).parameters])
def test_the_forget_gates_bias(cell: type[Cell]) -> None:
    """Its biases add up to the number asked for; those of the other gates are drawn as ever."""
    made = make(cell, 3, 4, forget_bias=1.5)
    first, second = (
        (made.norm_ih.bias, made.norm_hh.bias) if "LayerNorm" in cell.__name__ else (made.bias_ih, made.bias_hh)
    )
    total = first + second
    forget = slice(0, 4) if cell is cells.MGU else slice(4, 8)
    assert bool((total[forget] == 1.5).all())
    assert not bool((total == 1.5).all())
    with pytest.raises(CellError) as told:
        make(cell, 3, 4, forget_bias=1.5, bias=False)
    assert str(told.value) == f"{cell.__name__} got forget_bias=1.5 and bias=False. Leave one of them out."
    with pytest.raises(CellError) as told:
        make(cell, 3, 4, forget_bias="a")
    assert str(told.value) == f"{cell.__name__} got forget_bias='a'. Give a number, as 1.0, or leave it out."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: cells.Elman(3, 4, nonlinearity="gelu"), "Elman got nonlinearity='gelu'. Choose tanh or relu."),
        (lambda: cells.IndRNN(3, 4, nonlinearity="elu"), "IndRNN got nonlinearity='elu'. Choose tanh or relu."),
        (
            lambda: cells.LeakyIntegrator(3, 4, leak=1.0),
            "LeakyIntegrator got leak=1.0. Give a number between 0 and 1; without a leak use Elman.",
        ),
        (
            lambda: cells.LSTMProjected(3, 4, proj_size=0),
            "LSTMProjected got proj_size=0. "
            "A width is a whole number of at least 1; without a projection the cell is LSTM.",
        ),
        (lambda: cells.Jordan(3, 4, 0), "Jordan got output_size=0. A width is a whole number of at least 1."),
        (
            lambda: cells.ElmanOutput(3, 4, 2.5),
            "ElmanOutput got output_size=2.5. A width is a whole number of at least 1.",
        ),
        (
            lambda: cells.ElmanOutputBefore(3, 4, -1),
            "ElmanOutputBefore got output_size=-1. A width is a whole number of at least 1.",
        ),
        *((lambda c=c: make(c, 3, 4, bias="no"), f"{c.__name__} got bias='no'. Choose True or False.") for c in PUBLIC),
        (lambda: cells.SLSTM(3, 4, forget_gate="tanh"), "SLSTM got forget_gate='tanh'. Choose sigmoid or exp."),
    ],
)
def test_bad_options_are_told(wrong: Callable[[], Cell], message: str) -> None:
    with pytest.raises(CellError) as told:
        wrong()
    assert str(told.value) == message


# ----------------------------------- equations written out once more, one unit at a time, where torch.nn has no oracle


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def affine(w: Tensor, v: list[float], b: Tensor | None) -> list[float]:
    products = (w.double() @ torch.tensor(v, dtype=torch.float64)).tolist()
    return [p + (0 if b is None else float(b[k].detach())) for k, p in enumerate(products)]


def test_gru_with_the_reset_before_the_product() -> None:
    cell = cells.GRUResetBefore(3, 2).double()
    x, h = torch.randn(3, dtype=torch.float64).tolist(), torch.randn(2, dtype=torch.float64).tolist()
    w_ir, w_iz, w_in = cell.weight_ih.chunk(3)
    w_hr, w_hz, w_hn = cell.weight_hh.chunk(3)
    assert cell.bias_ih is not None and cell.bias_hh is not None
    b_ir, b_iz, b_in = cell.bias_ih.chunk(3)
    b_hr, b_hz, b_hn = cell.bias_hh.chunk(3)
    r = [sigmoid(a + b) for a, b in zip(affine(w_ir, x, b_ir), affine(w_hr, h, b_hr), strict=True)]
    z = [sigmoid(a + b) for a, b in zip(affine(w_iz, x, b_iz), affine(w_hz, h, b_hz), strict=True)]
    gated = [a * b for a, b in zip(r, h, strict=True)]
    n = [math.tanh(a + b) for a, b in zip(affine(w_in, x, b_in), affine(w_hn, gated, b_hn), strict=True)]
    expected = [(1 - z[k]) * n[k] + z[k] * h[k] for k in range(2)]
    result = cell.step(torch.tensor([x], dtype=torch.float64), torch.tensor([h], dtype=torch.float64))
    torch.testing.assert_close(result, torch.tensor([expected], dtype=torch.float64))


def test_jordan_feeds_its_output_back() -> None:
    cell = cells.Jordan(3, 4, 2).double()
    x, y = torch.randn(3, dtype=torch.float64).tolist(), torch.randn(2, dtype=torch.float64).tolist()
    h = [
        math.tanh(a + b)
        for a, b in zip(affine(cell.weight_ih, x, cell.bias_ih), affine(cell.weight_hh, y, cell.bias_hh), strict=True)
    ]
    expected = [sigmoid(v) for v in affine(cell.output.weight, h, cell.output.bias)]
    result = cell.step(torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))
    torch.testing.assert_close(result, torch.tensor([expected], dtype=torch.float64))


def test_elman_with_its_output_equation_is_elman_and_a_layer_above() -> None:
    cell = cells.ElmanOutput(3, 4, 2, nonlinearity="relu").double()
    inner = cells.Elman(3, 4, nonlinearity="relu").double()
    inner.load_state_dict({k: v for k, v in cell.state_dict().items() if not k.startswith("output")})
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    (y, last), (h, last_inner) = scan(cell, x), scan(inner, x)
    torch.testing.assert_close(y, torch.sigmoid(h @ cell.output.weight.t() + cell.output.bias))
    torch.testing.assert_close(last, last_inner)

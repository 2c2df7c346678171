"""Session: a layer one step at a time gives, bit for bit, what the layer gives for the whole sequence."""

import copy
import re
from collections.abc import Iterator

import pytest
import torch
from steps import Dropping, IfTensor
from torch import Tensor, nn

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import InputError, Recurrent, Residual, Session, Stack, cells
from recurra.machine import native
from recurra.regularise.base import Regulariser

NATIVE = not native.available()
STREAMING = [
    e
    for e in LAYERS
    if not any(
        getattr(m, "bidirectional", False) or isinstance(m, recurra.Bidirectional) for m in e.make(4, False).modules()
    )
]
T, B, D = 6, 3, 4


def leaves(state: object) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from leaves(part)


def assert_equal(a: Tensor, b: Tensor) -> None:
    """The same bits on the native machine."""
    torch.testing.assert_close(a, b, **({"atol": 0, "rtol": 0} if NATIVE else {}))


def steps(session: Session, x: Tensor) -> Tensor:
    return torch.stack([session.step(row).clone() for row in x])


def assert_is_the_sequence(layer: nn.Module, x: Tensor) -> None:
    """Step by step x (T, B, D) gives the outputs and the last state of the whole."""
    with torch.no_grad():
        y, state = layer(x)
    session = Session(layer)
    assert_equal(steps(session, x), y)
    for mine, theirs in zip(leaves(session.state), leaves(state), strict=True):
        assert_equal(mine, theirs)


@pytest.mark.parametrize("example", STREAMING, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("strict")
def test_steps_are_the_sequence(example: LayerExample, dtype: torch.dtype) -> None:
    assert_is_the_sequence(example.make(D, False).to(dtype), torch.randn(T, B, D, dtype=dtype))


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.usefixtures("strict")
def test_every_cell_streams(example: CellExample) -> None:
    cell = example.make(D, 5)
    layer = Recurrent(cell.eval() if isinstance(cell, Regulariser) else cell, batch_first=True)
    if cell.side_sizes:
        pytest.skip("what is read beside x is not known step by step")
    x = torch.randn(T, 1, D)
    with torch.no_grad():
        y, _ = layer(x.transpose(0, 1))
    assert_equal(steps(Session(layer), x), y.transpose(0, 1))


def test_deep_layers_stream_without_dropout() -> None:
    layer = recurra.LSTM(D, 5, 3, dropout=0.5)
    x = torch.randn(T, B, D)
    with pytest.raises(InputError, match=r"LSTM is in training mode with dropout=0\.5.*Call layer\.eval\(\) first\."):
        Session(layer).step(x[0])
    layer.eval()
    session = Session(layer)
    got = steps(session, x)
    with torch.no_grad():
        y, (h, c) = layer(x)
    assert_equal(got, y)
    assert_equal(session.state[0], h)
    assert_equal(session.state[1], c)


@pytest.mark.parametrize("example", STREAMING, ids=str)
def test_a_state_goes_in_and_out_in_the_layers_own_form(example: LayerExample) -> None:
    layer = example.make(D, False)
    x = torch.randn(T, B, D)
    with torch.no_grad():
        _, middle = layer(x[:3])
        y, end = layer(x[3:], middle)
    given = Session(layer, middle)
    assert_equal(steps(given, x[3:]), y)
    later = Session(layer)
    later.step(x[0])
    later.state = middle
    assert_equal(steps(later, x[3:]), y)
    for a, b in zip(leaves(later.state), leaves(end), strict=True):
        assert_equal(a, b)
    given.reset()
    assert_equal(steps(given, x[3:]), y)


def test_reset_and_no_state_begin_anew() -> None:
    layer = Recurrent(cells.GRU(D, 5))
    x = torch.randn(T, B, D)
    session = Session(layer)
    assert session.state is None
    first = steps(session, x)
    assert not torch.equal(session.step(x[0]), first[0])
    session.reset()
    assert_equal(steps(session, x), first)
    session.state = None
    assert_equal(steps(session, x), first)


def test_what_comes_back_is_the_sessions_own_and_out_is_yours() -> None:
    layer = recurra.LSTM(D, 5)
    x = torch.randn(T, B, D)
    session, other = Session(layer), Session(layer)
    y = session.step(x[0])
    mine = torch.empty(B, 5)
    assert other.step(x[0], out=mine) is mine
    assert_equal(mine, y)
    kept = y.clone()
    assert session.step(x[1]) is y and not torch.equal(y, kept)
    assert torch.equal(mine, kept)
    state = session.state
    before = [t.clone() for t in leaves(state)]
    session.step(x[2])
    assert all(torch.equal(a, b) for a, b in zip(before, leaves(state), strict=True)), "a state is a copy"
    assert not y.requires_grad


@pytest.mark.parametrize("example", STREAMING, ids=str)
def test_a_session_is_a_snapshot(example: LayerExample) -> None:
    layer = example.make(D, False)
    x = torch.randn(T, B, D)
    session = Session(layer)
    session.step(x[0])
    expected = Session(layer)
    expected.step(x[0])
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(1.5)
    assert_equal(session.step(x[1]), expected.step(x[1]))
    state = session.state
    session.refresh()
    with torch.no_grad():
        y, _ = layer(x[2:3], state)
    assert_equal(session.step(x[2]), y[0])


def test_learned_first_states() -> None:
    class Learned(recurra.Cell):
        def __init__(self) -> None:
            super().__init__(D, 5)
            self.w, self.h0 = nn.Linear(D, 5), nn.Parameter(torch.randn(5))

        def initial(self, batch: int) -> Tensor:
            return self.h0.expand(batch, -1)

        def step(self, x: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(self.w(x) + h)

    layer = Recurrent(Learned())
    x = torch.randn(T, B, D)
    session = Session(layer)
    session.step(x[0])
    with torch.no_grad():
        layer.cell.h0.add_(1)
    session.reset()
    kept = session.step(x[0]).clone()
    session.refresh()
    session.reset()
    assert not torch.equal(session.step(x[0]), kept)
    with torch.no_grad():
        assert_equal(session.step(x[1]), layer(x[:2])[0][1])


def test_steps_that_are_no_programs_stream_on_scan() -> None:
    layer = Recurrent(IfTensor())
    x = torch.randn(T, 2, 5, dtype=torch.double)
    with torch.no_grad():
        y, _ = layer(x)
    torch.testing.assert_close(steps(Session(layer), x), y)
    with recurra.strict(), pytest.raises(recurra.StrictError, match="random"):
        Session(Recurrent(Dropping())).step(x[0])


def test_a_mixture_of_layers() -> None:
    layer = Stack(
        [Residual(Stack([Recurrent(cells.LSTM(D, 3)), recurra.GRU(3, D, 2)])), Recurrent(cells.ElmanOutput(D, 5, 2))]
    )
    assert_is_the_sequence(layer, torch.randn(T, B, D))


def test_what_a_session_refuses() -> None:
    for layer in (recurra.LSTM(3, 4, bidirectional=True), Stack([recurra.Bidirectional(recurra.GRU(3, 4))])):
        with pytest.raises(InputError, match=r"reads the sequence from its end.*unidirectional"):
            Session(layer)
    with pytest.raises(InputError, match="Session runs Recurra's layers, and Linear is none"):
        Session(nn.Linear(3, 3))
    session = Session(recurra.LSTM(3, 4))
    for shape, remedy in (
        ((3,), "Pass x.unsqueeze(0)."),
        ((5, 2, 3), "Pass one step at a time, x[t], or x[:, t] where the batch is first."),
        ((1, 5, 2, 3), "Pass x with 2 axes."),
    ):
        with pytest.raises(InputError) as axes:
            session.step(torch.randn(shape))
        told = f"a session's step takes x (B, D), one row for each sequence, and got {shape}. {remedy}"
        assert str(axes.value) == told
    for rows in (5, 2):  # at the first step, which makes nothing of the number of rows, and after it
        with pytest.raises(InputError) as width:
            session.step(torch.randn(rows, 4))
        assert str(width.value) == (
            f"x has the shape ({rows}, 4), and this session's layer takes (B, 3). Give x a last axis of 3."
        )
        session.step(torch.randn(2, 3))
    for x, word in (
        (torch.randn(3, 3), "rows"),
        (torch.randn(2, 3).double(), "float64"),
    ):
        with pytest.raises(InputError, match=word):
            session.step(x)
    for out, came in (
        (torch.empty(2, 3), "torch.float32 of shape (2, 3)"),
        (torch.empty(2, 4).double(), "torch.float64 of shape (2, 4)"),
        (torch.empty(2, 8)[:, ::2], "a view of another, torch.float32 of shape (2, 4)"),
    ):
        with pytest.raises(InputError) as told:
            session.step(torch.randn(2, 3), out=out)
        assert str(told.value) == (
            f"out must be a contiguous torch.float32 tensor of shape (2, 4), and is {came}. "
            "Pass torch.empty_like of what a step returned."
        )
    learned = torch.zeros(2, 4, requires_grad=True)
    for out in (learned, learned * 2):
        with pytest.raises(InputError) as gradient:
            session.step(torch.randn(2, 3), out=out)
        assert str(gradient.value) == (
            "out requires a gradient, and a session's step overwrites it without. "
            "Pass torch.empty_like of what a step returned."
        )
    assert session.step(torch.randn(2, 3, requires_grad=True), out=learned.detach()).requires_grad is False
    wanted = r"takes tensors of the shapes \(1, 2, 4\) and \(1, 2, 4\), and got "
    with pytest.raises(InputError, match=wanted + r"\(1, 3, 4\) and \(1, 3, 4\)"):
        session.state = (torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))
    with pytest.raises(InputError) as caught:
        session.state = (torch.zeros(1, 2, 4).double(), torch.zeros(1, 2, 4).double())
    assert str(caught.value) == (
        "the session's state is torch.float64 and its weights are torch.float32. Convert one of them."
    )
    with pytest.raises(InputError, match=wanted + "an int"):
        session.state = 5
    with pytest.raises(InputError, match=r"or session\.state, gave for as many rows\.$"):
        session.state = 5
    stacked = Session(Stack([recurra.GRU(3, 4)]), (torch.zeros(1, 2, 4),))
    with pytest.raises(InputError) as entries:
        stacked.state = (None, None)
    assert str(entries.value) == (
        "the state of Stack is a tuple of 1 entries, one for each layer, and got 2 entries. "
        "Pass what the layer, or session.state, gave for as many rows."
    )
    with pytest.raises(InputError, match=r"a tensor .* for each state of the layer, not an int\. Pass what the layer"):
        Session(recurra.LSTM(3, 4)).state = 5
    with pytest.raises(InputError, match=r"adds x, 3 wide, to its layer's output, 4 wide\. Make the layer as wide"):
        Session(Residual(recurra.LSTM(3, 4))).step(torch.randn(1, 3))


def test_strided_rows_are_read() -> None:
    layer = recurra.GRU(3, 4)
    x = torch.randn(B, 6)
    assert_equal(Session(layer).step(x[:, ::2]), Session(layer).step(x[:, ::2].contiguous()))


def test_rows_elsewhere_or_of_another_kind_are_refused_and_negated_ones_read() -> None:
    layer = recurra.Recurrent(recurra.cells.LSTM(3, 4))
    session = recurra.Session(layer)
    x = torch.randn(2, 3)
    y = session.step(x).clone()
    with pytest.raises(recurra.InputError, match="x is on meta and the session's weights are on cpu"):
        session.step(x.to("meta"))
    with pytest.raises(recurra.InputError, match="out is on meta and the session's weights are on cpu"):
        session.step(x, out=y.to("meta"))
    with pytest.raises(recurra.InputError, match="x is an ndarray, and a session's step takes a tensor"):
        session.step(x.numpy())
    for layout in (torch.sparse_coo, torch.sparse_csr):
        told = f"x has the layout {layout}, and a session's step takes a dense tensor: x.to_dense()"
        with pytest.raises(recurra.InputError, match=re.escape(told)):
            session.step(x.to_sparse(layout=layout))
    with pytest.raises(recurra.InputError, match="x is a list"):
        session.step(x.tolist())
    with pytest.raises(recurra.InputError, match="out is an ndarray"):
        session.step(x, out=y.numpy())
    with pytest.raises(recurra.InputError, match=r"LSTM is none. Use recurra.LSTM."):
        recurra.Session(torch.nn.LSTM(3, 4))
    session.reset()
    assert torch.equal(session.step(torch._neg_view(-x)), y)


def test_a_copy_goes_on_by_itself() -> None:
    layer = recurra.Stack([recurra.LSTM(3, 4, num_layers=2), recurra.Recurrent(recurra.cells.GRU(4, 4))])
    session = recurra.Session(layer)
    fresh = copy.deepcopy(session)
    x = torch.randn(6, 2, 3)
    for row in x[:3]:
        session.step(row)
    twin = copy.deepcopy(session)
    assert twin.layer is not layer
    with torch.no_grad():
        whole = layer(x)[0]
    for k in range(3, 6):
        assert torch.equal(twin.step(x[k]), whole[k])
    assert torch.equal(session.step(x[3]), whole[3])  # its state stayed where it was
    twin.reset()
    assert torch.equal(twin.step(x[0]), whole[0]) and torch.equal(fresh.step(x[0]), whole[0])

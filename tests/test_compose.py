"""Recurrent is scan; Stack, Bidirectional and Residual are what they say; what does not fit is told."""

from functools import partial
from typing import Any

import pytest
import torch
from checks import alike, numbers
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recurra
from examples import CELLS, CellExample, Learned, Peephole
from recurra import Bidirectional, InputError, Recurrent, Residual, Stack, cells, scan

D = 5
close = partial(alike, exact=1e-11)
pytestmark = pytest.mark.usefixtures("strict")  # a fall-back to scan is an error here


@pytest.mark.parametrize("example", CELLS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_recurrent_is_scan(example: CellExample, reverse: bool) -> None:
    cell = example.make(D, 4).double()
    x, lengths = numbers(6, 3, D), torch.tensor([2, 6, 0])
    states = tuple(numbers(3, n, seed=n) for n in cell.state_sizes.values())
    expected, end = scan(cell, x, states, lengths, reverse)
    y, last = Recurrent(cell)(x, states if len(states) > 1 else states[0], lengths, reverse)
    close(y, expected)
    close(last, end if len(end) > 1 else end[0])
    y, last = Recurrent(cell, batch_first=True)(x.transpose(0, 1))
    close(y.transpose(0, 1), scan(cell, x)[0])


def test_one_state_is_a_tensor_and_several_are_a_tuple() -> None:
    _, one = Recurrent(cells.GRU(D, 4))(torch.zeros(3, 2, D))
    _, two = Recurrent(cells.LSTM(D, 4))(torch.zeros(3, 2, D))
    assert isinstance(one, Tensor) and isinstance(two, tuple) and len(two) == 2


def test_a_state_in_a_tuple_of_one_is_taken_too() -> None:
    layer, h = Recurrent(cells.GRU(D, 4)), torch.randn(2, 4)
    close(layer(torch.zeros(3, 2, D), (h,)), layer(torch.zeros(3, 2, D), h))


def test_repr() -> None:
    assert (
        repr(Recurrent(cells.GRU(2, 3), batch_first=True)) == "Recurrent(\n  batch_first=True\n  (cell): GRU(2, 3)\n)"
    )


def test_stack_is_one_layer_after_the_other() -> None:
    first, second = Recurrent(Peephole(D, 4)).double(), recurra.GRU(4, 3).double()
    x, n = numbers(6, 3, D), [6, 0, 2]
    middle, state_1 = first(x, None, n)
    y, state_2 = second(middle, None, n)
    close(Stack([first, second])(x, None, n), (y, (state_1, state_2)))
    partly, _ = Stack([first, second])(x, (None, state_2), n)
    close(partly, second(middle, state_2, n)[0])


def test_bidirectional_is_that_of_torch() -> None:
    ours, theirs = Bidirectional(Recurrent(cells.LSTM(D, 4))).double(), nn.LSTM(D, 4, bidirectional=True).double()
    ahead = {f"{k}_l0": p for k, p in ours.ahead.cell.state_dict().items()}
    back = {f"{k}_l0_reverse": p for k, p in ours.back.cell.state_dict().items()}
    theirs.load_state_dict({**ahead, **back})
    x, n = numbers(6, 3, D), torch.tensor([3, 6, 1])
    y, (state_ahead, state_back) = ours(x, None, n)
    packed, (h, c) = theirs(pack_padded_sequence(x, n, enforce_sorted=False))
    close(y, pad_packed_sequence(packed)[0])
    close((state_ahead[0], state_back[0]), (h[0], h[1]))
    close((state_ahead[1], state_back[1]), (c[0], c[1]))


def test_bidirectional_draws_the_backward_layer_anew() -> None:
    layer = Bidirectional(Stack([Recurrent(cells.Jordan(D, 4, 3)), recurra.LSTM(3, 2)]))
    for (name, a), b in zip(layer.ahead.named_parameters(), layer.back.parameters(), strict=True):
        assert not torch.equal(a, b), name


def test_bidirectional_refuses_to_copy_what_it_cannot_draw() -> None:
    with pytest.raises(InputError) as caught:
        Bidirectional(Stack([Recurrent(Learned(D, 4))]))
    assert str(caught.value) == (
        "Bidirectional cannot draw layers.0.cell.w anew for the backward layer, for Learned has no method "
        "reset_parameters. Define one, or pass the backward layer yourself."
    )
    Bidirectional(Recurrent(Learned(D, 4)), Recurrent(Learned(D, 4)))


def test_residual_adds_its_input() -> None:
    inner = recurra.GRU(D, D).double()
    x = numbers(4, 2, D)
    y, state = inner(x)
    close(Residual(inner)(x), (x + y, state))


X = torch.zeros(4, 3, D)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[..., :2]),
            "x has the shape (4, 3, 2), but GRU takes (T, B, 5). "
            "Give x a last axis of 5, or make the cell with input_size=2.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4), batch_first=True)(X[..., :2]),
            "x has the shape (4, 3, 2), but GRU takes (B, T, 5). "
            "Give x a last axis of 5, or make the cell with input_size=2.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[0, :, :2]),
            "x has the shape (3, 2), but GRU takes (T, 5). "
            "Give x a last axis of 5, or make the cell with input_size=2.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[0, 0]),
            "x has the shape (5,), but GRU takes (T, B, 5). Give x 3 axes, not 1.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4), batch_first=True)(X[None]),
            "x has the shape (1, 4, 3, 5), but GRU takes (B, T, 5). Give x 3 axes, not 4.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[0].to_sparse_csr()),
            "x has the layout torch.sparse_csr, but GRU takes a dense tensor. Pass x.to_dense().",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(torch.nested.nested_tensor([X[0], X[1]])),
            "x is a nested tensor, but GRU takes rows of one length. Pass x.to_padded_tensor(0.0) and the lengths.",
        ),
        (
            lambda: recurra.GRU(D, 4)(X.to_sparse()),
            "x has the layout torch.sparse_coo, but GRU takes a dense tensor. Pass x.to_dense().",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X, None, [4, 7, 1]),
            "lengths[1] is 7, but x has 4 steps. Pad x to 7 steps, or give lengths of at most 4.",
        ),
        (
            lambda: recurra.LSTM(D, 4, batch_first=True)(X, lengths=[4, 3, 1]),
            "lengths has the shape (3,), but x holds 4 sequences. Pass one length for each.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[:, 0], None, 5),
            "lengths[0] is 5, but x has 4 steps. Pad x to 5 steps, or give lengths of at most 4.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X, torch.zeros(2, 4)),
            "the given state of GRU has h of shape (2, 4), but a batch of 3 needs (3, 4). "
            "A state has one row for each sequence of the batch.",
        ),
        (
            lambda: Recurrent(cells.LSTM(D, 4))(X, torch.zeros(3, 4)),
            "the given state of LSTM is 1 value, but its states are h, c: give one tensor for each.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(pack_padded_sequence(X, [4, 3, 1]), None, [4, 3, 1]),
            "x is a PackedSequence and lengths are given too. It has its own: leave them out.",
        ),
        (
            lambda: recurra.GRU(D, 4)(pack_padded_sequence(X, [4, 3, 1]), lengths=[4, 3, 1]),
            "input is a PackedSequence and lengths are given too. It has its own: leave them out.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[:, 0], 3),
            "the given state of GRU is 1 value, but its states are h: give one tensor for each.",
        ),
        (
            lambda: recurra.unroll(nn.GRUCell(D, 4), X),
            "a recurra.Cell is run over time, and GRUCell is none. Derive it from Cell.",
        ),
        (
            lambda: recurra.scan(nn.GRUCell(D, 4), X),
            "a recurra.Cell is run over time, and GRUCell is none. Derive it from Cell.",
        ),
        (
            lambda: Recurrent(nn.GRUCell(D, 4)),
            "Recurrent takes a recurra.Cell, and GRUCell is none. Derive it from Cell.",
        ),
        (
            lambda: Stack(Recurrent(cells.GRU(D, 4))),
            "Stack takes a list of layers, and got a Recurrent. Pass Stack([layer, ...]).",
        ),
        (
            lambda: Stack([]),
            "Stack got no layers. Give it at least one: Stack([Recurrent(cell)]).",
        ),
        (
            lambda: Stack([nn.LSTM(D, 4)]),
            "Stack composes Recurra's layers, and LSTM is none. Use recurra.LSTM.",
        ),
        (
            lambda: Bidirectional(cells.GRU(D, 4)),
            "Bidirectional composes Recurra's layers, and GRU is none. Put a cell into Recurrent.",
        ),
        (
            lambda: Stack([recurra.GRU(D, 4), recurra.GRU(4, 4, batch_first=True)]),
            "Stack got layers with batch_first=True and with batch_first=False. Make them all alike.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X[:, 0], lengths="abc"),
            "lengths is a str, but counts steps. Pass one whole number for each sequence.",
        ),
        (
            lambda: recurra.GRU(D, 4)(X[:, 0], lengths=[None]),
            "lengths[0] is a NoneType, but counts steps. Pass one whole number for each sequence.",
        ),
        (
            lambda: Recurrent(cells.GRU(D, 4))(X, resets="abc"),
            "resets is a str, but marks steps. Pass a tensor (T, B) of truth values.",
        ),
        (
            lambda: Stack([recurra.GRU(D, 4)])(X, torch.zeros(1, 3, 4)),
            "the state of Stack is a tuple of 1 entries, one for each layer, but a Tensor came.",
        ),
        (
            lambda: Bidirectional(recurra.GRU(D, 4))(X, (None,) * 3),
            "the state of Bidirectional is a tuple of 2 entries, one for each layer, but 3 entries came.",
        ),
        (
            lambda: Residual(recurra.GRU(D, 4))(X),
            "Residual adds x, 5 wide, to its layer's output, 4 wide. Make the layer as wide as x.",
        ),
    ],
)
def test_what_does_not_fit(call: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == told


class NotMade(recurra.Cell):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def step(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return x + h


def test_a_cell_whose_init_was_left_out() -> None:
    x = torch.zeros(2, 3, 4)
    for call in (recurra.Recurrent, lambda cell: recurra.scan(cell, x), lambda cell: recurra.unroll(cell, x)):
        with pytest.raises(recurra.CellError, match=r"Call super\(\).__init__\(input_size, hidden_size\) in NotMade"):
            call(NotMade())

"""The laws of the layers, for every layer; Recurrent is scan; Stack, Bidirectional and Residual are what they say."""

import copy
import inspect
from typing import Any

import pytest
import torch
from checks import flip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample, Learned, Peephole
from recurra import Bidirectional, InputError, Recurrent, Residual, Stack, cells, layers, scan

D = 5
over_layers = pytest.mark.parametrize("example", LAYERS, ids=str)
ragged = st.lists(st.integers(0, 5), min_size=1, max_size=4)
few = settings(max_examples=10)
pytestmark = pytest.mark.usefixtures("strict")  # a fall-back to scan is an error here


def made(example: LayerExample, batch_first: bool = False, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return example.make(D, batch_first).double()


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def axis_of_batch(layer: nn.Module) -> int:
    """In the states of torch.nn's layers the batch is the second axis."""
    return 1 if isinstance(layer, nn.RNNBase) else 0


def states_of(layer: nn.Module, batch: int) -> Any:
    """States of the form the layer returns, of arbitrary numbers."""
    _, state = layer(layout(layer, numbers(2, batch, D)))
    return tree_map(lambda s: numbers(*s.shape, seed=s.numel()), state)


def layout(layer: nn.Module, x: Tensor) -> Tensor:
    return x.transpose(0, 1) if layer.batch_first else x


def row(state: Any, layer: nn.Module, b: int) -> Any:
    """The state of one sequence of a batch."""
    if isinstance(layer, Stack):
        return tuple(row(s, inner, b) for s, inner in zip(state, layer.layers, strict=True))
    if isinstance(layer, Bidirectional):
        return row(state[0], layer.ahead, b), row(state[1], layer.back, b)
    if isinstance(layer, Residual):
        return row(state, layer.layer, b)
    return tree_map(lambda s: s.select(axis_of_batch(layer), b), state)


def test_every_layer_is_in_the_list_of_examples() -> None:
    listed = {type(module) for e in LAYERS for module in e.make(D, False).modules()}
    named = [getattr(layers, name) for name in layers.__all__]
    public = {c for c in named if inspect.isclass(c) and issubclass(c, nn.Module) and c is not layers.Layer}
    assert public <= listed


# ------------------------------------------------------------------------------------------------------------- the laws


@over_layers
@few
@given(cut=st.integers(1, 5))
def test_cutting_a_sequence_changes_nothing(example: LayerExample, cut: int) -> None:
    layer, x = made(example), numbers(6, 2, D)
    if any(isinstance(m, Bidirectional) or getattr(m, "bidirectional", False) for m in layer.modules()):
        return  # reads the future
    whole, last = layer(x)
    first, middle = layer(x[:cut])
    second, end = layer(x[cut:], middle)
    close(torch.cat([first, second]), whole)
    close(end, last)


@over_layers
@few
@given(lengths=ragged, batch_first=st.booleans(), reverse=st.booleans())
def test_each_row_runs_alone(example: LayerExample, lengths: list[int], batch_first: bool, reverse: bool) -> None:
    layer = made(example, batch_first)
    x, state = numbers(5, len(lengths), D), states_of(layer, len(lengths))
    y, last = layer(layout(layer, x), state, lengths, reverse)
    y = layout(layer, y)
    for b, n in enumerate(lengths):
        alone, end = layer(x[:n, b], row(state, layer, b), n, reverse)
        close(y[:n, b], alone)
        close(row(last, layer, b), end)
        assert not y[n:, b].any()


@over_layers
@few
@given(lengths=ragged)
def test_reverse_is_forward_over_each_row_flipped(example: LayerExample, lengths: list[int]) -> None:
    layer, x = made(example), numbers(5, len(lengths), D)
    state = states_of(layer, len(lengths))
    y, last = layer(x, state, lengths, True)
    flipped, end = layer(flip(x, lengths), state, lengths)
    close(flip(flipped, lengths), y)
    close(end, last)


@over_layers
@pytest.mark.parametrize("filling", [float("nan"), 1e30])
def test_padding_changes_no_result_and_no_gradient(example: LayerExample, filling: float) -> None:
    lengths = torch.tensor([2, 0, 5, 3])
    padding = (torch.arange(5)[:, None] >= lengths)[..., None]
    results = []
    for value in (0.0, filling):
        layer = made(example)
        x = numbers(5, 4, D).masked_fill(padding, value).requires_grad_()
        y, last = layer(x, None, lengths)
        sums: list[Tensor] = [y.square().sum()]
        tree_map(lambda s, sums=sums: sums.append(s.square().sum()), last)
        torch.stack(sums).sum().backward()
        results.append((y, last, x.grad, [p.grad for p in layer.parameters()]))
        assert x.grad is not None and not x.grad[padding.expand_as(x)].any()
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@over_layers
def test_no_steps(example: LayerExample) -> None:
    layer = made(example)
    state = states_of(layer, 3)
    width = layer(numbers(1, 3, D))[0].shape[-1]
    y, last = layer(numbers(0, 3, D), state, torch.zeros(3, dtype=torch.long))
    assert y.shape == (0, 3, width)
    close(last, state)
    y, last = layer(numbers(4, 3, D), state, torch.zeros(3, dtype=torch.long))
    assert y.shape == (4, 3, width) and not y.any()
    close(last, state)


@over_layers
@few
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), batch_first=st.booleans())
def test_packed_is_lengths(example: LayerExample, lengths: list[int], batch_first: bool) -> None:
    layer, n = made(example, batch_first), torch.tensor(lengths)
    x, state = numbers(5, len(lengths), D), states_of(layer, len(lengths))
    packed = pack_padded_sequence(x, n, enforce_sorted=False)
    y, last = layer(packed, state)
    assert isinstance(y, PackedSequence)
    expected, end = layer(layout(layer, x), state, n)
    close(pad_packed_sequence(y, total_length=5)[0], layout(layer, expected))
    close(last, end)


@over_layers
def test_sorted_packed_without_state(example: LayerExample) -> None:
    layer, x, n = made(example), numbers(5, 3, D), torch.tensor([5, 4, 1])
    y, last = layer(pack_padded_sequence(x, n))
    expected, end = layer(x, None, n)
    close(pad_packed_sequence(y)[0], expected)
    close(last, end)


@over_layers
@pytest.mark.parametrize("lengths", [[4, 0, 2], torch.tensor([4, 0, 2]), torch.tensor([4, 0, 2], dtype=torch.int32)])
def test_lengths_of_every_kind(example: LayerExample, lengths: Any) -> None:
    layer, x = made(example), numbers(4, 3, D)
    close(layer(x, None, lengths), layer(x, None, torch.tensor([4, 0, 2])))
    close(layer(x, lengths=lengths), layer(x, None, torch.tensor([4, 0, 2])))


@over_layers
def test_a_copy_a_dtype_and_other_weights(example: LayerExample) -> None:
    layer, x = made(example), numbers(4, 3, D)
    y, state = layer(x)
    close(copy.deepcopy(layer)(x), (y, state))
    single = copy.deepcopy(layer).float()(x.float())
    torch.testing.assert_close(single[0].double(), y, rtol=1e-4, atol=1e-4)
    other = {name: p.detach() * 0.5 for name, p in layer.named_parameters()}
    halved = copy.deepcopy(layer)
    halved.load_state_dict(other, strict=False)
    close(torch.func.functional_call(layer, other, (x,)), halved(x))
    close(layer(x), (y, state))


@over_layers
def test_changed_weights_are_seen(example: LayerExample) -> None:
    layer, x = made(example), numbers(4, 3, D)
    y, _ = layer(x)
    for p in layer.parameters():
        p.data.mul_(2)
    expected = copy.deepcopy(layer)(x)
    close(layer(x), expected)
    assert not torch.allclose(expected[0], y)


@over_layers
def test_gradients_reach_everything(example: LayerExample) -> None:
    layer = made(example)
    x, state = numbers(4, 3, D).requires_grad_(), tree_map(Tensor.requires_grad_, states_of(layer, 3))
    y, last = layer(x, state, [4, 2, 1])
    sums = [y.square().sum()]
    tree_map(lambda s: sums.append(s.square().sum()), last)
    torch.stack(sums).sum().backward()
    assert x.grad is not None and x.grad[0].abs().min() > 0
    tree_map(lambda s: _has_gradient(s), state)
    unused = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in unused if not name.endswith("h0")] == []  # a state was given: the learned one is not read


def _has_gradient(tensor: Tensor) -> None:
    assert tensor.grad is not None and tensor.grad.any()


# ------------------------------------------------------------------------------------------------------------ Recurrent


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


# -------------------------------------------------------------------------------------------------------------- compose


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


# ------------------------------------------------------------------------------------------------------------ bad input

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


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_share_no_memory(kind):
    """Clipping scales gradients in place: one tensor for two biases would be scaled twice."""
    ours, theirs = getattr(recurra, kind)(5, 6), getattr(torch.nn, kind)(5, 6)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 3, 5)
    for layer in (ours, theirs):
        layer(x)[0].sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
    assert len({p.grad.data_ptr() for p in ours.parameters()}) == len(list(ours.parameters()))
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad)

"""The laws of the layers, for every layer."""

import copy
import inspect
from functools import partial
from typing import Any

import pytest
import torch
from checks import alike, flip, numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map

import recurra
from examples import LAYERS, LayerExample
from recurra import Bidirectional, InputError, Residual, Stack, layers

D = 5
over_layers = pytest.mark.parametrize("example", LAYERS, ids=str)
ragged = st.lists(st.integers(0, 5), min_size=1, max_size=4)
close = partial(alike, exact=1e-11)
few = settings(max_examples=10)
pytestmark = pytest.mark.usefixtures("strict")  # a fall-back to scan is an error here


def made(example: LayerExample, batch_first: bool = False, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return example.make(D, batch_first).double()


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


def reads_the_future(example: LayerExample) -> bool:
    modules = example.make(D, False).modules()
    return any(isinstance(m, Bidirectional) or getattr(m, "bidirectional", False) for m in modules)


def test_every_layer_is_in_the_list_of_examples() -> None:
    listed = {type(module) for e in LAYERS for module in e.make(D, False).modules()}
    named = [getattr(layers, name) for name in layers.__all__]
    public = {c for c in named if inspect.isclass(c) and issubclass(c, nn.Module) and c is not layers.Layer}
    assert public <= listed


@pytest.mark.parametrize("example", [e for e in LAYERS if not reads_the_future(e)], ids=str)
@few
@given(cut=st.integers(1, 5))
def test_cutting_a_sequence_changes_nothing(example: LayerExample, cut: int) -> None:
    layer, x = made(example), numbers(6, 2, D)
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


@over_layers
@pytest.mark.parametrize(
    ("value", "told"), [("no", "'no'"), (1, "1"), (None, "a NoneType"), (torch.tensor(True), "a Tensor")]
)
def test_reverse_is_true_or_false(example: LayerExample, value: Any, told: str) -> None:
    with pytest.raises(InputError) as refused:
        made(example)(numbers(4, 3, D), reverse=value)
    assert str(refused.value) == f"reverse is {told}, but answers yes or no. Pass reverse=True or reverse=False."


def test_of_functions_too_and_batch_first() -> None:
    cell, x = recurra.cells.GRU(D, 4), torch.zeros(2, 3, D)
    for call in (recurra.scan, recurra.unroll):
        with pytest.raises(
            InputError, match=r"^reverse is 'no', but answers yes or no\. Pass reverse=True or reverse=F"
        ):
            call(cell, x, reverse="no")
    with pytest.raises(InputError) as refused:
        recurra.Recurrent(cell, batch_first="no")  # type: ignore[arg-type]
    assert str(refused.value) == (
        "batch_first is 'no', but answers yes or no. Pass batch_first=True or batch_first=False."
    )

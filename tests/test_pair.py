"""The two directions of a bidirectional layer side by side: the same bits, where it is done, and where it is not."""

from collections.abc import Callable, Iterator

import pytest
import torch
from checks import few_lengths, needs_machine, weighed
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import Bidirectional, Recurrent, Stack, cells, explain
from recurra.unroll import door

pytestmark = [needs_machine, pytest.mark.tsan, pytest.mark.usefixtures("poisoned")]

T, B, D = 9, 3, 4
X = torch.randn(T, B, D, generator=torch.Generator().manual_seed(0))
Layer = nn.Module
BOTH = [e for e in LAYERS if e.name in ("RNN deep", "LSTM deep", "LSTM projected", "GRU deep", "Bidirectional")]


@pytest.fixture(autouse=True)
def _unwritten_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], list[Tensor]]], list[Tensor]]:
    """Runs something with one direction after the other."""

    def run(what: Callable[[], list[Tensor]]) -> list[Tensor]:
        with monkeypatch.context() as patch:
            patch.setattr(door, "pays", lambda one, two: False)
            return what()

    return run


def lstm() -> recurra.LSTM:
    return recurra.LSTM(D, 5, bidirectional=True)


def beside(layer: Layer, *args: object, **given: object) -> list[bool]:
    """Of each pass through the door, whether another ran beside it."""
    torch.manual_seed(1)
    return [v.beside for v in explain(layer, *args, **given).visits]


def results(layer: Layer, x: Tensor = X, **given: object) -> list[Tensor]:
    """Outputs and last states, without a gradient too, and every gradient; masks that are drawn are the same."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y, last = layer(x, **given)
    with torch.no_grad():
        torch.manual_seed(1)
        without = layer(x, **given)
    got = [y, *tree_leaves(last)]
    wanted = [x, *layer.parameters()]
    # all is read by somebody else too: the order in which its gradients add up shows in the bits
    others = sum(t.exp().sum() for t in wanted)
    gradients = torch.autograd.grad(weighed(*got) + others, wanted)
    return [*got, *tree_leaves(without), *gradients]


def assert_same(mine: list[Tensor], others: list[Tensor]) -> None:
    for a, b in zip(mine, others, strict=True):
        assert torch.equal(a, b) and not a.isnan().any()


def both_ways(example: CellExample) -> Bidirectional:
    torch.manual_seed(0)
    return Bidirectional(Recurrent(example.make(D, 5)), Recurrent(example.make(D, 5)))


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_side_by_side_gives_the_bits_of_one_after_the_other(example: CellExample, lengths: bool, in_turn) -> None:
    layer = both_ways(example)
    given = {"lengths": few_lengths(T, B)} if lengths else {}
    assert all(beside(layer, X, **given))
    together = results(layer, **given)
    assert_same(together, in_turn(lambda: results(layer, **given)))
    torch.set_num_threads(1)
    assert not any(beside(layer, X, **given))
    assert_same(together, results(layer, **given))


def test_of_one_layer_in_both_directions(in_turn) -> None:
    same = Recurrent(cells.GRU(D, 5))
    layer = Bidirectional(same, same)
    assert all(beside(layer, X))
    assert_same(results(layer), in_turn(lambda: results(layer)))


def resets() -> Tensor:
    marks = torch.zeros(T, B, dtype=torch.bool)
    marks[4, 0] = marks[2, 1] = True
    return marks


@pytest.mark.parametrize("example", BOTH, ids=str)
def test_of_layers_with_states_lengths_and_resets_too(example: LayerExample, in_turn) -> None:
    torch.manual_seed(0)
    layer = example.make(D, False)
    _, state = layer(X.flip(0))
    given = {"lengths": few_lengths(T, B)}
    for more in ({}, {"resets": resets() & (torch.arange(T)[:, None] < given["lengths"])}):
        calls = [{**given, **more}]
        states = [s.detach() for s in tree_leaves(state)]
        calls.append({"hx" if isinstance(layer, nn.RNNBase) else "state": _like(state, states), **more})
        for call in calls:
            assert all(beside(layer, X, **call))
            assert_same(results(layer, **call), in_turn(lambda call=call: results(layer, **call)))


def _like(state: object, leaves: list[Tensor]) -> object:
    return torch.utils._pytree.tree_unflatten(leaves, torch.utils._pytree.tree_structure(state))


def test_of_packed_rows_of_one_sequence_and_of_layers_in_layers() -> None:
    deep = Stack([both_ways(CELLS[0]), Bidirectional(Recurrent(cells.GRU(10, 3)))])
    packed = pack_padded_sequence(X, [T, T - 2, 1])
    for layer, x in ((deep, X), (deep, packed), (deep, X[:, 0]), (lstm(), packed), (lstm(), X[:, 0])):
        assert all(beside(layer, x))


@pytest.mark.parametrize("half", ["ahead", "back"])
def test_what_nobody_read_has_no_gradient(half: str, in_turn) -> None:
    layer = both_ways(CELLS[0])

    def gradients() -> list[Tensor | None]:
        x = X.clone().requires_grad_()
        y, _ = layer(x)
        read = y.detach().clone()
        layer.zero_grad()
        with torch.enable_grad():
            _, (ahead, back) = layer(x)
        (ahead if half == "ahead" else back).sum().backward()
        return [read, x.grad, *[p.grad for p in layer.parameters()]]

    mine, others = gradients(), in_turn(gradients)
    assert [g is None for g in mine] == [g is None for g in others]
    assert any(g is None for g in mine)
    assert_same([g for g in mine if g is not None], [g for g in others if g is not None])


def test_derivatives_of_derivatives_and_gradients_in_batches(in_turn) -> None:
    layer = both_ways(CELLS[5]).double()

    def second() -> list[Tensor]:
        x = X.double().requires_grad_()
        y, _ = layer(x)
        (d,) = torch.autograd.grad(weighed(y), x, create_graph=True)
        again = torch.autograd.grad(d.square().sum(), [x, *layer.parameters()], retain_graph=True)
        batch = torch.stack([torch.ones_like(y), y.detach()])
        return [d, *again, *torch.autograd.grad(y, x, batch, is_grads_batched=True)]

    assert_same([t.detach() for t in second()], [t.detach() for t in in_turn(second)])


def test_a_graph_is_walked_twice() -> None:
    layer, x = lstm(), X.clone().requires_grad_()
    y, _ = layer(x)
    first = torch.autograd.grad(weighed(y), [x, *layer.parameters()], retain_graph=True)
    assert_same(list(first), list(torch.autograd.grad(weighed(y), [x, *layer.parameters()])))


def nothing(*_: object) -> None: ...


def hooked() -> Bidirectional:
    layer = both_ways(CELLS[0])
    layer.back.register_forward_hook(nothing)
    return layer


def overridden() -> Bidirectional:
    layer = both_ways(CELLS[0])
    layer.ahead.forward = layer.ahead.forward  # somebody's own, for all that the layer knows
    return layer


def frozen() -> Bidirectional:
    layer = both_ways(CELLS[0])
    layer.back.requires_grad_(False)
    return layer


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (hooked, X),
        (overridden, X),
        (frozen, X),
        (lambda: Bidirectional(Stack([Recurrent(cells.GRU(D, 3))])), X),
        (lambda: Bidirectional(recurra.GRU(D, 3)), X),
        (lstm, torch.zeros(T, 8, D)),
        (lstm, torch.zeros(2, B, D)),
        (lambda: Bidirectional(Recurrent(cells.LSTM(D, 3))), torch.zeros(0, B, D)),
        (lambda: Bidirectional(Recurrent(cells.LSTM(D, 3))), torch.zeros(T, 0, D)),
        (lambda: recurra.LSTM(D, 256, bidirectional=True), X),
    ],
    ids="hook, forward, frozen, stack, layer, many sequences, few rows, no step, no sequence, large weights".split(
        ", "
    ),
)
def test_otherwise_one_runs_after_the_other(make: Callable[[], Layer], x: Tensor) -> None:
    assert not any(beside(make(), x))


def test_more_threads_are_better_at_all_but_a_small_loop() -> None:
    torch.set_num_threads(4)
    assert all(beside(recurra.LSTM(64, 64, bidirectional=True), torch.zeros(T, 1, 64)))
    for width, hidden, batch in ((64, 64, 2), (256, 64, 1), (96, 96, 1)):
        assert not any(beside(recurra.LSTM(width, hidden, bidirectional=True), torch.zeros(T, batch, width)))


def test_recording_shows_what_it_shows_of_one_after_the_other(in_turn) -> None:
    layer = both_ways(CELLS[5])

    def seen() -> list[Tensor]:
        with layer.record("i") as record:
            y, _ = layer(X)
        return [y, *record.values()]

    mine = seen()
    assert len(mine) == 3
    assert_same(mine, in_turn(seen))
    with torch.no_grad():
        assert_same(mine, seen())


def test_transforms_run_in_pytorch() -> None:
    layer = lstm()
    rows = torch.func.vmap(lambda x: layer(x)[0])(X[None])
    torch.testing.assert_close(rows[0], layer(X)[0])


def test_explain_says_so() -> None:
    told = str(explain(lstm(), X)).splitlines()
    assert told[0].endswith(f"T = {T}, B = {B}: native machine, 1 thread, beside the other direction")

"""The laws of every precision, with one table of tolerances (precisions.py); what it is told of; what it refuses."""

import copy
import functools
from typing import Any

import pytest
import torch
from checks import contracting, few_lengths, filled, needs_machine, weighed
from precisions import Precision, named, off, over_graded, over_narrow, over_precisions
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import Cell, InputError, Recurrent, Session, cells, scan, strict
from recurra.unroll import Call, answer, visits

pytestmark = needs_machine

T, B, D, H = 6, 4, 7, 24
States = tuple[Tensor, ...]


@functools.cache
def made(example: CellExample, dtype: torch.dtype) -> Cell:
    """One cell for all tests, traced once; no test writes to it."""
    torch.manual_seed(0)
    return contracting(example.make(D, H)).to(dtype)


@functools.cache
def given(example: CellExample) -> tuple[Tensor, States, Tensor]:
    """x, states that the cell can be in, and marks of new sequences.

    With these numbers no rounding takes what a relu is of across zero, where its derivative is another.
    """
    torch.manual_seed(2 if example.name == "IndRNN" else 1)
    _, states = scan(made(example, torch.float32), torch.randn(3, B, D))
    return torch.randn(T, B, D), tuple(s.detach() for s in states), torch.rand(T, B) < 0.3


def everything(example: CellExample, dtype: torch.dtype, reverse: bool, name: str | None) -> tuple[list[Tensor], Any]:
    """Outputs and last states; and every gradient. Marked and forwards, or of unequal lengths and backwards."""
    cell, (x, states, resets) = made(example, dtype), given(example)
    x, states = x.to(dtype).requires_grad_(), tuple(s.to(dtype).requires_grad_() for s in states)
    x = x.clone()
    lengths = few_lengths(T, B) if reverse else None
    more = {} if name is None else {"precision": name}
    run: Any = scan if name is None else recurra.unroll
    torch.manual_seed(1)
    with torch.set_grad_enabled(name != "int8"):
        y, last = run(cell, x, states, lengths, reverse, resets=None if reverse else resets, **more)
    if name == "int8":
        return [y, *last], []
    wanted = [x, *states, *cell.parameters()]
    return [y, *last], filled(wanted, torch.autograd.grad(weighed(y, *last), wanted, allow_unused=True))


@functools.cache
def truth(example: CellExample, reverse: bool) -> tuple[list[Tensor], Any]:
    """What scan gives in fp64."""
    return everything(example, torch.float64, reverse, None)


@over_precisions
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_every_cell_is_scan(example: CellExample, precision: Precision) -> None:
    if precision.name in ("fp32", "fp64") and CELLS.index(example) % 3:
        pytest.skip("test_exactness.py has every cell as its weights are")
    for reverse in (False, True):
        with strict(), visits() as seen:
            outputs, gradients = everything(example, precision.dtype, reverse, precision.name)
        assert {v.executor for v in seen} == {"native machine"}
        exact, exact_gradients = truth(example, reverse)
        assert max(map(off, outputs, exact)) <= precision.output
        if precision.gradient is not None:
            assert max(map(off, gradients, exact_gradients)) <= precision.gradient
        if precision.name not in ("fp32", "fp64"):  # it did compute in another way
            plain, _ = everything(example, precision.dtype, reverse, "fp32")
            assert not all(map(torch.equal, outputs, plain))


@over_narrow
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_same_bits_whole_in_parts_in_any_batch_and_in_a_session(example: CellExample, precision: Precision) -> None:
    cell, (x, states, _) = made(example, torch.float32), given(example)

    def run(t: slice, b: slice, first: States) -> tuple[Tensor, States]:
        found = recurra.unroll(cell, x[t, b], tuple(s[b] for s in first), precision=precision.name)
        return found[0], found[1]

    every = slice(None)
    with torch.no_grad(), strict():
        y, last = run(every, every, states)
        for b in (slice(0, 1), slice(1, 4)):
            alone, after = run(every, b, states)
            assert torch.equal(alone, y[:, b]) and all(map(torch.equal, after, (s[b] for s in last)))
        now, ys = states, []
        for t in (slice(0, 1), slice(1, 4), slice(4, 6)):
            part, now = run(t, every, now)
            ys.append(part)
        assert torch.equal(torch.cat(ys), y) and all(map(torch.equal, now, last))
    if not cell.side_sizes and not cell.call_weights():
        session = Session(Recurrent(cell, precision=precision.name), state=states if len(states) > 1 else states[0])
        assert torch.equal(torch.stack([session.step(row).clone() for row in x]), y)


@over_graded
@pytest.mark.parametrize("example", CELLS[::4], ids=str)
def test_a_root_of_the_memory_has_the_same_results(example: CellExample, precision: Precision) -> None:
    cell, (x, states, _) = made(example, precision.dtype), given(example)
    x, states = x.to(precision.dtype), tuple(s.to(precision.dtype) for s in states)
    found = []
    for thrifty in (False, True):
        torch.manual_seed(1)
        y, last = answer(Call(cell, x, states, few_lengths(T, B), precision=precision.name, thrifty=thrifty))
        wanted = list(cell.parameters())
        gradients = torch.autograd.grad(weighed(y, *last), wanted, allow_unused=True)
        found.append(([y, *last], filled(wanted, gradients)))
    assert all(map(torch.equal, found[1][0], found[0][0]))
    assert max(map(off, found[1][1], found[0][1])) <= (precision.gradient or 0)


@over_graded
@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_every_layer_packed_and_recorded(example: LayerExample, precision: Precision) -> None:
    layer = example.make(D, False).to(precision.dtype)
    x = torch.randn(T, 2, D, dtype=precision.dtype)
    exact = named(copy.deepcopy(layer), None).double()
    named(layer, precision.name)
    packed = pack_padded_sequence(x, [T, 2])
    with strict(), layer.record("output") as seen, exact.record("output") as truly:
        y, _ = layer(packed)
        true, _ = exact(pack_padded_sequence(x.double(), [T, 2]))
    gradients = torch.autograd.grad(weighed(y.data), list(layer.parameters()), allow_unused=True)
    expected = torch.autograd.grad(weighed(true.data), list(exact.parameters()), allow_unused=True)
    assert off(y.data, true.data) <= precision.output
    assert all(off(seen[key].data, truly[key].data) <= precision.output for key in truly)
    deep = 4  # the errors of layers add up
    assert max(off(a, b) for a, b in zip(gradients, expected) if b is not None) <= deep * (precision.gradient or 0)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@over_graded
def test_bf16_is_no_worse_than_torchs_autocast(kind: str, precision: Precision) -> None:
    if precision.name != "bf16":
        pytest.skip("of bf16 alone")
    theirs = getattr(nn, kind)(128, 256)
    ours, exact = getattr(recurra, kind)(128, 256, precision="bf16"), copy.deepcopy(theirs).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(16, 32, 128)

    def numbers(layer: nn.Module, x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        y = layer(x)[0]
        gradients = torch.autograd.grad(weighed(y.to(exact.weight_ih_l0.dtype)), [x, *layer.parameters()])
        return [y, *gradients]

    truth, mine = numbers(exact, x.double()), numbers(ours, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other = numbers(theirs, x)
    for a, b, t in zip(mine, other, truth, strict=True):
        assert off(a, t) <= min(1e-2, off(b.float(), t))


# ---- dtypes


@pytest.mark.parametrize("make", [lambda: recurra.LSTM(3, 4), lambda: Recurrent(cells.LSTM(3, 4))])
def test_weights_keep_their_dtype_and_results_have_that_of_x(make: Any) -> None:
    layer, x = make(), torch.randn(5, 2, 3, requires_grad=True)

    def results(name: str | None, x: Tensor, one: nn.Module) -> list[Tensor]:
        named(one, name)
        with strict(), one.record("c") as seen:
            y, (h, c) = one(x)
        gradients = torch.autograd.grad(weighed(y, h, c), [x, *one.parameters()])
        return [y, h, c, seen["c"], *gradients]

    twice = copy.deepcopy(layer).double()
    exact, wide = results(None, x.detach().double().requires_grad_(), twice), results("fp64", x, layer)
    assert all(t.dtype is torch.float32 for t in wide)
    assert all(off(a, b) < 1e-7 for a, b in zip(wide[:4], exact[:4], strict=True))  # rounded once
    narrow, plain = results("fp32", x.detach().double().requires_grad_(), twice), results("fp32", x, layer)
    assert all(t.dtype is torch.float64 for t in narrow)
    assert all(torch.equal(a.float(), b) for a, b in zip(narrow, plain, strict=True))
    assert all(map(torch.equal, plain, results(None, x, layer)))
    half = copy.deepcopy(layer).bfloat16()  # which the machine computes in no other way
    assert results("fp32", x.detach().bfloat16().requires_grad_(), half)[0].dtype is torch.bfloat16


def test_weights_that_stand_in_copies_and_functional_calls() -> None:
    for name in ("bf16", "fp64"):
        layer = Recurrent(cells.GRU(3, 4), precision=name)
        x, other = torch.randn(5, 2, 3), {k: 0.5 * p.detach() for k, p in layer.named_parameters()}
        twin = copy.deepcopy(layer)
        assert repr(twin) == repr(layer) and f"precision='{name}'" in repr(layer)
        assert torch.equal(twin(x)[0], layer(x)[0])
        called = torch.func.functional_call(layer, other, (x,))[0]
        stood = recurra.unroll(layer.cell, x, weights={k[5:]: w for k, w in other.items()}, precision=name)[0]
        twin.load_state_dict(other)
        assert torch.equal(called, twin(x)[0]) and torch.equal(stood, called)
    assert repr(recurra.LSTM(3, 4, memory="sqrt", precision="bf16")) == "LSTM(3, 4, memory='sqrt', precision='bf16')"


def test_a_session_in_another_precision_than_its_layer() -> None:
    layer, x = (
        recurra.Stack([recurra.LSTM(3, 4, 2), recurra.Residual(Recurrent(cells.GRU(4, 4)))]),
        torch.randn(5, 2, 3),
    )
    for name in ("fp64", "bf16"):
        session = Session(layer, precision=name)
        ys = torch.stack([session.step(row).clone() for row in x])
        expected, last = named(copy.deepcopy(layer), name)(x)
        assert torch.equal(ys, expected) and session.error is None and session.precision == name
        again = copy.deepcopy(session)
        assert torch.equal(again.step(x[0]), session.step(x[0]))
        assert all(t.dtype is torch.float32 for t in torch.utils._pytree.tree_leaves(session.state))
        session.refresh()
        session.state = last
        y = session.step(x[0]).clone()
        assert torch.equal(named(copy.deepcopy(layer), name)(x[:1], last)[0][0], y)
    with strict(), pytest.raises(InputError, match="this session's layer takes"):
        Session(layer, precision="bf16").step(torch.randn(1, 4))


def test_second_derivatives_are_taken_in_fp32() -> None:
    cell, x = cells.LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)

    def twice(name: str) -> list[Tensor]:
        y, _ = recurra.unroll(cell, x, precision=name)
        (d,) = torch.autograd.grad(weighed(y), x, create_graph=True)
        return [d, *torch.autograd.grad(d.square().sum(), [x, *cell.parameters()])]

    with strict():
        for a, b in zip(twice("bf16"), twice("fp64"), strict=True):
            assert a.dtype is torch.float32 and off(a, b) <= 2e-2


@pytest.mark.parametrize("example", CELLS[::3], ids=str)
def test_function_transforms_in_bf16(example: CellExample) -> None:
    cell, (x, states, _) = made(example, torch.float32), given(example)

    def loss(x: Tensor) -> Tensor:
        return weighed(recurra.unroll(cell, x, states, precision="bf16")[0])

    torch.manual_seed(1)
    with visits() as seen:
        found = torch.func.grad(loss)(x)
    assert [v.executor for v in seen] == ["PyTorch"] and seen[0].reason.endswith("bf16 is PyTorch's autocast there")
    torch.manual_seed(1)
    (expected,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    x.requires_grad_(False)
    assert found.dtype is torch.float32 and off(found, expected) < 0.05

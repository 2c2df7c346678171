"""Under autocast to bfloat16 a layer runs in bf16 on the native machine, with the dtypes of scan, or of torch.nn.

Any other autocast is left to scan, or to torch.nn, and said.
"""

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from checks import few_lengths, needs_machine, numbers, weighed
from drop_in import D, over_names, pair, told_by
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import recurra
from examples import CELLS, CellExample
from recurra import Recurrent, StrictError, cells, explain, scan, strict
from recurra.unroll import visits

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def autocast(dtype: torch.dtype = BF16) -> torch.autocast:
    return torch.autocast("cpu", dtype=dtype)


def tensors(found: Any) -> list[Tensor]:
    """y and the states; the rows of what is packed."""
    y, last = found
    return [y.data if isinstance(y, PackedSequence) else y, *(last if isinstance(last, tuple) else (last,))]


def states_of(layer: torch.nn.RNNBase, B: int, dtype: torch.dtype) -> Any:
    """First states for the layer."""
    rows = layer.num_layers * (1 + layer.bidirectional)
    h, c = (torch.randn(rows, B, n, dtype=dtype) for n in (layer.proj_size or layer.hidden_size, layer.hidden_size))
    return (h, c) if layer.mode == "LSTM" else h


# ---- drop-in layers


@needs_machine
@over_names
@pytest.mark.parametrize(
    "more", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}, {"batch_first": True}]
)
def test_dtypes_are_those_of_torch(name: str, more: dict[str, Any]) -> None:
    if "proj_size" in more and name != "LSTM":
        pytest.skip("torch.nn projects LSTMs only")
    theirs, ours = pair(name, dtype=FP32, **more)
    first = bool(more.get("batch_first"))
    for packed, dtype, state in itertools.product((None, [5, 5], [5, 1], [1, 1]), (FP32, BF16), (None, BF16)):
        x: Any = torch.randn(*((2, 5) if first else (5, 2)), D, dtype=dtype)
        x = x if packed is None else pack_padded_sequence(x, packed, batch_first=first)
        hx = None if state is None else states_of(theirs, 2, state)
        with autocast():
            with strict(), visits() as seen:
                a, b = tensors(ours(x, hx)), tensors(theirs(x, hx))
            assert {(v.executor, v.precision) for v in seen} == {("native machine", "bf16")}
        assert [t.dtype for t in a] == [t.dtype for t in b], (packed, dtype, state)
        for mine, other in zip(a, b, strict=True):
            assert mine.shape == other.shape
            assert float((mine.float() - other.float()).abs().max()) < 0.03


@needs_machine
@over_names
def test_gradients_have_the_dtypes_of_what_they_are_of(name: str) -> None:
    theirs, ours = pair(name, dtype=FP32)
    x = torch.randn(5, 2, D, dtype=BF16, requires_grad=True)
    wanted = [x, *ours.parameters()]
    with autocast():
        found = torch.autograd.grad(weighed(*tensors(ours(x))), wanted)
        expected = torch.autograd.grad(weighed(*tensors(theirs(x))), [x, *theirs.parameters()])
    for d, other in zip(found, expected, strict=True):
        assert d.dtype is other.dtype
        assert float((d.float() - other.float()).abs().max()) <= 0.05 * float(other.abs().max())


@needs_machine
def test_more_than_torch_has_runs_in_bf16_too() -> None:
    layer, x = recurra.GRU(3, 4), torch.randn(6, 2, 3)
    resets = torch.zeros(6, 2, dtype=torch.bool)
    resets[3] = True
    for given in ({"lengths": [6, 2]}, {"reverse": True}, {"resets": resets}):
        exact = layer(x, **given)
        with autocast(), strict():
            found = layer(x, **given)
            assert explain(layer, x, **given).visits[0].precision == "bf16"
        for a, b in zip(tensors(found), tensors(exact), strict=True):
            assert 0 < float((a - b).abs().max()) < 1e-2


@needs_machine
def test_a_precision_of_its_own_is_stronger_than_autocast() -> None:
    layer, x = recurra.LSTM(3, 4, 2, precision="fp32"), torch.randn(6, 2, 3)
    cell = Recurrent(cells.LSTM(3, 4), precision="fp32")
    for one in (layer, cell):
        expected = tensors(one(x))
        with autocast(), strict():
            assert all(torch.equal(a, b) for a, b in zip(tensors(one(x)), expected, strict=True))
            assert tensors(one(x.bfloat16()))[0].dtype is BF16


@over_names
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("dtype", "weights"), [(FP16, FP32), (BF16, torch.float64)])
def test_what_the_machine_lacks_is_left_to_torch_and_said(
    name: str, batch_first: bool, dtype: torch.dtype, weights: torch.dtype
) -> None:
    theirs, ours = pair(name, dtype=weights, batch_first=batch_first)
    x = torch.randn(4, 2, D, dtype=weights)
    if weights is torch.float64:  # which autocast does not touch, and torch.nn does not mix
        assert told_by(lambda: theirs(x)) is None
    packed = pack_padded_sequence(x, [2] * 4 if batch_first else [4] * 2, batch_first=batch_first)
    with autocast(dtype):
        for given in (x, packed):
            expected, found = (told_by(partial(layer, given)) for layer in (theirs, ours))
            assert found == expected
            if expected is not None:
                continue
            a, b = (tensors(layer(given))[0] for layer in (ours, theirs))
            assert a.dtype is b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)
            told = recurra.explain(ours, given)
            assert set(told.executors) == {"torch.nn"} and "autocast is on" in str(told)
            with recurra.strict(), pytest.raises(StrictError, match="autocast is on"):
                ours(given)


@over_names
@pytest.mark.parametrize("shape", [(), (D,), (1, 2, 3, D)])
def test_calls_fail_alike_under_autocast(name: str, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float64, FP32):
        theirs, ours = pair(name, dtype=dtype)
        with autocast():
            x = numbers(*shape).to(dtype)
            expected, found = (told_by(partial(layer, x)) for layer in (theirs, ours))
        assert expected is not None and found == expected


# ---- a cell of anyone's


def by_scan(cell: recurra.Cell, *given: Any, **more: Any) -> list[torch.dtype] | None:
    """The dtypes of what scan gives under autocast; None where it raises, as lerp does for two dtypes."""
    try:
        with autocast(), torch.no_grad():
            y, last = scan(cell, *given, **more)
    except RuntimeError:
        return None
    return [t.dtype for t in (y, *last)]


@needs_machine
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_dtypes_are_those_of_scan(example: CellExample) -> None:
    cell = example.make(3, 4)
    kinds = itertools.product(((1, None), (4, None), (4, few_lengths(4, 3))), (FP32, BF16), (None, BF16))
    for (T, ends), dtype, states in kinds:
        x = torch.randn(T, 3, 3, dtype=dtype)
        first = None if states is None else tuple(torch.rand(3, n).add(1).to(states) for n in cell.state_sizes.values())
        torch.manual_seed(1)
        wanted = by_scan(cell, x, first, ends)
        torch.manual_seed(1)
        with autocast(), strict(), torch.no_grad(), visits() as seen:
            found = recurra.unroll(cell, x, first, ends)
        assert [(v.executor, v.precision) for v in seen] == [("native machine", "bf16")]
        dtypes = [t.dtype for t in (found[0], *found[1])]
        assert dtypes == (wanted or [dtype] * len(dtypes)), (T, dtype, states, ends)
        torch.manual_seed(1)
        exact = scan(cell, x.float(), None if first is None else tuple(s.float() for s in first), ends)
        for a, b in zip((found[0], *found[1]), (exact[0], *exact[1]), strict=True):
            assert float((a.float() - b).abs().max()) <= 0.03 * max(1.0, float(b.abs().max()))


@needs_machine
def test_looking_for_dtypes_leaves_no_trace() -> None:
    """Random numbers stay where they are, and autocast keeps no cast weight that has lost its gradient."""
    cell, layer = cells.LSTM(3, 4), recurra.GRU(3, 9)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with autocast(), strict():
        for one in (Recurrent(cell), layer):
            one(torch.zeros(2, 1, 3))
        y = torch.nn.functional.linear(torch.ones(1, 3), cell.weight_ih)
    assert torch.equal(torch.rand(2), expected)
    assert torch.autograd.grad(y.sum(), cell.weight_ih)[0].abs().sum() > 0


def test_steps_that_only_python_can_run_stay_on_scan_as_they_came() -> None:
    seen = []

    class Looking(cells.Elman):
        def step(self, x: Tensor, h: Tensor) -> Tensor:
            seen.append(x.dtype)
            return super().step(x, h)

    layer, x = Recurrent(Looking(3, 4)), torch.randn(2, 1, 3, dtype=BF16)
    with autocast():
        told = explain(layer, x)
        seen.clear()
        layer(x)
    assert told.executors == ("scan",) and seen == [BF16, BF16]
    with autocast(FP16):
        told = explain(Recurrent(cells.Elman(3, 4)), x.float())
    assert told.executors == ("scan",) and "autocast is on" in str(told)


@needs_machine
def test_backward_inside_autocast_and_derived_again() -> None:
    cell, x = cells.LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)

    def twice() -> list[Tensor]:
        y, _ = recurra.unroll(cell, x)
        (d,) = torch.autograd.grad(weighed(y.float()), x, create_graph=True)
        return [d.detach(), *torch.autograd.grad(d.square().sum(), [x, *cell.parameters()])]

    exact = twice()
    with autocast(), strict():
        found = twice()
    for a, b in zip(found, exact, strict=True):
        assert a.dtype is FP32 and float((a - b).abs().max()) <= 0.05 * float(b.abs().max())

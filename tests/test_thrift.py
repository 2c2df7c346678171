"""memory="sqrt": the same results from a root of what the backward pass keeps."""

import pytest
import torch
from checks import alike, few_lengths, filled, needs_machine, weighed
from torch import Tensor

import recurra
from examples import CELLS, CellExample
from recurra import InputError, Recurrent, cells, explain
from recurra.machine.segments import segments
from recurra.program.layout import Layout
from recurra.unroll import Call, answer

pytestmark = [needs_machine, pytest.mark.usefixtures("poisoned")]

SIZES = [(17, 3), (10, 4), (2, 1), (1, 2), (0, 2), (3, 0)]  # (T, B)


def results(layer: torch.nn.Module, x: Tensor, **given: object) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and last states; and every gradient. Masks that are drawn are the same every time."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    got = torch.utils._pytree.tree_leaves(layer(x, **given))
    wanted = [x, *layer.parameters()]
    return got, filled(wanted, torch.autograd.grad(weighed(*got), wanted, allow_unused=True))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_the_same_results(example: CellExample, lengths: bool, reverse: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(example.make(4, 5).double())
    for T, B in SIZES:
        x = torch.randn(T, B, 4, dtype=torch.double)
        given = {"lengths": few_lengths(T, B)} if lengths and B <= 4 else {}
        layer.memory = "all"
        outputs, gradients = results(layer, x, reverse=reverse, **given)
        layer.memory = "sqrt"
        others, their_gradients = results(layer, x, reverse=reverse, **given)
        assert all(torch.equal(a, b) for a, b in zip(outputs, others, strict=True))
        alike(their_gradients, gradients, 1e-10)


def test_states_gradients_of_last_states_and_second_derivatives() -> None:
    torch.manual_seed(0)
    cell, x = cells.LSTM(4, 5).double(), torch.randn(11, 3, 4, dtype=torch.double)
    given = [torch.randn(3, 5, dtype=torch.double, requires_grad=True) for _ in range(2)]
    found = []
    for thrifty in (False, True):
        y, last = answer(Call(cell, x, tuple(given), thrifty=thrifty))
        d = torch.autograd.grad(weighed(y, *last), given, create_graph=True)
        found.append([*d, *torch.autograd.grad(weighed(*d), [*given, *cell.parameters()], retain_graph=True)])
    alike(found[1], found[0], 1e-10)


def test_packed_deep_recorded_and_in_both_directions() -> None:
    torch.manual_seed(0)
    x = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(9, 3, 4, dtype=torch.double), [9, 4, 1])
    layer = recurra.GRU(4, 5, 2, bidirectional=True, memory="sqrt").double()
    y, _ = layer(x)
    gradients = torch.autograd.grad(weighed(y.data), list(layer.parameters()))
    layer.memory = "all"
    expected, _ = layer(x)
    assert torch.equal(y.data, expected.data)
    alike(gradients, torch.autograd.grad(weighed(expected.data), list(layer.parameters())), 1e-10)
    wide = torch.randn(7, 2, 4, dtype=torch.double)
    shown = []
    for memory in ("sqrt", "all"):
        layer.memory = memory
        with layer.record("z") as seen:
            y, _ = layer(wide)
        loss = weighed(y, *seen.values())
        shown.append([y, *seen.values(), *torch.autograd.grad(loss, list(layer.parameters()))])
    alike(shown[0], shown[1], 1e-10)


@pytest.mark.parametrize("reverse", [False, True])
def test_segments_cover_every_row_once(reverse: bool) -> None:
    for layout in (Layout(10, 3, None, reverse), Layout(5, 4, (4, 2, 2, 1, 1), reverse), Layout(0, 2, None, reverse)):
        parts = segments(layout)
        rows = [r for _, part in (parts[::-1] if reverse else parts) for r in range(part.start, part.stop)]
        assert rows == list(range(layout.N)) and sum(p.T for p, _ in parts) == layout.T
        assert all(s.stop - s.start == p.N and p.reverse is reverse for p, s in parts)


def test_it_is_told_and_asked_for_by_name() -> None:
    layer = recurra.LSTM(256, 256, memory="sqrt")
    assert repr(layer) == "LSTM(256, 256, memory='sqrt')"
    x = torch.zeros(1024, 2, 256)
    assert 'kept for the backward pass: 459 KB (memory="all": 10.5 MB)' in str(explain(layer, x))
    layer.memory = "all"
    assert 'kept for the backward pass: 10.5 MB (memory="sqrt": 459 KB)' in str(explain(layer, x))
    told = r"memory is 'half', but is \"all\", to keep what .* or \"sqrt\", to compute it again"
    for make in (lambda: recurra.GRU(3, 4, memory="half"), lambda: Recurrent(cells.GRU(3, 4), memory="half")):
        with pytest.raises(InputError, match=told):
            make()
    layer.memory = "none"
    with pytest.raises(InputError, match="memory is 'none'"):
        layer(x)

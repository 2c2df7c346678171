"""The laws of cells for every regulariser, with masks as they are drawn, which differ; and where masks come from."""

from typing import Any

import pytest
import torch
from checks import random_lengths, weighed
from regularisers import MAKERS, B, D, Maker, T, equal, made, over_all, same, seeded, strictly
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import recurra
from recurra import scan, unroll
from recurra.machine import masks
from recurra.regularise.base import Regulariser
from recurra.unroll import visits

WITH_SIDES = {name: make for name, make in MAKERS.items() if name != "weights"}
over_sides = pytest.mark.parametrize("make", WITH_SIDES.values(), ids=WITH_SIDES)


@over_all
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("training", [True, False])
@strictly
def test_results_and_gradients_are_those_of_scan(make: Maker, lengths: bool, reverse: bool, training: bool) -> None:
    cell, x = made(make)
    cell.train(training)
    x.requires_grad_()
    long = random_lengths(T, B) if lengths else None
    found = []
    for run in (unroll, scan):
        y, last = seeded(run, cell, x, None, long, reverse)
        loss = weighed(y, *last)
        found.append([y, *last, *torch.autograd.grad(loss, [x, *cell.parameters()])])
    same(*found)


@over_all
@pytest.mark.parametrize("packed", [False, True])
@strictly
def test_resets_leave_the_masks_as_they_are(make: Maker, packed: bool) -> None:
    cell, x = made(make)
    resets = torch.rand(T, B) < 0.3
    wanted, _ = seeded(scan, cell, x, resets=resets)
    layer = recurra.Recurrent(cell)
    if packed:
        y, _ = seeded(layer, pack_padded_sequence(x, torch.full((B,), T)), resets=resets)
        y = pad_packed_sequence(y)[0]
    else:
        y, _ = seeded(layer, x, resets=resets)
    same(y, wanted)
    assert not torch.allclose(y, seeded(scan, cell, x)[0])


@over_all
@strictly
def test_every_call_draws_anew_from_pytorchs_generator(make: Maker) -> None:
    cell, x = made(make)
    first, second = seeded(unroll, cell, x), unroll(cell, x)
    assert not equal(first, second)
    assert equal(first, seeded(unroll, cell, x))
    cell.eval()
    state = torch.get_rng_state()
    unroll(cell, x)
    assert torch.equal(state, torch.get_rng_state())


@over_all
@strictly
def test_threads_padding_and_packing_change_nothing(make: Maker) -> None:
    cell, x = made(make, torch.float32)
    layer, lengths = recurra.Recurrent(cell), torch.tensor([3, T, 1, 5])
    whole, state = seeded(layer, x, lengths=lengths)
    torch.set_num_threads(1)
    assert torch.equal(whole, seeded(layer, x, lengths=lengths)[0])
    padded = torch.cat([x, torch.full((2, B, D), 9.0)])
    assert torch.equal(whole, seeded(layer, padded, lengths=lengths)[0][:T])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = seeded(layer, packed)
    assert torch.equal(whole, pad_packed_sequence(y)[0])
    for a, b in zip(*(s if isinstance(s, tuple) else (s,) for s in (state, last)), strict=True):
        assert torch.equal(a, b)


@over_all
def test_the_plain_loop_pads_packs_and_draws_alike(make: Maker) -> None:
    cell, x = made(make)
    layer, lengths = recurra.Recurrent(cell), torch.tensor([3, T, 1, 5])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    native, _ = seeded(layer, packed)
    with FunctionRecorder(), visits() as seen:  # an operation recorded by others runs on the plain loop
        plain, _ = seeded(layer, packed)
    assert [v.executor for v in seen] == ["scan"]
    same(native.data, plain.data)


class FunctionRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@over_sides
@strictly
def test_sequences_may_be_cut_and_permuted_with_their_masks(make: Maker) -> None:
    cell, x = made(make, torch.float32)
    weights = seeded(cell.call_weights) or None
    sides = cell.sides(x)
    whole = unroll(cell, x, weights=weights, sides=sides)
    first, state = unroll(cell, x[:3], weights=weights, sides=tuple(s[:3] for s in sides))
    second, last = unroll(cell, x[3:], state, weights=weights, sides=tuple(s[3:] for s in sides))
    assert equal(whole, (torch.cat([first, second]), last))
    order = torch.tensor([2, 0, 3, 1])
    y, last = unroll(cell, x[:, order], weights=weights, sides=tuple(s[:, order] for s in sides))
    assert equal((y, last), (whole[0][:, order], tuple(s[order] for s in whole[1])))


@pytest.mark.parametrize("make", [MAKERS[n] for n in ("zoneout", "variational", "recurrent")])
def test_a_later_piece_of_sequences_has_the_masks_of_its_steps(make: Maker) -> None:
    cell, x = made(make)
    assert isinstance(cell, Regulariser)
    key = masks.new_key()
    for whole, piece in zip(cell.masks(key, x), cell.masks(key, x[3:], first=3), strict=True):
        assert torch.equal(whole[3:], piece)


@over_all
@strictly
def test_a_recomputed_pass_sees_the_same_masks(make: Maker) -> None:
    cell, x = made(make)
    x.requires_grad_()
    found = []
    for run in (unroll, lambda *a: checkpoint(unroll, *a, use_reentrant=False)):
        y, _ = seeded(run, cell, x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *cell.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@over_all
def test_without_the_native_library_the_masks_are_the_same(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x = made(make)
    native = seeded(unroll, cell, x)
    monkeypatch.setattr(masks, "library", None)
    assert equal(native, seeded(unroll, cell, x))


@over_all
def test_vmap_draws_once_or_for_each(make: Maker) -> None:
    cell, x = made(make)
    many = torch.stack([x, x])
    for randomness in ("same", "different"):
        y = seeded(torch.func.vmap(lambda v: unroll(cell, v)[0], randomness=randomness), many)
        assert torch.allclose(y[0], y[1]) == (randomness == "same")
    one = seeded(unroll, cell, x)[0]
    same(seeded(torch.func.vmap(lambda v: unroll(cell, v)[0], randomness="same"), many)[0], one)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(lambda v: unroll(cell, v)[0])(many)

"""Under autocast the drop-in layers leave the call to torch.nn, and say so."""

import pytest
import torch
from checks import numbers
from drop_in import D, over_names, pair, told_by
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import recurra
from recurra import StrictError


@over_names
@pytest.mark.parametrize("batch_first", [False, True])
def test_autocast_is_left_to_torch_and_said(name: str, batch_first: bool) -> None:
    theirs, ours = pair(name, dtype=torch.float32, batch_first=batch_first)
    x = torch.randn(4, 2, D)
    packed = pack_padded_sequence(x, [2] * 4 if batch_first else [4] * 2, batch_first=batch_first)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, packed):
            a, b = (layer(given)[0] for layer in (ours, theirs))
            a, b = (y.data if isinstance(y, PackedSequence) else y for y in (a, b))
            assert a.dtype is b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)
            told = recurra.explain(ours, given)
            assert set(told.executors) == {"torch.nn"} and "autocast is on" in str(told)
            with recurra.strict(), pytest.raises(StrictError, match="autocast is on"):
                ours(given)


@over_names
@pytest.mark.parametrize("shape", [(), (D,), (1, 2, 3, D)])
def test_calls_fail_alike_under_autocast(name: str, shape: tuple[int, ...]) -> None:
    theirs, ours = pair(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = (told_by(lambda layer=layer: layer(numbers(*shape))) for layer in (theirs, ours))
    assert expected is not None and found == expected

"""Random masks: the numbers of SplitMix64, the same bits from both makers, the rate asked for, and no dependence."""

import pytest
import torch
from torch import Tensor

from recurra.machine.masks import dropout, in_pytorch, masks, new_key, number, row_seeds, rows_from
from recurra.machine.program import available

KEY = torch.tensor(-4_611_686_018_427_387_847)
T, B, N = 40, 32, 100


def seeds(key: Tensor = KEY, stream: int = 0, start: int = 0) -> Tensor:
    """(T, B), beginning at the step `start`."""
    return row_seeds(key, stream, torch.arange(start, start + T)[:, None], torch.arange(B))


def dropped(seeds: Tensor, rate: float = 0.3, width: int = N) -> Tensor:
    return masks(seeds, width, rate, 1.0, 0.0, torch.float32)


def test_the_numbers_are_those_of_splitmix64() -> None:
    # the first five of the seed 1234567, https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [n % 2**64 for n in number(torch.tensor(1234567), torch.arange(5)).tolist()] == wanted


@pytest.mark.skipif(bool(available()), reason="no native machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 7, 256])
@pytest.mark.parametrize("rate", [0.0, 1e-12, 0.25, 0.999999999999])
def test_both_makers_give_the_same_bits(dtype: torch.dtype, width: int, rate: float) -> None:
    drawn = row_seeds(KEY, 3, torch.arange(9)[:, None], torch.arange(5))
    one, other = (f(drawn, width, rate, 0.0, 4 / 3, dtype) for f in (masks, in_pytorch))
    assert one.shape == (9, 5, width)
    assert one.dtype == dtype
    assert torch.equal(one, other)


def test_masks_of_nothing() -> None:
    assert dropped(seeds()[:0]).shape == (0, B, N)
    assert dropped(seeds()[:, :0]).shape == (T, 0, N)


def test_a_mask_depends_on_key_stream_and_place_alone() -> None:
    whole = dropped(seeds())
    assert torch.equal(whole, dropped(seeds()))
    assert torch.equal(whole[7:], dropped(seeds(start=7))[:-7])
    order = torch.randperm(B)
    permuted = row_seeds(KEY, 0, torch.arange(T)[:, None], order)
    assert torch.equal(whole[:, order], dropped(permuted))
    assert torch.equal(whole[..., :7], dropped(seeds(), width=7))


def test_the_key_comes_from_pytorchs_default_generator() -> None:
    torch.manual_seed(5)
    first, second = new_key(), new_key()
    torch.manual_seed(5)
    assert (int(new_key()), int(new_key())) == (int(first), int(second))
    assert int(first) != int(second)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_rate(rate: float) -> None:
    mask = dropped(seeds(), rate)
    spread = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert abs(mask.double().mean().item() - rate) < 4 * spread


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """How many standard deviations Pearson's statistic lies from its mean, as a normal number."""
    freedom = counts.numel() - 1
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    # Wilson and Hilferty 1931: the cube root of a chi-square number is nearly normal
    spread = 2 / (9 * freedom)
    return abs((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5


@pytest.mark.parametrize("bits", [slice(0, 8), slice(24, 32), slice(32, 40), slice(56, 64)])
def test_numbers_of_rows_are_spread_evenly(bits: slice) -> None:
    drawn = number(seeds()[..., None], torch.arange(N // 2))
    digits = (drawn >> bits.start) & (2 ** (bits.stop - bits.start) - 1)
    counts = torch.bincount(digits.flatten(), minlength=256).double()
    assert chi_square(counts, torch.full_like(counts, counts.sum().item() / 256)) < 4


NEIGHBOURS = {
    "the next step": lambda: (dropped(seeds()), dropped(seeds(start=1))),
    "the next sequence": lambda: (dropped(seeds())[:, 1:], dropped(seeds())[:, :-1]),
    "the next unit": lambda: (dropped(seeds())[..., 1:], dropped(seeds())[..., :-1]),
    "the unit after the next": lambda: (dropped(seeds())[..., 2:], dropped(seeds())[..., :-2]),
    "another stream": lambda: (dropped(seeds()), dropped(seeds(stream=1))),
    "the next key": lambda: (dropped(seeds()), dropped(seeds(KEY + 1))),
    "a key of another bit": lambda: (dropped(seeds()), dropped(seeds(KEY ^ 2**62))),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_independent(name: str) -> None:
    one, other = (m.double().flatten() for m in NEIGHBOURS[name]())
    pairs = torch.bincount((2 * one + other).long(), minlength=4).double()
    rate = torch.tensor([0.7, 0.3], dtype=torch.double)
    assert chi_square(pairs, torch.outer(rate, rate).flatten() * len(one)) < 4


def test_no_two_rows_are_alike() -> None:
    rows = [number(seeds(stream=s)[..., None], torch.arange(2)).flatten(0, 1) for s in range(4)]
    assert len(torch.cat(rows).unique(dim=0)) == 4 * T * B


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_under_vmap_keys_may_be_one_or_many(randomness: str) -> None:
    def mask(_: Tensor) -> Tensor:
        return dropped(row_seeds(new_key(), 0, torch.arange(4)[:, None], torch.arange(3)))

    torch.manual_seed(0)
    found = torch.func.vmap(mask, randomness=randomness)(torch.zeros(2))
    assert torch.equal(found[0], found[1]) == (randomness == "same")


def test_dropout_of_some_rows_of_a_batch_is_that_of_the_whole_batch() -> None:
    x, lengths = torch.randn(5, 4, 7), torch.tensor([5, 3, 3, 1])
    whole = dropout(x, 0.4, KEY, 2)
    with rows_from(1):
        assert torch.equal(dropout(x[:, 1:3], 0.4, KEY, 2), whole[:, 1:3])
        assert torch.equal(dropout(x[0, 1:], 0.4, KEY, 2), whole[0, 1:])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
    found = dropout(packed.data, 0.4, KEY, 2, packed.batch_sizes)
    assert torch.equal(found, torch.nn.utils.rnn.pack_padded_sequence(whole, lengths).data)
    assert torch.equal(dropout(x, 0.4, KEY, 2), whole)  # outside it is the whole batch again
    assert torch.equal(dropout(x[0, 0], 0.4, KEY, 2), whole[0, 0])
    assert ((whole == 0) | (whole - x / 0.6).abs().lt(1e-6)).all() and 0 < (whole == 0).sum() < whole.numel()
    assert dropout(x.bfloat16(), 0.4, KEY, 2).dtype is torch.bfloat16

"""What the decoding settings promise about the characters that are drawn."""

from collections import Counter

import pytest
import torch

from recurra.errors import InputError
from recurra.tasks.decoding import Decoder, check_length

P = torch.tensor([0.5, 0.25, 0.15, 0.1])


def draws(n: int = 4000, **settings: float) -> Counter[int]:
    decoder = Decoder(**settings, seed=1)  # type: ignore[arg-type]
    return Counter(decoder(P.log()) for _ in range(n))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, P),
        ({"temperature": 0.5}, P**2 / (P**2).sum()),
        ({"temperature": 2.0}, P.sqrt() / P.sqrt().sum()),
        ({"top_k": 2}, torch.tensor([2 / 3, 1 / 3, 0, 0])),
        ({"top_p": 0.6}, torch.tensor([2 / 3, 1 / 3, 0, 0])),
        ({"top_p": 0.76}, torch.tensor([0.5, 0.25, 0.15, 0]) / 0.9),
        ({"top_p": 1.0}, P),
        ({"top_k": 3, "top_p": 0.5}, torch.tensor([1.0, 0, 0, 0])),
        ({"temperature": 0}, torch.tensor([1.0, 0, 0, 0])),
        ({"top_k": 1}, torch.tensor([1.0, 0, 0, 0])),
        ({"top_p": 1e-9}, torch.tensor([1.0, 0, 0, 0])),
        ({"top_k": 99}, P),
    ],
)
def test_frequencies_are_the_probabilities(settings: dict[str, float], expected: torch.Tensor) -> None:
    found = draws(**settings)
    for symbol, p in enumerate(expected.tolist()):
        assert found[symbol] / 4000 == pytest.approx(p, abs=0.03)
        assert (found[symbol] == 0) == (p == 0)


def test_the_order_of_the_symbols_does_not_matter() -> None:
    turned = Decoder(top_k=2, seed=3)
    assert {turned(P.flip(0).log()) for _ in range(200)} == {2, 3}


def test_a_symbol_that_is_ruled_out_is_never_drawn() -> None:
    scores = torch.tensor([9.0, 0.0, 0.0])
    scores[0] = -torch.inf
    for settings in ({}, {"temperature": 0}, {"top_k": 3}, {"top_p": 1.0}, {"temperature": 100.0}):
        decoder = Decoder(**settings, seed=0)  # type: ignore[arg-type]
        assert 0 not in {decoder(scores) for _ in range(100)}


def test_seeds() -> None:
    def drawn(seed: int | None) -> list[int]:
        decoder = Decoder(seed=seed)
        return [decoder(P.log()) for _ in range(50)]

    assert drawn(5) == drawn(5) != drawn(6)
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"seed": -1},
        {"seed": 2**64},
        {"temperature": "a"},
        {"top_k": 1.5},
        {"top_p": "a"},
        {"seed": "a"},
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, float]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(InputError, match=rf"^{name}={value!r} .*; give "):
        Decoder(**settings)  # type: ignore[arg-type]


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"length=-5 cannot be written; give 0 or more\.$"):
        check_length(-5)
    check_length(0)
    for length in ("a", 2.5):
        with pytest.raises(InputError, match=rf"^length={length!r} cannot be written; give a whole number\.$"):
            check_length(length)  # type: ignore[arg-type]

"""From the scores of the next character to the character: temperature, top-k, top-p."""

import secrets
from numbers import Integral, Real

import torch
from torch import Tensor

from recurra.errors import InputError, kind_of


def check_length(length: int) -> None:
    """InputError when so many characters cannot be written."""
    if not _is(length, Integral):
        raise InputError(f"length={length!r} cannot be written; give a whole number.")
    if length < 0:
        raise InputError(f"length={length} cannot be written; give 0 or more.")


def check_prompt(prompt: str) -> None:
    """InputError for what is no text."""
    if not isinstance(prompt, str):
        raise InputError(f"prompt is {kind_of(prompt)}, but is the text to go on from; give a str.")


class Decoder:
    """Draws from softmax(scores / temperature), cut to the `top_k` likeliest and to the smallest set that holds
    `top_p`.

    temperature 0 takes the likeliest; 1 draws from the model's own probabilities. top_k and top_p may be given together
    (top_k first). The same seed draws the same characters; seed None draws anew each time. top_p is the nucleus of
    Holtzman et al. 2020, arXiv:1904.09751: the likeliest symbols until their probabilities reach top_p.
    """

    def __init__(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int | None = None
    ):
        if not _is(temperature, Real) or not 0 <= temperature < float("inf"):
            raise InputError(
                f"temperature={temperature!r} cannot be used; give 0 (always the likeliest) or a number above it."
            )
        if top_k is not None and not _is(top_k, Integral):
            raise InputError(f"top_k={top_k!r} is no whole number; give 1 or more.")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k={top_k} leaves nothing to choose from; give 1 or more.")
        if top_p is not None and (not _is(top_p, Real) or not 0 < top_p <= 1):
            raise InputError(f"top_p={top_p!r} cannot be used; give a probability above 0 and up to 1.")
        if seed is not None and (not _is(seed, Integral) or not 0 <= seed < 2**64):
            raise InputError(f"seed={seed!r} cannot be used; give a whole number from 0 to 2**64 - 1.")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self._generator = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)

    def __call__(self, scores: Tensor) -> int:
        """One draw from scores (V,); -inf is never drawn."""
        if self.temperature == 0:
            return int(scores.argmax())
        p = torch.softmax(scores.double() / self.temperature, 0)
        if self.top_k is not None or self.top_p is not None:
            p = self._cut(p)
        return int(torch.multinomial(p, 1, generator=self._generator))

    def _cut(self, p: Tensor) -> Tensor:
        ranked, order = p.sort(descending=True, stable=True)
        if self.top_k is not None:
            ranked[self.top_k :] = 0
        if self.top_p is not None:
            before = ranked.cumsum(0) - ranked
            ranked[before >= self.top_p * ranked.sum()] = 0
        return torch.zeros_like(p).scatter(0, order, ranked)


def _is(value: object, kind: type) -> bool:
    """isinstance, from which mypy would conclude that an int is none of these kinds."""
    return isinstance(value, kind)

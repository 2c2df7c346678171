"""Symbols to vectors: learned ones, those of the n-grams that a word is made of, or one-hot."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recurra.data.subwords import Spelling
from recurra.data.symbols import UNKNOWN
from recurra.regularise.values import dropout

_DEVIATION = 0.3  # of the vectors at the start where two are added; measured on validation rows


class SymbolEmbedding(nn.Module):
    """x_s = E_s, or with subwords E_s + mean of G_g over the n-grams g of s; one-hot where the width is 0.

    Bojanowski et al. 2017, arXiv:1607.04606. word_dropout: the share of symbols whose E_s is that of the unknown symbol
    in training (Iyyer et al. 2015, ACL); their n-grams stay.
    """

    def __init__(self, symbols: int, width: int, subwords: int | None = None, word_dropout: float = 0.0) -> None:
        super().__init__()
        self.symbols, self.word_dropout = symbols, word_dropout
        self.symbol = nn.Embedding(symbols, width) if width else None
        self.grams = nn.EmbeddingBag(max(1, subwords), width, mode="mean") if width and subwords is not None else None
        if self.symbol is not None and self.grams is not None:
            nn.init.normal_(self.symbol.weight, std=_DEVIATION)
            nn.init.normal_(self.grams.weight, std=_DEVIATION)

    @torch.no_grad()
    def begin_with(self, vectors: Sequence[NDArray[np.float32] | None]) -> None:
        """Gives symbols from number 1 on these vectors; those that have none get random ones of the same deviation."""
        assert self.symbol is not None
        found = [n for n, vector in enumerate(vectors, 1) if vector is not None]
        if found:
            given = torch.from_numpy(np.stack([vector for vector in vectors if vector is not None]))
            self.symbol.weight.normal_(std=float(given.std(correction=0)))
            self.symbol.weight[found] = given

    def forward(self, symbols: Tensor, spelling: Spelling | None = None) -> Tensor:
        """Numbers (T, B) -> (T, B, width)."""
        if self.training and self.word_dropout:
            kept = dropout(torch.ones(*symbols.shape, 1), self.word_dropout)[..., 0]
            symbols = symbols.masked_fill(kept == 0, UNKNOWN)
        if self.symbol is None:
            return F.one_hot(symbols, self.symbols).to(torch.get_default_dtype())
        x: Tensor = self.symbol(symbols)
        if self.grams is not None and spelling is not None:
            x = x + F.embedding(spelling.words, self.grams(spelling.grams, spelling.offsets))
        return x

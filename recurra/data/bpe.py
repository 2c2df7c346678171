"""Byte-pair encoding of characters. The only home of tokenizers, which learns and applies it."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from recurra.data.symbols import UNKNOWN_TEXT, Vocabulary, frequent
from recurra.errors import InputError

_PARTS = r"[\n\x03]| ?\w+| ?[^\w\s\x03]+|\s"  # no pair is merged across these; a blank belongs to what follows it
_LEAST = 2  # times that a pair must occur to be merged

Merges = list[tuple[str, str]]


class BytePairs(Vocabulary):
    """Pieces of words that are frequent: characters, of which the most frequent pair is merged, again and again.

    Sennrich et al. 2016, arXiv:1508.07909. Pieces hold their blanks: side by side they are the text.
    Raises ValueError for merges whose pieces are not among the symbols.
    """

    kind = "bpe"

    def __init__(self, symbols: Iterable[str], merges: Merges) -> None:
        self.symbols, self.merges = list(symbols), merges
        numbers = {UNKNOWN_TEXT: 0} | {symbol: n for n, symbol in enumerate(self.symbols, 1)}
        self._tokenizer = _tokenizer(numbers, merges)

    @classmethod
    def learned(cls, texts: Callable[[], Iterable[str]], most: int) -> "BytePairs":
        """Learned from pieces of a text, read twice: at most `most` symbols, but no fewer than it has characters."""
        import tokenizers

        new = _tokenizer({}, [])
        trainer = tokenizers.trainers.BpeTrainer(  # type: ignore[no-untyped-call]
            vocab_size=most + 1, min_frequency=_LEAST, show_progress=False, special_tokens=[UNKNOWN_TEXT]
        )
        new.train_from_iterator(texts(), trainer)
        merges = _merges(new)
        found = sorted(symbol for symbol in new.get_vocab() if symbol != UNKNOWN_TEXT)
        counts = Counter(dict.fromkeys(found, 0))
        for text in texts():
            counts.update(new.encode(text).tokens)
        del counts[UNKNOWN_TEXT]
        return cls(frequent(counts, 0), merges)

    def split(self, text: str) -> list[str]:
        """Its pieces; a character that is not known stands for itself."""
        encoded = self._tokenizer.encode(text)
        return [text[slice(*place)] for place in encoded.offsets]

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array(self._tokenizer.encode(text).ids, np.int64)


def _tokenizer(numbers: dict[str, int], merges: Merges) -> Any:
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            "symbols='bpe' needs tokenizers, which is not installed; pip install 'recurra[text]', or choose "
            "symbols='characters'."
        ) from None
    for pair in merges:
        if missing := [piece for piece in (*pair, "".join(pair)) if piece not in numbers]:
            raise ValueError(f"{missing[0]!r}, of the merge {pair}, is no symbol")
    model = tokenizers.models.BPE(vocab=numbers, merges=merges, unk_token=UNKNOWN_TEXT)
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PARTS), "isolated")
    return made


def _merges(tokenizer: Any) -> Merges:
    model = msgspec.json.decode(tokenizer.to_str())["model"]
    return [(left, right) for left, right in model["merges"]]

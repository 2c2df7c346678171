"""`recurra predict`: labels of texts from arguments, a file or standard input."""

import json
import sys
from collections.abc import Sequence

import recurra
from recurra.data.text import read_text
from recurra.errors import InputError


def show(model: str, texts: Sequence[str], file: str | None, precision: str | None, as_json: bool) -> None:
    """One line a text: its label, the label's probability, and the text."""
    loaded = recurra.load(model, precision)
    if loaded.rounding:
        print(loaded.rounding, file=sys.stderr)
    rows = _given(texts, file)
    for text, row in zip(rows, loaded.probabilities(rows), strict=True):
        label, probability = next(iter(row.items()))
        if as_json:
            told = {"text": text, "label": label, "probability": probability, "probabilities": row}
            print(json.dumps(told, ensure_ascii=False))
        else:
            print(f"{label}\t{probability:.4f}\t{text}")


def _given(texts: Sequence[str], file: str | None) -> list[str]:
    """The texts, one a line where they come from a file; blank lines are counted and said, for they have no label."""
    if texts and file is not None:
        raise InputError(f"Both texts and --file {file} are given; give one of them.")
    if texts:
        return list(texts)
    lines = (sys.stdin.read() if file is None else read_text(file).content).splitlines()
    kept = [line for line in lines if line.strip()]
    if blank := len(lines) - len(kept):
        print(f"recurra: {blank} blank line{'s were' if blank > 1 else ' was'} left out", file=sys.stderr)
    if not kept:
        raise InputError(f"{file or 'Standard input'} holds no text; give at least one line.")
    return kept

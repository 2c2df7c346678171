"""`recurra predict`: labels of texts from arguments, a file or standard input."""

import json
import sys
from collections.abc import Sequence

import recurra
from recurra.cli.texts import given_texts


def show(model: str, texts: Sequence[str], file: str | None, precision: str | None, as_json: bool) -> None:
    """One line a text: its label, the label's probability, and the text."""
    loaded = recurra.load(model, precision)
    if loaded.rounding:
        print(loaded.rounding, file=sys.stderr)
    rows = given_texts(texts, file)
    for text, row in zip(rows, loaded.probabilities(rows), strict=True):
        label, probability = next(iter(row.items()))
        if as_json:
            told = {"text": text, "label": label, "probability": probability, "probabilities": row}
            print(json.dumps(told, ensure_ascii=False))
        else:
            print(f"{label}\t{probability:.4f}\t{text}")

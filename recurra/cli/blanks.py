"""`recurra fill`: candidates for the blank of each sentence."""

import dataclasses
import json
import sys
from collections.abc import Sequence

import recurra
from recurra.cli.texts import given_texts


def show(
    model: str,
    sentences: Sequence[str],
    file: str | None,
    top: int,
    longest: int | None,
    candidates: str | None,
    blank: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Each sentence and its candidates with their probabilities, a blank line between; as JSON one object a line."""
    loaded = recurra.load(model, precision)
    if loaded.rounding:
        print(loaded.rounding, file=sys.stderr)
    choices = None if candidates is None else candidates.split(",")
    for place, sentence in enumerate(given_texts(sentences, file)):
        filled = loaded.fill(sentence, top, longest, choices, blank)
        if as_json:
            rows = [dataclasses.asdict(each) for each in filled.candidates]
            told = {
                "sentence": sentence, "best": filled.best, "considered": filled.considered, "candidates": rows,
            }  # fmt: skip
            print(json.dumps(told, ensure_ascii=False), flush=True)
        else:
            print(f"{chr(10) if place else ''}{filled}", flush=True)

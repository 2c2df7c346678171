"""`recurra predict`: labels of texts from arguments, a file or standard input."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import recurra
from recurra.cli.texts import given_texts


def show(model: str, texts: Sequence[str], file: str | None, precision: str | None, as_json: bool) -> None:
    """One line a text: its label, the label's probability, and the text."""
    loaded: Any = recurra.load(model, precision)
    if loaded.rounding:
        print(loaded.rounding, file=sys.stderr)
    rows = given_texts(texts, file)
    if loaded.task == "tagging":
        _show_tags(loaded, rows, as_json)
        return
    if unknown := _unknown(loaded, rows):
        print(unknown, file=sys.stderr)
    for text, row in zip(rows, loaded.probabilities(rows), strict=True):
        if getattr(loaded, "several", False):
            _show_several(text, row, loaded.threshold, as_json)
            continue
        label, probability = next(iter(row.items()))
        if as_json:
            told = {"text": text, "label": label, "probability": probability, "probabilities": row}
            print(json.dumps(told, ensure_ascii=False))
        else:
            print(f"{label}\t{probability:.4f}\t{text}")


def _show_several(text: str, row: dict[str, float], threshold: float, as_json: bool) -> None:
    """The labels from the threshold on, each with its probability; "-" where there is none."""
    found = {label: probability for label, probability in row.items() if probability >= threshold}
    if as_json:
        print(json.dumps({"text": text, "labels": list(found), "probabilities": row}, ensure_ascii=False))
    else:
        print(f"{', '.join(f'{label} {p:.4f}' for label, p in found.items()) or '-'}\t{text}")


def _unknown(model: Any, texts: Sequence[str]) -> str:
    """A sentence on the symbols that training did not know; "" where there are none, or the task tells none."""
    found: dict[str, int] = model.unknown(texts) if hasattr(model, "unknown") else {}
    if not found:
        return ""
    count, kind = sum(found.values()), model.lexicon.kind
    shown = ", ".join(map(repr, list(found)[:5])) + (", …" if len(found) > 5 else "")
    how = "by their n-grams alone" if model.subwords is not None else "as the reserved unknown symbol"
    kind = kind if count > 1 else kind.removesuffix("s")
    are, were = ("are", "were") if count > 1 else ("is", "was")
    return f"recurra: {count:,} {kind} ({shown}) {are} not known from training and {were} read {how}"


def _show_tags(tagger: Any, rows: Sequence[str], as_json: bool) -> None:
    """A word and its tag a line, an empty line after each text; or an object a text, with all probabilities."""
    for text, sentence in zip(rows, tagger.predict(rows, probabilities=as_json), strict=True):
        if not as_json:
            print(sentence)
            continue
        spans = [{**span._asdict(), "words": sentence.words[span.begin : span.end]} for span in sentence.spans]
        fields = {**asdict(sentence), "spans": spans}
        print(json.dumps({"text": text, **{n: v for n, v in fields.items() if v is not None}}, ensure_ascii=False))

"""Blanks filled and candidates ranked, on sentences held out of public data: a recurrent model beside 5-grams.

    python -m recipes.filling --data DATA [--only tatoeba-en-zh] [--part dev]

Each data set becomes a text with one sentence a line, on which a model of characters is trained; the sentences of dev
are what it is validated on. Then, on sentences of the test part that training has not:

fill: one character of a sentence is blank, a letter or digit that is drawn with the sentence; every character of the
vocabulary is a candidate, scored with the whole sentence.
rank: beside a sentence stand nineteen of a recogniser's errors. Each has one character taken for one of the eight that
are most like it in frequency, drawn from a seed; the sentence is recovered when it comes first of the twenty.

Each model fills the same blanks and ranks the same candidates. `--part dev` measures on dev: settings are chosen so.
"""

import argparse
import os
import random
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.errors import FileError, RecurraError

COUNT = 1000  # blanks, and sentences with errors
ERRORS = 19
SEED = 0
_ALIKE = 8  # characters that a recogniser takes for one another
_SHORTEST = 5  # characters of a sentence
_SENTENCE = re.compile(r"[^。！？!?~]*[。！？!?~…]+[”\"’）)]*|[^。！？!?~]+$")  # of a review

SETTINGS: dict[str, dict[str, Any]] = {
    "tatoeba-en-zh": {
        "hidden": 512, "embedding": 256, "dropout": 0.5, "epochs": 20, "batch": 32, "window": 32,
    },
    "chnsenticorp-htl": {
        "hidden": 512, "embedding": 256, "dropout": 0.35, "epochs": 8, "batch": 32, "window": 64,
    },
}  # fmt: skip


def rows(data: Path, name: str, part: str) -> list[str]:
    """The Chinese sentences of a part: of a pair its second half, of a review each of its sentences."""
    from recurra.data.gz import unpacked
    from recurra.data.text import read_bytes

    path = data / name / f"{part}.tsv{'.gz' if part == 'train' else ''}"
    if not path.exists():
        raise FileError(f"{data} has no {path.relative_to(data)}, which {name} needs.")
    texts = [line.split("\t")[1] for line in unpacked(path, read_bytes(path)).decode().splitlines()]
    if name == "chnsenticorp-htl":
        texts = [sentence.strip() for text in texts for sentence in _SENTENCE.findall(text)]
        random.Random(0).shuffle(texts)  # so that a model learns to begin a sentence anew
    return [text for text in texts if text]


@dataclass(frozen=True)
class Held:
    """What is measured: blanks as (sentence, place), and for each sentence its recogniser's candidates."""

    blanks: list[tuple[str, int]]
    groups: list[tuple[str, list[str]]]


def held_out(train: Iterable[str], kept: Iterable[str], seed: int, count: int) -> Held:
    """Blanks and errors in those of the kept sentences that training does not have word for word."""
    counts, seen = Counter[str](), set[str]()
    for text in train:
        counts.update(text)
        seen.add(text)
    sentences = [s for s in dict.fromkeys(kept) if s not in seen and len(s) >= _SHORTEST]
    draw = random.Random(seed)
    places = [(s, n) for s in sentences for n, c in enumerate(s) if c.isalnum() and c in counts]
    alike = _alike(counts)
    groups = []
    for sentence in draw.sample(sentences, min(count, len(sentences))):
        wrong = {_mistaken(sentence, alike, draw) for _ in range(10 * ERRORS)} - {sentence}
        candidates = [*draw.sample(sorted(wrong), min(ERRORS, len(wrong))), sentence]
        draw.shuffle(candidates)
        groups.append((sentence, candidates))
    return Held(draw.sample(places, min(count, len(places))), groups)


def _alike(counts: Counter[str]) -> dict[str, str]:
    """For each letter or digit the others that are most like it in frequency."""
    ranked = [c for c, _ in sorted(counts.items(), key=lambda row: (-row[1], row[0])) if c.isalnum()]
    half = _ALIKE // 2
    return {c: "".join(ranked[max(0, n - half) : n] + ranked[n + 1 : n + 1 + half]) for n, c in enumerate(ranked)}


def _mistaken(sentence: str, alike: dict[str, str], draw: random.Random) -> str:
    place = draw.choice([n for n, c in enumerate(sentence) if c in alike] or [0])
    return sentence[:place] + draw.choice(alike.get(sentence[place], sentence[place])) + sentence[place + 1 :]


def measured(model: Any, held: Held) -> str:
    """Shares in percent: blanks whose character comes first, or among five; sentences that come first of twenty."""
    begin = time.process_time()
    first = among = 0
    for sentence, place in held.blanks:
        filled = model.fill(sentence[:place] + "[blank]" + sentence[place + 1 :], 5, 1, blank="[blank]")
        texts = [candidate.text for candidate in filled.candidates]
        first += texts[0] == sentence[place]
        among += sentence[place] in texts
    filling = time.process_time() - begin
    rankings = model.rank([candidates for _, candidates in held.groups])
    right = sum(ranking.best == sentence for ranking, (sentence, _) in zip(rankings, held.groups, strict=True))
    blanks, groups = len(held.blanks), len(held.groups)
    return (
        f"fill {100 * first / blanks:.1f} % first, {100 * among / blanks:.1f} % among five, of {blanks}; "
        f"rank {100 * right / groups:.1f} % of {groups} recovered; {1000 * filling / blanks:.0f} ms a blank"
    )


def trained(place: Path, train: list[str], dev: list[str], settings: dict[str, Any]) -> Any:
    """The model of a run folder, trained or gone on with if need be."""
    import recurra
    from recurra.training.config import CONFIG

    texts, run = place / "texts", place / "run"
    if (run / CONFIG).exists():
        return recurra.resume(run).model
    texts.mkdir(parents=True, exist_ok=True)
    for part, lines in (("train", train), ("valid", dev)):
        (texts / f"{part}.txt").write_text("".join(line + "\n" for line in lines))
    return recurra.train(texts, task="language", out=run, **settings).model


def measure(data: Path, name: str, part: str, runs: Path) -> None:
    """Trains, measures, and prints a line for each model."""
    from recurra.tasks.ngram import NGram

    train, dev = rows(data, name, "train"), rows(data, name, "dev")
    begin = time.process_time()
    model = trained(runs / f"filling-{name}", train, dev, SETTINGS[name])
    print(f"{name}: {model.description}, {(time.process_time() - begin) / 60:.1f} processor minutes", flush=True)
    held = held_out(train, dev if part == "dev" else rows(data, name, part), SEED, COUNT)
    text = "".join(line + "\n" for line in train)
    models = {
        "recurrent": model,
        "5-gram": NGram.of_sentences(text, 5, model.vocabulary),
        "5-gram of the text as one stream": NGram(text, 5, model.vocabulary),
    }
    for who, each in models.items():
        nats = [s.log_probability / s.symbols for s in each.score([s for s, _ in held.groups])]
        print(f"  {who}: {measured(each, held)}; {-sum(nats) / len(nats):.3f} nats a character", flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m recipes.filling", description="Fill and rank on held-out sentences.")
    parser.add_argument("--data", default=os.environ.get("RECURRA_DATA"), help="the folder with the data sets")
    parser.add_argument("--only", choices=SETTINGS, help="one data set (default: all)")
    parser.add_argument("--part", choices=["test", "dev"], default="test")
    parser.add_argument("--runs", type=Path, default=Path.home() / ".cache" / "recurra" / "recipes")
    asked = parser.parse_args(words)
    warnings.filterwarnings("ignore", message="The (sentence|candidates|texts) ha(s|ve) ")  # rare characters are many
    try:
        if not asked.data:
            raise FileError("Where is the data? Give the folder: --data DATA (or RECURRA_DATA=… around it).")
        for name in [asked.only] if asked.only else SETTINGS:
            measure(Path(asked.data), name, asked.part, asked.runs)
    except RecurraError as error:
        print(f"recipes.filling: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

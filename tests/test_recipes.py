"""Recipes: what their files may say, a run of one on generated data, and the rows that it writes."""

import gzip
import random
import re
import signal
from pathlib import Path

import msgspec
import pytest

import recurra
from recipes import __main__, filling, results
from recipes.measures import MEASURES
from recipes.recipe import FOLDER, Goal, Recipe, chosen, read
from recipes.run import Seed, run
from recurra.training import start

RECIPE = """
data = "letters.txt"
task = "language"
test = "other.txt"
seeds = [0, 3]
[settings]
hidden = 8
embedding = 4
batch = 4
window = 8
steps = 6
dropout = 0.1
threads = 1
sample_length = 0
[measures."nats per character"]
goal = 9.0
published = "somebody 1.5"
[measures.perplexity]
goal = 1.0
hope = 0.5
baseline = "a|b 7"
"""
PAGE = f"# Results\n\n{results.BEGIN}\n{results.END}\n\nAfter.\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, its data and a page."""
    monkeypatch.setattr(start, "plot_loss", lambda *_: None)  # which takes longer than a run
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/letters.toml").write_text(RECIPE)
    (tmp_path / "letters.txt").write_text("abcd efgh\n" * 100)
    (tmp_path / "other.txt").write_text("efgh abcd\n" * 20)
    (tmp_path / "results.md").write_text(PAGE)
    return tmp_path


def main(place: Path, *words: str) -> int:
    given = ["--data", str(place), "--runs", str(place / "runs"), *words]
    return __main__.main(given, place / "recipes", place / "results.md")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path: Path) -> None:
    recipe = read(path)
    assert recipe.command().startswith(f"recurra train DATA/{recipe.data}")
    assert all(goal.published or goal.baseline or goal.goal is not None for goal in recipe.measures.values())


def test_a_recipe_is_run_and_its_rows_are_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place) == 0
    out, page = capsys.readouterr().out, (place / "results.md").read_text()
    nats, perplexity, how = re.findall(r"^\| letters \|.*$", page, re.MULTILINE)
    spread = r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)"
    assert re.match(rf"\| letters \| nats per character \| {spread} \| 9 \| yes \| somebody 1.5 \| – \| unigram", nats)
    assert re.match(
        r"\| letters \| perplexity \| [\d.]+ \(.*\) \| 1 \(hope 0.5\) \| no \| – \| a\\\|b 7 \|", perplexity
    )
    assert "`recurra train DATA/letters.txt --task language --hidden 8" in how and "| 0, 3 |" in how
    assert page.endswith(f"{results.END}\n\nAfter.\n") and "seed 3: validation" in out
    (folder,) = (place / "runs").iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    seeds = [msgspec.json.decode(path.read_bytes(), type=Seed) for path in sorted(folder.glob("*.json"))]
    assert seeds[0].values != seeds[1].values and all(0 < seed.minutes < 1 for seed in seeds)
    assert main(place) == 0  # what is there is not run again, and its rows are the same
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert (place / "results.md").read_text() == page


def test_what_was_interrupted_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe,) = chosen("letters", place / "recipes")
    whole = run(recipe, place, place / "whole")
    train = recurra.train

    def interrupted(*given: object, **settings: object) -> object:
        class Stop(recurra.training.Observer):
            def on_step(self, run: object, step: object) -> None:
                signal.raise_signal(signal.SIGINT)

        return train(*given, observer=Stop(), **settings)

    monkeypatch.setattr(recurra, "train", interrupted)
    assert main(place) == 130
    assert re.search(r"Interrupted at step 1 of 6.*The same command goes on", capsys.readouterr().err)
    assert (place / "results.md").read_text() == PAGE
    monkeypatch.setattr(recurra, "train", train)
    again = run(recipe, place, place / "runs")
    assert [seed.values for seed in again.values()] == [seed.values for seed in whole.values()]


def test_choosing_settings_reads_no_test(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurra.tasks.language_model.LanguageModel, "evaluate", None)
    assert main(place, "--validate") == 0
    assert (place / "results.md").read_text() == PAGE


def test_the_rows_of_one_recipe_leave_those_of_others(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE)

    def recipe(name: str, **goal: float) -> Recipe:
        return Recipe("x", {"accuracy": Goal(**goal)}, name=name, minutes=5)

    def seeds(*values: float, minutes: float = 1) -> dict[int, Seed]:
        found = [Seed(0.5, "accuracy", {"accuracy": v}, {"accuracy": {"linear": 70.0}}, minutes) for v in values]
        return dict(enumerate(found))

    results.write(recipe("b", goal=80, hope=90), seeds(79.994, 79.997), page)
    results.write(recipe("a", goal=80, hope=90), seeds(95, minutes=7), page)
    assert rows(page) == [["a", "95.00", "the hope, but in 7 minutes of 5"], ["b", "80.00 (79.99 to 80.00)", "yes"]]
    results.write(recipe("b", goal=80.01), seeds(80), page)
    results.write(recipe("c"), seeds(1), page)
    assert rows(page)[1:] == [["b", "80.00", "no"], ["c", "1.00", "–"]]
    assert len(re.findall("^\\| [abc] \\|", page.read_text(), re.MULTILINE)) == 6


def rows(page: Path) -> list[list[str]]:
    """Name, result and verdict of the rows of the first table."""
    table = page.read_text().split("\n\n")[2]
    return [[row.split(" | ")[n].strip("| ") for n in (0, 2, 4)] for row in table.splitlines()[2:]]


def test_measures_know_which_way_is_better() -> None:
    assert MEASURES["accuracy"].reaches(89.996, 90) and not MEASURES["accuracy"].reaches(89.99, 90)
    assert MEASURES["perplexity"].reaches(102.004, 102) and not MEASURES["perplexity"].reaches(102.01, 102)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hidden", "hiden"), "There is no setting hiden; did you mean hidden?"),
        (("hidden = 8", "hidden = 0"), "hidden=0 cannot be used; give a whole number from 1 to 1000000."),
        (
            ("[settings]", "[settings]\npooling = 'max'"),
            "pooling='max' is a setting of the tasks classification and tagging, and",
        ),
        (
            ("[settings]", "[settings]\nseed = 1"),
            "seed and time_limit are no settings of a recipe: give seeds, and epochs or",
        ),
        (("perplexity", "perplexities"), "There is no measure 'perplexities'; there are accuracy, nats per character,"),
        (("test =", "by ="), "by = 'other.txt' is unknown; there are evaluate."),
        (("seeds", "sedes"), "Object contains unknown field `sedes`"),
        (("= 8", "= ="), "Invalid value"),
        (("seeds = [0, 3]", "seeds = []"), "A recipe has at least one measure and one seed."),
    ],
)
def test_a_recipe_that_is_wrong_is_told(
    place: Path, change: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "recipes/letters.toml"
    file.write_text(RECIPE.replace(*change, 1))
    assert main(place) == 2
    assert f"recipes: {file}: {message}" in capsys.readouterr().err


def test_what_is_not_there_is_told(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    assert main(place, "--data", "") == 2
    assert main(place, "--only", "snaps") == 2
    (place / "other.txt").unlink()
    assert main(place) == 2
    assert capsys.readouterr().err.splitlines() == [
        "recipes: Where is the data? Give the folder: make recipes DATA=… (or RECURRA_DATA=… around it).",
        "recipes: There is no recipe snaps; there are letters.",
        f"recipes: {place} has no other.txt, which the recipe letters needs.",
    ]
    assert not (place / "runs").exists()


def test_blanks_and_errors_are_drawn_from_sentences_that_training_has_not() -> None:
    rng = random.Random(2)
    train = ["".join(rng.choices("abcdefghijkl", weights=range(12, 0, -1), k=9)) + "。" for _ in range(300)]
    kept = [*train[:3], "abc", *("".join(rng.choices("abcdefghijkl", k=8)) + "！" for _ in range(40)), "☃☃☃☃☃"]
    held = filling.held_out(train, kept, seed=1, count=30)
    assert held == filling.held_out(train, kept, seed=1, count=30) != filling.held_out(train, kept, seed=2, count=30)
    assert len(held.blanks) == len(held.groups) == 30
    for sentence, place in held.blanks:
        assert sentence in kept[4:44] and sentence[place] in "abcdefghijkl"
    for sentence, candidates in held.groups:
        assert sentence in candidates and len(set(candidates)) == len(candidates) <= 1 + filling.ERRORS
        assert all(sum(a != b for a, b in zip(sentence, c, strict=True)) <= 1 for c in candidates)


def test_filling_is_measured_on_sentences_of_public_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recurra.training.start.plot_loss", lambda *_: None)
    monkeypatch.setattr(filling, "COUNT", 5)
    tiny = {"hidden": 8, "embedding": 4, "batch": 4, "window": 8, "steps": 4, "threads": 1, "sample_length": 0}
    monkeypatch.setitem(filling.SETTINGS, "tatoeba-en-zh", tiny)
    rng = random.Random(3)
    lines = ["x\t" + "".join(rng.choices("我你他们很好吃饭", k=7)) + "。\n" for _ in range(90)]
    (tmp_path / "tatoeba-en-zh").mkdir()
    (tmp_path / "tatoeba-en-zh/train.tsv.gz").write_bytes(gzip.compress("".join(lines[:60]).encode()))
    for n, part in enumerate(("dev", "test"), 4):
        (tmp_path / f"tatoeba-en-zh/{part}.tsv").write_text("".join(lines[15 * n : 15 * n + 15]))
    words = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--only", "tatoeba-en-zh"]
    assert filling.main(words) == 0
    told = capsys.readouterr().out
    for who in ("recurrent", "5-gram", "5-gram of the text as one stream"):
        assert re.search(rf"  {who}: fill [\d.]+ % first, [\d.]+ % among five, of 5; rank [\d.]+ % of 5 ", told)
    assert filling.main(words) == 0  # it is not trained again
    assert filling.main(["--data", str(tmp_path), "--only", "chnsenticorp-htl"]) == 2
    assert "has no chnsenticorp-htl/train.tsv.gz, which chnsenticorp-htl needs." in capsys.readouterr().err
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    assert filling.main([]) == 2
    assert "Where is the data? Give the folder: --data DATA" in capsys.readouterr().err

"""Scores of whole sentences against a plain loop; blanks filled against trying everything; candidates ranked."""

import io
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import recurra
from recurra.cli import WRONG_INPUT, run
from recurra.data.candidates import Group, groups_of_text
from recurra.data.symbols import Characters, Kind
from recurra.data.vocabulary import learned as learned_symbols
from recurra.errors import DataError, InputError
from recurra.tasks import infilling, reading
from recurra.tasks.classifier import Classifier
from recurra.tasks.language import LanguageNetwork, Sizes
from recurra.tasks.language_model import LanguageModel
from recurra.tasks.ngram import NGram
from recurra.tasks.scorer import Scorer

LETTERS = "abcde ."
LINES = "".join("".join(random.Random(n).choices(LETTERS, k=n % 13 + 1)) + "\n" for n in range(200))


def untrained(cell: str | None, layers: int = 1, embedding: int = 5, text: str = LINES, **more: Any) -> LanguageModel:
    torch.manual_seed(3)
    sizes = Sizes(cell, layers, 9, embedding, **more)
    vocabulary = Characters(text)
    network = LanguageNetwork(sizes, len(vocabulary))
    if network.output is not None:
        with torch.no_grad():
            network.output.weight *= 6  # probabilities that differ
    return LanguageModel(network, sizes, vocabulary)


MODELS: dict[str, Scorer] = {
    "lstm": untrained("lstm", 2), "gru": untrained("gru", embedding=0), "rnn": untrained("rnn"),
    "tied cells": untrained("slstm", 2, 9, cells=True, tied=True), "adaptive": untrained("gru", cutoffs=[4]),
    "cnn": untrained(None, 3, encoder="cnn"), "transformer": untrained(None, 2, encoder="transformer"),
    "unigram": NGram(LINES, 1), "3-gram": NGram(LINES, 3), "5-gram": NGram(LINES, 5),
    "5-gram of sentences": NGram.of_sentences(LINES, 5), "lstm without lines": untrained("lstm", text=LETTERS),
    "3-gram without lines": NGram(LINES.replace("\n", " "), 3),
}  # fmt: skip


def next_of(model: Scorer, text: str) -> np.ndarray[Any, Any]:
    """p of every symbol after a text, read from its beginning."""
    begin = "\n" if "\n" in model.vocabulary.symbols else " "
    if isinstance(model, NGram):
        return model.probabilities(begin * (model.order - 1 if model is MODELS["5-gram of sentences"] else 1) + text)
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        scores, _ = model.network(torch.from_numpy(model.vocabulary.encode(begin + text))[:, None])
    p: np.ndarray[Any, Any] = scores[-1, 0].double().softmax(0).numpy()
    return p


def plain(model: Scorer, text: str) -> float:
    """ln p of a sentence, symbol by symbol."""
    whole = text + ("\n" if "\n" in model.vocabulary.symbols else "")
    numbers = model.vocabulary.encode(whole)
    return sum(math.log(next_of(model, whole[:n])[number]) for n, number in enumerate(numbers))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8)
@given(texts=st.lists(st.text(LETTERS + "x", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=5))
@pytest.mark.filterwarnings("ignore:The texts have 'x'")
def test_a_score_is_the_sum_of_what_each_symbol_adds(name: str, texts: list[str]) -> None:
    scores = MODELS[name].score(texts)
    assert [s.log_probability for s in scores] == pytest.approx([plain(MODELS[name], t) for t in texts], rel=1e-5)
    assert [s.text for s in scores] == texts
    ends = int("\n" in MODELS[name].vocabulary.symbols)
    assert [s.symbols for s in scores] == [len(t) + ends for t in texts]
    assert scores[0].per_symbol == scores[0].log_probability / scores[0].symbols


@pytest.mark.parametrize("name", MODELS)
def test_a_score_depends_neither_on_the_batch_nor_on_how_it_is_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    texts = ["a" + "".join(rng.choices(LETTERS, k=rng.randrange(1, 40))) for _ in range(150)]
    together = [s.log_probability for s in MODELS[name].score(texts)]
    assert together == pytest.approx([MODELS[name].score(t)[0].log_probability for t in texts], rel=1e-5)
    monkeypatch.setattr(reading, "_SCORES", 600)
    assert together == pytest.approx([s.log_probability for s in MODELS[name].score(texts)], rel=1e-5)


def tried(model: Scorer, left: str, right: str, longest: int) -> dict[str, float]:
    """ln p of the sentence with every candidate there is."""
    known = [c for c in model.vocabulary.symbols if c != "\n"]
    every = [""]
    found: list[str] = []
    for _ in range(longest):
        every = [each + c for each in every for c in known]
        found += every
    return {each: model.score(left + each + right)[0].log_probability for each in found if each.strip()}


def assert_same_filling(model: Scorer, sentence: str, longest: int, expected: dict[str, float]) -> None:
    found = model.fill(sentence, top=1000, longest=longest).candidates
    nats = {c.text: c.log_probability for c in found}
    assert nats == pytest.approx({text: expected[text] for text in nats}, rel=1e-5)
    best = sorted(expected, key=lambda text: -expected[text])[:5]
    assert set(best) <= set(nats)
    total = sum(math.exp(each - expected[best[0]]) for each in expected.values())
    for c in found:
        assert c.probability == pytest.approx(math.exp(c.log_probability - expected[best[0]]) / total, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sentence", ["ab____e.d", "____cab", "da c____b.", "ab c.____e"])
@pytest.mark.parametrize("longest", [1, 2])
def test_filling_is_trying_every_candidate(
    name: str, sentence: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tried(MODELS[name], *sentence.split("____"), longest)
    assert_same_filling(MODELS[name], sentence, longest, expected)
    monkeypatch.setattr(reading, "_SCORES", 50)
    if longest == 1:
        monkeypatch.setattr(infilling, "_BEAM", 3)  # in pieces
    assert_same_filling(MODELS[name], sentence, longest, expected)


VERSES = "the cat sat on the mat.\nthe undo log is on the mat.\na dog ate the cake!\nthe cat ate the log.\n" * 5
CHINESE = "我在吃苹果。\n他在吃米饭。\n我喜欢红色的苹果。\n" * 5


def words_or_pieces(kind: Kind, text: str, counts: bool) -> Scorer:
    vocabulary = learned_symbols(kind, lambda: [text])
    if counts:
        return NGram(text, 3, vocabulary)
    torch.manual_seed(5)
    sizes = Sizes("gru", 1, 9, 4)
    network = LanguageNetwork(sizes, len(vocabulary))
    with torch.no_grad():
        network.output.weight *= 6
    return LanguageModel(network, sizes, vocabulary)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("sentence", ["the ____ sat on the mat.", "a dog ate the ____.", "the un____ log", "____ cat"])
def test_words_are_filled_and_their_sentence_is_scored_as_it_stands(counts: bool, sentence: str) -> None:
    model = words_or_pieces("words", VERSES, counts)
    known = [w for w in model.vocabulary.symbols if w != "\n"]
    left, right = sentence.split("____")
    begins, ends = ("un" if "un" in left else ""), ("." if right == "." else "")
    fits = [w[len(begins) : len(w) - len(ends)] for w in known if w.startswith(begins) and w.endswith(ends)]
    found = model.fill(sentence, top=99).candidates
    expected = {each: model.score(left + each + right)[0].log_probability for each in fits}
    assert {c.text: c.log_probability for c in found} == pytest.approx({c.text: expected[c.text] for c in found})
    assert found[0].text == max(expected, key=lambda each: expected[each])
    if counts:
        assert found[0].text == {"____ cat": "the", "the un____ log": "do"}.get(sentence, found[0].text)


@pytest.mark.parametrize("kind", ["words", "bpe"])
@pytest.mark.parametrize("counts", [True, False])
def test_filled_words_and_pieces_have_the_score_of_their_sentence(kind: Kind, counts: bool) -> None:
    for text, sentence in ((VERSES, "the cat ____ the log."), (CHINESE, "他在____苹果。"), (CHINESE, "我喜欢____")):
        model = words_or_pieces(kind, text, counts)
        filled = model.fill(sentence, longest=2)
        assert "\n" not in filled.best and "\ufffd" not in filled.best
        if not sentence.endswith("____"):
            (whole,) = model.score(filled.best)  # alone; the candidates' sentences were scored side by side
            assert filled.candidates[0].log_probability == pytest.approx(whole.log_probability, rel=1e-6)
        if counts and sentence == "他在____苹果。":
            assert filled.candidates[0].text == "吃"


def test_a_part_of_a_word_that_no_word_has_is_said() -> None:
    model = words_or_pieces("words", VERSES, True)
    with pytest.raises(InputError, match=r"^No word of the model begins with 'xy' and ends with ''; put a blank"):
        model.fill("the xy____ log")


@pytest.mark.parametrize("name", ["lstm", "3-gram", "5-gram of sentences"])
def test_what_is_far_behind_is_given_up_but_not_the_best(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]
    monkeypatch.setattr("recurra.tasks.scorer._LEAST", 1)
    rng = random.Random(8)
    for _ in range(12):
        left, right = ("".join(rng.choices(LETTERS, k=4)) for _ in range(2))
        expected = tried(model, left, f"{right}e", 1)
        order = sorted(expected, key=lambda text: -expected[text])
        assert model.fill(f"{left}[]{right}e", top=1, longest=1, blank="[]").candidates[0].text == order[0]
        with monkeypatch.context() as patch:
            patch.setattr(infilling, "_BEHIND", 0.01)  # as many as are asked for are there all the same
            found = model.fill(f"{left}[]{right}e", top=7, longest=1, blank="[]").candidates
            assert [c.text for c in found] == order


def test_whatever_mark_ends_the_sentence_belongs_to_the_candidate() -> None:
    model = NGram("the cat.\nthe cat!\nthe dog.\nthe mat.\nthe cow\n" * 3, 4)
    found = {c.text: c for c in model.fill("the ____", longest=3, top=99).candidates}
    ends = [model.score(f"the cat{mark}")[0].log_probability for mark in ("", ".", "!")]
    assert found["cat"].log_probability == pytest.approx(np.logaddexp.reduce(ends))
    assert [c.text for c in model.fill("the ____", longest=3).candidates[:1]] == ["cat"]
    assert not {".", "!", "cat."} & set(found)
    assert max(map(len, found)) == 3
    assert model.fill("the ____.", longest=3).best == "the cat."
    short = model.fill("the ca____", longest=1, top=99).candidates
    assert short[0].text == "t" and {len(c.text) for c in short} == {1}
    assert short[0].log_probability == pytest.approx(np.logaddexp.reduce(ends))


# Each line has a middle symbol that its left says nothing of, and its right everything.
PARTNERS = {"x": "pp", "y": "qr", "z": "sp"}
GRAMMAR = "".join(
    f"{rng.choice(('ab', 'ba', 'aab'))}{m}{PARTNERS[m]}\n"
    for rng in [random.Random(4)] for m in rng.choices("xyz", k=400)
)  # fmt: skip


@pytest.fixture(scope="module")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("grammar")
    (place / "lines.txt").write_text(GRAMMAR)
    recurra.train(
        place / "lines.txt", out=place / "run", hidden=24, embedding=8, window=12, batch=8, steps=150, dropout=0.0,
        learning_rate=0.02, warmup=5, threads=1,
    )  # fmt: skip
    return place / "run"


@pytest.fixture(scope="module", params=["network", "3-gram"])
def learned(request: pytest.FixtureRequest, grammar: Path) -> Any:
    return recurra.load(grammar) if request.param == "network" else NGram(GRAMMAR, 3)


@pytest.mark.parametrize("middle", PARTNERS)
def test_the_right_decides_where_the_left_does_not(learned: Any, middle: str) -> None:
    for left in ("ab", "ba", "aab"):
        filled = learned.fill(f"{left}____{PARTNERS[middle]}", longest=1)
        assert (filled.best, filled.candidates[0].text) == (f"{left}{middle}{PARTNERS[middle]}", middle)
        assert filled.candidates[0].probability > 0.9
        open_right = learned.fill(f"{left}__", candidates=[f"{m}{PARTNERS[m]}" for m in "xyz"])
        assert max(c.probability for c in open_right.candidates) < 0.7


def test_several_symbols_are_found_and_given_ones_are_compared(learned: Any) -> None:
    assert learned.fill("a____pp").candidates[0].text == "bx"
    given_ones = learned.fill("ab____sp", candidates=["x", "y", "z", "z"])
    assert given_ones.candidates[0].text == "z" and given_ones.considered == 3
    assert sum(c.probability for c in given_ones.candidates) == pytest.approx(1)
    assert learned.fill("ab[?]sp", blank="[?]", longest=1).best == "abzsp"
    assert "z" in str(learned.fill("ab＿＿sp"))


def test_candidates_are_ranked_by_the_sentence_and_by_the_recogniser(learned: Any) -> None:
    groups = [["abxqr", "abxpp"], [("baysp", -1.0), ("bazsp", -1.5), ("bazqr", -50.0)]]
    first, second = learned.rank(groups)
    assert first.best == "abxpp" and [c.place for c in first.candidates] == [1, 0]
    assert (first.id, second.id, second.best) == ("1", "2", "bazsp")
    for c in second.candidates:
        assert c.combined == pytest.approx(c.score + learned.score(c.text)[0].log_probability, rel=1e-5)
    with pytest.raises(InputError, match=r"^weight=0\.5 weighs the model against the recogniser's own scores, and"):
        learned.rank(groups, weight=0.5)
    assert learned.rank(groups[1:], weight=0.0)[0].best == "baysp"
    assert [c.text for c in learned.rank([["ab", "ab"]])[0].candidates] == ["ab", "ab"]


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "no blank": (lambda m: m.fill("abx"), "The sentence 'abx' has no blank; write ____ where something is missing."),
    "own blank": (lambda m: m.fill("ab____", blank="[?]"), "The sentence 'ab____' has no blank; write [?] where"),
    "two": (lambda m: m.fill("a____b__"), "The sentence 'a____b__' has 2 blanks, and one is filled at a time; write"),
    "alone": (lambda m: m.fill(" ____ "), "The sentence ' ____ ' is a blank alone; give words on its left or right."),
    "empty": (lambda m: m.fill(" "), "The sentence is empty; give one with a blank in it, as in 'The cat ____.'"),
    "no text": (lambda m: m.fill(3), "sentence is an int; give a string with a blank in it, as in 'The cat ____.'"),
    "bad blank": (lambda m: m.fill("a__", blank=""), "blank='' cannot mark a blank; give some characters that the"),
    "top": (lambda m: m.fill("a__", top=0), "top=0 cannot be used; give a whole number of 1 or more."),
    "longest": (lambda m: m.fill("a__", longest=1.5), "longest=1.5 cannot be used; give a whole number of 1 or more."),
    "both": (lambda m: m.fill("a__", longest=2, candidates=["x"]), "longest=2 is of candidates that are found, but"),
    "a string": (lambda m: m.fill("a__", candidates="xy"), "candidates is a str; give a list of strings, as in"),
    "empty one": (lambda m: m.fill("a__", candidates=["x", ""]), "candidates[1] is empty; leave it out."),
    "none": (lambda m: m.fill("a__", candidates=[]), "candidates is empty; give at least one text."),
    "score": (lambda m: m.score(["a", 3]), "texts[1] is an int; give a string."),
    "flat": (lambda m: m.rank(["ab", "ba"]), "groups[0] is a str; give a list of candidates."),
    "no groups": (lambda m: m.rank([]), "groups is empty; give at least one group of candidates."),
    "no candidates": (lambda m: m.rank([["a"], []]), "groups[1] is empty; give at least one candidate."),
    "some scores": (lambda m: m.rank([["a", ("b", 1)]]), "groups[0] has 2 candidates but 1 scores; give all or none."),
    "nan": (lambda m: m.rank([[("a", math.nan)]]), "groups[0][0] has the score nan; give a finite number."),
    "weight": (lambda m: m.rank([[("a", 1)]], weight=-1), "weight=-1 cannot be used; give 0 or a number above it."),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_done_is_said(name: str) -> None:
    ask, message = WRONG[name]
    with pytest.raises(InputError) as told:
        ask(MODELS["3-gram"])
    assert str(told.value).startswith(message)


def test_symbols_that_are_not_known_are_named() -> None:
    for ask, whose in (
        (lambda: MODELS["lstm"].score(["ab☃", "☃é"]), "The texts have '☃' 'é', which the model does not know: read as"),
        (lambda: MODELS["3-gram"].fill("☃b____"), "The sentence has '☃', which the model does not know: read as"),
        (lambda: MODELS["3-gram"].fill("b____", candidates=["☃"]), "The sentences have '☃', which the model does"),
        (lambda: MODELS["rnn"].rank([["☃"]]), "The candidates have '☃', which the model does not know: read"),
    ):
        with pytest.warns(UserWarning, match=whose) as told:
            ask()
        assert told[0].filename == __file__


def test_a_classifier_neither_fills_nor_ranks() -> None:
    model = Classifier.__new__(Classifier)
    for name, message in (
        ("fill", "A model of the task 'classification' does not fill blanks; give a language model."),
        ("rank", "A model of the task 'classification' does not rank candidates; give a language model."),
        ("score", "A model of the task 'classification' does not say how likely a text is."),
    ):
        with pytest.raises(InputError) as told:
            getattr(model, name)("a____b")
        assert str(told.value) == message


def test_groups_of_a_file() -> None:
    found = groups_of_text("c.txt", "\nabx\nab y\n\n \nabz\t-1.5\na\tb\t2e3\n")
    assert found == [Group("1", ["abx", "ab y"], None), Group("2", ["abz", "a\tb"], [-1.5, 2000.0])]
    lines = '{"id": 7, "text": "abx"}\n{"id": "u", "text": "b", "score": 1}\n\n{"id": 7, "text": "aby"}\n'
    assert groups_of_text("c.jsonl", lines) == [Group("7", ["abx", "aby"], None), Group("u", ["b"], [1.0])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "\n \n", "c.txt has no candidates; give one a line, and a blank line between groups."),
        ("c.txt", "ab\tx\n", "Line 1 of c.txt has 'x' after the tab, where the recogniser's score stands; give a"),
        ("c.txt", "ab\t1\nabc\n", "Line 2 of c.txt has no score, but other candidates of group 1 have one; give all"),
        ("c.txt", "\n\t1\n", "Line 2 of c.txt has a score but no candidate; write the candidate before the tab."),
        ("c.txt", "ab\tnan\n", "Line 1 of c.txt has the score nan; give a finite number."),
        ("c.jsonl", '{"id": 1, "text": "a"}\n{"id": 1}\n', "Line 2 of c.jsonl is no candidate: Object missing"),
        ("c.jsonl", '{"id": 1, "text": " "}\n', "Line 1 of c.jsonl has an empty text; leave it out."),
    ],
)
def test_a_file_of_candidates_that_cannot_be_read_is_told_by_line(name: str, content: str, message: str) -> None:
    with pytest.raises(DataError) as told:
        groups_of_text(name, content)
    assert str(told.value).startswith(message)


def test_the_commands(grammar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fill", str(grammar), "ab____pp", "ba____qr", "--longest", "1", "--top", "2"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.splitlines()[0] == "ab____pp" and first.splitlines()[1].endswith("  x")
    assert second.splitlines()[1].endswith("  y") and len(second.strip().splitlines()) == 3
    assert run(["fill", str(grammar), "ab[]pp", "--blank", "[]", "--candidates", "x,y", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["best"], [c["text"] for c in told["candidates"]], told["considered"]) == ("abxpp", ["x", "y"], 2)
    file = tmp_path / "c.txt"
    file.write_text("abxqr\t-1\nabxpp\t-2\n\nbayqr\t0\n")
    assert run(["rank", str(grammar), str(file), "--best"]) == 0
    out, err = capsys.readouterr()
    assert out == "abxpp\nbayqr\n"
    assert err == "recurra: 1 group has one candidate, among which there is nothing to choose\n"
    assert run(["rank", str(grammar), str(file), "--weight", "0"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows] == ["abxqr", "abxpp", "", "bayqr"] and rows[0][0] == "-1.0000"
    assert run(["rank", str(grammar), str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (told["id"], told["candidates"][0]["text"], told["candidates"][0]["place"]) == ("1", "abxpp", 1)
    assert run(["fill", str(grammar), "ab"]) == WRONG_INPUT
    assert "has no blank; write ____" in capsys.readouterr().err


def test_what_the_commands_read(
    grammar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def standard_input(content: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    standard_input("ab____pp\n\nba____qr\n")
    assert run(["fill", str(grammar), "--candidates", "x,y", "--top", "1"]) == 0
    out, err = capsys.readouterr()
    assert [line[-1] for line in out.splitlines() if line.startswith(" ")] == ["x", "y"]
    assert err == "recurra: 1 blank line was left out\n"
    standard_input("abxqr\nabxpp\n")
    assert run(["rank", str(grammar), "--best"]) == 0
    assert capsys.readouterr().out == "abxpp\n"
    file = tmp_path / "c.txt"
    for content, told in (
        (b"ab\na\xff\n", f"{file} is not UTF-8 throughout: 1 line is not, the first is line 2, whose byte 2 is 0xff;"),
        (b"", f"{file} is empty (0 bytes); give at least one line."),
    ):
        file.write_bytes(content)
        for words in (["rank", str(grammar), str(file)], ["fill", str(grammar), "--file", str(file)]):
            assert run(words) == WRONG_INPUT
            assert capsys.readouterr().err.startswith(f"recurra: {told}")
    standard_input("")
    assert run(["rank", str(grammar)]) == WRONG_INPUT
    assert capsys.readouterr().err.startswith("recurra: standard input has no candidates; give one a line,")

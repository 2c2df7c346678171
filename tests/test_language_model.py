"""The language model: what it measures, what it writes, who is ahead, and the models of earlier releases."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import recurra
from recurra.data.symbols import Characters
from recurra.data.text import Text
from recurra.errors import DataError, InputError
from recurra.tasks.evaluation import Evaluation, verdict
from recurra.tasks.language import LanguageNetwork, Sizes, measure
from recurra.tasks.language_model import LanguageModel, baseline_models
from recurra.training.run import Run


def test_the_model_format_of_the_first_release_is_still_read() -> None:
    model = recurra.load(Path(__file__).parent / "models" / "format-1")
    assert isinstance(model, LanguageModel)
    assert model.generate("abc", 13, temperature=0) == "defghabcdefgh"
    assert model.bits_per_character("abcdefghabcd") == pytest.approx(0.0910526, abs=1e-4)


def small_network(seed: int = 0) -> LanguageNetwork:
    torch.manual_seed(seed)
    return LanguageNetwork(Sizes("gru", 1, 12, 5), 9)


def naive_loss(network: LanguageNetwork, numbers: np.ndarray[Any, Any]) -> float:
    scores, _ = network.requires_grad_(False)(torch.from_numpy(numbers[:-1])[:, None])
    return float(torch.nn.functional.cross_entropy(scores[:, 0].double(), torch.from_numpy(numbers[1:])))


@pytest.mark.parametrize("length", [2, 3, 100, 1025])
def test_a_measure_in_one_lane_is_the_plain_mean(length: int) -> None:
    numbers = np.random.default_rng(1).integers(0, 9, length)
    network = small_network()
    assert measure(network, numbers) == pytest.approx(naive_loss(network, numbers), rel=1e-6)


@pytest.mark.parametrize("length", [2100, 5000, 70_001])
def test_lanes_hardly_change_a_measure(length: int) -> None:
    numbers = np.random.default_rng(2).integers(0, 9, length)
    network = small_network().train()
    assert measure(network, numbers) == pytest.approx(naive_loss(network, numbers), rel=1e-5)
    assert network.training  # as it was


def test_the_state_is_carried_over_and_the_gradient_is_cut() -> None:
    network = small_network().eval()
    numbers = torch.from_numpy(np.random.default_rng(3).integers(0, 9, (21, 2)))
    whole, _ = network.loss(numbers[:-1], numbers[1:])
    first, state = network.loss(numbers[:10], numbers[1:11])
    second, _ = network.loss(numbers[10:20], numbers[11:21], state)
    assert ((first + second) / 2).item() == pytest.approx(whole.item(), rel=1e-5)
    assert not any(s.requires_grad for s in state)


def test_of_the_training_text_only_the_unseen_part_is_measured(trained: Run) -> None:
    result = trained.model.evaluate(trained.path.parent / "abc.txt")
    assert result.characters == 199
    assert "only the part that it has not seen" in result.note
    assert list(result.baselines) == ["unigram", "3-gram", "5-gram"]
    assert result.baselines["unigram"] == pytest.approx(3, abs=0.1)
    assert "bits per character" in str(result)


def test_another_text_with_unknown_characters(trained: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("abcdéfgh☃abcdefgh☃" * 3)
    result = trained.model.evaluate(other)
    assert result.unknown == {"☃": 6, "é": 3}
    assert "9 characters ('☃' 'é') are not in the model's vocabulary" in str(result)
    assert math.isfinite(result.bits_per_character) and all(map(math.isfinite, result.baselines.values()))
    assert result.characters == 53 and not result.note


def test_without_the_training_text_the_missing_baselines_are_said(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "abc.txt").write_text("abcdefgh" * 9)
    model = recurra.load(trained.path)
    assert isinstance(model, LanguageModel) and model.data is not None
    moved = LanguageModel(
        model.network,
        model.sizes,
        model.vocabulary,
        data=msgspec.structs.replace(model.data, name="gone.txt"),
    )
    result = moved.evaluate(tmp_path / "abc.txt")
    assert result.baselines == {} and "because they need the training text (gone.txt)" in result.note
    assert "no baseline" in result.verdict


def test_the_prompt_may_hold_unknown_characters_and_says_so(trained: Run) -> None:
    with pytest.warns(UserWarning, match="'☃', which the model does not know"):
        written = trained.model.generate("abc☃", 300, temperature=3.0, seed=1)
    assert set(written) <= set("abcdefgh")


@pytest.mark.parametrize("temperature", [0, 1])
def test_without_a_prompt_it_begins_with_a_character_that_is_no_blank(temperature: float) -> None:
    network = LanguageNetwork(Sizes("gru", 1, 4, 3), 5)
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.tensor([9.0, 9.0, 9.0, -9.0, -8.0]))
    model = LanguageModel(network, Sizes("gru", 1, 4, 3), Characters("\n ab"))
    assert model.generate("", 3, temperature, seed=1)[0] in "ab"
    assert model.generate("a", 3, 0)[0].isspace()  # after a prompt it is free
    blanks = LanguageModel(LanguageNetwork(Sizes("gru", 1, 4, 3), 3), Sizes("gru", 1, 4, 3), Characters("\n "))
    assert len(blanks.generate("", 3, temperature)) == 3
    with pytest.raises(InputError, match="length=-5 cannot be written"):
        model.stream("", -5)
    for write in (model.stream, model.generate):
        with pytest.raises(InputError, match=r"^prompt is an int, but is the text to go on from; give a str\.$"):
            write(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^data is an int; give the path of a text file, a list or an array of "):
        model.evaluate(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^The path of the model is an int; give the path of its folder\.$"):
        model.save(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^The path of the model is an int; give the path of its folder\.$"):
        recurra.load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bits", "baselines", "line"),
    [
        (1.0, {"unigram": 3.0, "5-gram": 2.0}, "The model is ahead with 1.000 bits per character; behind it 5-gram "
         "2.000, unigram 3.000."),
        (2.5, {"5-gram": 2.0}, "The 5-gram is ahead with 2.000 bits per character; behind it the model 2.500."),
        (0.0, {"unigram": -0.0}, "The model and the unigram are level with 0.000 bits per character."),
        (1.0, {"unigram": 3.0, "3-gram": 1.0, "5-gram": 1.0001}, "The model, the 3-gram and the 5-gram are level with "
         "1.000 bits per character; behind them unigram 3.000."),
    ],
)  # fmt: skip
def test_who_is_ahead(bits: float, baselines: dict[str, float], line: str) -> None:
    assert verdict(bits, baselines) == line


def test_one_character_is_not_characters() -> None:
    assert "over 1 character." in str(Evaluation(1.0, 1, "x", {"☃": 1}))
    assert "1 character ('☃') is not in the model's vocabulary and was read" in str(Evaluation(1.0, 1, "x", {"☃": 1}))
    assert "over 2,000 characters." in str(Evaluation(1.0, 2000, "x"))


def test_baselines_of_a_part_of_a_long_text_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recurra.tasks.language_model._BASELINE_CHARACTERS", 1000)
    models = baseline_models(Text("t", "ab" * 400 + "cd" * 500), Characters("abcd"))
    assert list(models) == [f"{name} of the last 1,000 characters" for name in ("unigram", "3-gram", "5-gram")]
    assert models["unigram of the last 1,000 characters"].bits_per_character("abab") > 8  # it has not seen them
    assert list(baseline_models(Text("t", "ab" * 500), Characters("ab"))) == ["unigram", "3-gram", "5-gram"]


def test_a_text_of_one_character_cannot_be_measured(trained: Run) -> None:
    with pytest.raises(DataError, match="has 1 character but at least 2 are needed"):
        trained.model.evaluate(Text("x", "a"))


def test_a_network_starts_from_the_frequencies_of_the_text() -> None:
    network = small_network()
    network.start_from(torch.tensor([0, 70, 20, 10, 0, 0, 0, 0, 0]))
    p = network.output.bias.detach().softmax(0)
    assert p[1:4].tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    assert p.min() > 0
    lstm = LanguageNetwork(Sizes("lstm", 2, 6, 3), 9).state_dict()
    for bias in (lstm["recurrent.bias_ih_l0"], lstm["recurrent.bias_ih_l1"]):
        inside = [abs(bias[6 * k : 6 * k + 6] - float(k == 1)).max() <= 6**-0.5 for k in range(4)]
        assert all(inside)  # i, f, g, o: only the forget gates start open

"""Language networks: encoders that see nothing later, tied matrices, AWD-LSTM's parts, adaptive softmax, the loss."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import TINY, contents, log

import recurra
from recurra.errors import InputError
from recurra.tasks import softmax
from recurra.tasks.causal import State
from recurra.tasks.language import LanguageNetwork, Regularisation, Sizes, measure
from recurra.tasks.language_model import LanguageModel

SYMBOLS = 11
ENCODERS = {
    "lstm": Sizes("lstm", 2, 8, 8),
    "tied": Sizes("lstm", 2, 8, 8, tied=True),
    "cells": Sizes("gru", 2, 8, 8, cells=True),
    "a cell with four states": Sizes("slstm", 1, 8, 8, cells=True),
    "projected": Sizes("lstmprojected", 2, 8, 8, cells=True),
    "cnn": Sizes(None, 3, 8, 8, "cnn"),
    "transformer": Sizes(None, 2, 8, 8, "transformer"),
    "adaptive": Sizes("gru", 1, 8, 8, cutoffs=[3, 6]),
    "one-hot": Sizes("lstm", 1, 8, 0),
}


def network_of(sizes: Sizes, **held: Any) -> LanguageNetwork:
    torch.manual_seed(1)
    return LanguageNetwork(sizes, SYMBOLS, Regularisation(**held))


def text(steps: int, rows: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(steps).integers(0, SYMBOLS, (steps, rows)))


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_text_in_pieces_is_the_text_at_once_and_nothing_later_is_seen(name: str) -> None:
    network, symbols = network_of(ENCODERS[name]).eval(), text(21)
    whole, _ = network(symbols)
    state: State | None = None
    pieces = []
    for piece in symbols.split([1, 7, 2, 11]):
        scores, state = network(piece, state)
        pieces.append(scores)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-5, atol=1e-5)
    changed = symbols.clone()
    changed[15:] = (changed[15:] + 1) % SYMBOLS
    torch.testing.assert_close(network(changed)[0][:15], whole[:15], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_lane_that_begins_anew_is_a_first_one(name: str) -> None:
    network = network_of(ENCODERS[name]).eval()
    _, state = network.encode(text(9))
    network.begin(state, 0)
    anew, _ = network(text(5), state)
    first, _ = network(text(5))
    torch.testing.assert_close(anew[:, 0], first[:, 0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(anew[:, 1], first[:, 1])


def test_what_attention_remembers_is_of_one_length() -> None:
    network = network_of(ENCODERS["transformer"]).eval()
    _, state = network.encode(text(200))
    assert [tuple(s.shape) for s in state] == [(128, 2, 1), (128, 2, 8), (128, 2, 8)]


def test_tied_is_the_same_tensor() -> None:
    network = network_of(ENCODERS["tied"])
    assert [name for name, _ in network.named_parameters() if "output" in name] == ["output_bias"]
    loss, _ = network.loss(text(4), text(5)[1:])
    loss.backward()
    assert network.embedding is not None and network.embedding.weight.grad is not None
    with torch.no_grad():
        network.embedding.weight[3] = 0
    scores = network.eval()(text(4))[0]
    assert network.output_bias is not None
    torch.testing.assert_close(scores[..., 3], network.output_bias[3].expand(4, 2))


@pytest.mark.parametrize("numbers", [1, 60, 10_000])
def test_the_loss_in_parts_is_the_plain_one_with_its_gradients(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_NUMBERS", numbers)
    y, weight, bias = (torch.randn(n, dtype=torch.double, requires_grad=True) for n in ((7, 4), (20, 4), (20,)))
    targets = torch.tensor([0, 19, 3, 3, 7, 1, 0])
    ours = softmax.linear_cross_entropy(y, weight, bias, targets)
    plain = F.cross_entropy(F.linear(y, weight, bias), targets)
    torch.testing.assert_close(ours, plain)
    wanted = torch.autograd.grad(3 * plain, (y, weight, bias))
    torch.testing.assert_close(torch.autograd.grad(3 * ours, (y, weight, bias)), wanted)
    near = softmax.linear_cross_entropy(y.float(), weight.float(), bias.float(), targets, bf16=True)
    assert float(near) == pytest.approx(float(plain), rel=0.03)


@torch.no_grad()
def test_the_adaptive_softmax_gives_the_probabilities_that_it_is_trained_by() -> None:
    network, symbols = network_of(ENCODERS["adaptive"]).eval(), text(30)
    y, _ = network.encode(symbols[:-1])
    scores = network.scores(y)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(29, 2))
    each = F.cross_entropy(scores.flatten(0, 1), symbols[1:].flatten(), reduction="none")
    torch.testing.assert_close(network.nats(y, symbols[1:]), each)
    network.start_from(torch.tensor([0, 50, 20, 10, 5, 5, 4, 3, 2, 1, 0]))
    assert float(network(symbols)[0][0, 0, 1].exp()) > 3 * float(network(symbols)[0][0, 0, 6].exp())


AWD: dict[str, Any] = {"dropout": 0.3, "variational": True, "embedding": 0.2, "weight": 0.4}


def test_the_masks_of_awd_hold_for_a_window_and_follow_the_seed() -> None:
    network = network_of(Sizes("lstm", 2, 8, 8, cells=True), **AWD).train()

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return network.encode(text(6))[0]

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))
    masks = network.dropout(torch.ones(5, 2, 8))
    assert torch.equal(masks, masks[:1].expand(5, -1, -1)) and len(masks[0].unique()) == 2
    torch.manual_seed(0)
    vectors = network._vectors(torch.arange(SYMBOLS)[:, None].repeat(1, 2))
    assert torch.equal(vectors[:, 0], vectors[:, 1])  # a symbol is dropped wherever it stands
    assert 0 < int((vectors[:, 0].abs().sum(-1) == 0).sum()) < SYMBOLS
    evaluated = network.eval().encode(text(6))[0]
    plain = network_of(Sizes("lstm", 2, 8, 8, cells=True)).eval()
    assert list(plain.state_dict()) == list(network.state_dict())  # no weight has a name of training
    plain.load_state_dict(network.state_dict())
    assert torch.equal(plain.encode(text(6))[0], evaluated)


def test_penalties_are_those_of_merity() -> None:
    held = network_of(ENCODERS["lstm"], activation=2.0, slowness=1.5).train()
    y, _ = held.encode(text(4))
    plain = held.nats(y, text(5)[1:]).mean()
    expected = plain + 2 * y.square().mean() + 1.5 * (y[1:] - y[:-1]).square().mean()
    torch.testing.assert_close(held.loss(text(4), text(5)[1:])[0], expected)
    torch.testing.assert_close(held.eval().loss(text(4), text(5)[1:])[0], plain)


def test_training_runs_on_the_native_machine(strict: None) -> None:
    for held in ({"dropout": 0.2}, AWD):
        network = network_of(Sizes("lstm", 2, 8, 8, cells="weight" in held), **held).train()
        loss, _ = network.loss(text(4), text(5)[1:])
        loss.backward()


GRAMMAR = "the cat sat .\nthe dog ran .\n"  # after "the" two words are equally likely: ln 2 nats in five words


def grammar(lines: int) -> str:
    return "".join(np.random.default_rng(5).choice(GRAMMAR.splitlines(keepends=True), lines))


@pytest.mark.parametrize("more", [{"tied": True, "embedding": 16}, {"encoder": "cnn"}, {"encoder": "transformer"}])
def test_a_grammar_is_learned_to_its_entropy(more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(grammar(400))
    (tmp_path / "valid.txt").write_text(grammar(100))
    (tmp_path / "test.txt").write_text(grammar(100))
    run = recurra.train(
        tmp_path, task="language", out=tmp_path / "run", symbols="words", hidden=16, steps=100, batch=8, window=10,
        learning_rate=0.02, dropout=0.0, eval_interval=100, threads=1, sample_length=0, **more,
    )  # fmt: skip
    result = run.model.evaluate(tmp_path)
    assert math.exp(math.log(2) / 5) == pytest.approx(1.1487, abs=1e-4)
    assert 1.10 < result.perplexity < 1.20 and result.kind == "words" and result.text.endswith("test.txt")
    assert run.measure.key == "perplexity" and 1.1 < run.baselines["3-gram"] < 1.2
    again = recurra.load(tmp_path / "run")
    assert isinstance(again, LanguageModel)
    assert again.loss("the cat sat .\n") == pytest.approx(run.model.loss("the cat sat .\n"), rel=1e-5)


def test_many_words_are_told_apart_by_an_adaptive_softmax_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recurra.training.language._LARGE", 30)
    path = tmp_path / "many.txt"
    path.write_text(" ".join(f"w{n % 60}" for n in range(2000)))
    run = recurra.train(path, out=tmp_path / "run", **{**TINY, "symbols": "words"})
    (note,) = run.notes
    assert note.startswith("61 different words are known; 1 of the validation text is not among them.")
    assert note.endswith(" So many are told apart by an adaptive softmax.")
    again = recurra.load(run.path)
    assert isinstance(again, LanguageModel) and again.sizes.cutoffs == [3, 15] and again.network.adaptive is not None
    assert len(again.generate("w1 w2", 5, seed=1).split()) == 5
    tied = recurra.train(path, out=tmp_path / "tied", **{**TINY, "symbols": "words", "tied": True, "embedding": 8})
    assert not tied.model.sizes.cutoffs


PARTS = {
    "awd": {"weight_drop": 0.3, "variational": True, "embedding_dropout": 0.1, "tied": True, "embedding": 8,
            "activation_penalty": 2.0, "slowness_penalty": 1.0, "layers": 2},
    "transformer": {"encoder": "transformer", "symbols": "bpe", "vocabulary": 12},
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path: Path, text: Path) -> None:
    settings = {**TINY, **PARTS[name]}
    whole = recurra.train(text, out=tmp_path / "whole", **settings)
    stopped = recurra.train(text, out=tmp_path / "stopped", **{**settings, "time_limit": 1e-9})
    assert stopped.step < whole.step
    shutil.rmtree(tmp_path / "stopped" / "best", ignore_errors=True)
    recurra.resume(tmp_path / "stopped", time_limit=1e9)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert log(tmp_path / "stopped")[-1] == log(tmp_path / "whole")[-1]


REFUSED = {
    "tied=True makes the output's matrix that of the embedding, which is embedding=4 wide, but what the layers give is "
    "8 wide; give embedding=8, or leave it out.": {"tied": True},
    "weight_drop=0.1 drops recurrent matrices, which are called …hh…, and SRU has none but weight_ih, weight_ch, "
    "bias_ih; leave it out, or call the matrix weight_hh.": {"cell": "sru", "weight_drop": 0.1},
    "weight_drop=0.1 says nothing to encoder='cnn'; leave one of them out.": {"encoder": "cnn", "weight_drop": 0.1},
    "cell='gru' says nothing to encoder='cnn'; leave one of them out.": {"encoder": "cnn", "cell": "gru"},
    "encoder='bag' knows nothing of the order of symbols, which a language model predicts; give recurrent, cnn or "
    "transformer.": {"encoder": "bag"},
    "min_count=3 says nothing to symbols='bpe'; leave one of them out.": {"symbols": "bpe", "min_count": 3},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_settings_that_do_not_go_together_are_refused(message: str, text: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        recurra.train(text, out=tmp_path / "run", **{**TINY, **REFUSED[message]})
    assert str(caught.value) == message


def test_a_measure_of_other_encoders_is_the_plain_mean() -> None:
    numbers = np.random.default_rng(1).integers(0, SYMBOLS, 90)
    network = network_of(ENCODERS["adaptive"])
    scores = network.eval()(torch.from_numpy(numbers[:-1])[:, None])[0][:, 0]
    expected = float(F.cross_entropy(scores.detach(), torch.from_numpy(numbers[1:])))
    assert measure(network, numbers) == pytest.approx(expected, rel=1e-5)

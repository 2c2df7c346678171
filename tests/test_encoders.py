"""Encoders: what they are made of, by name, and the laws that all of them keep."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from generators import reversals, sentiment

import recurra
from recurra.cells.by_name import NAMES
from recurra.errors import InputError
from recurra.tasks.classification import Beginning, ClassificationNetwork, Sizes
from recurra.tasks.encoder import ACTIVATIONS, BatchNorm, within
from recurra.tasks.encoders import ENCODERS, USES, EncoderSizes, encoder_of
from recurra.tasks.initialisers import INITIALISERS, initialise
from recurra.training.settings import Settings, describe

TINY: dict[str, Any] = {
    "hidden": 6, "embedding": 4, "threads": 1, "batch": 8, "steps": 4, "eval_interval": 4, "log_interval": 2,
}  # fmt: skip


class Halving(recurra.Cell):
    """h_t = tanh(W x_t + h_{t-1} / 2): a cell of one's own."""

    def __init__(self, input_size: int, hidden_size: int, forget_bias: float = 0.0) -> None:
        super().__init__(input_size, hidden_size)
        self.W = torch.nn.Linear(input_size, hidden_size)
        torch.nn.init.constant_(self.W.bias, forget_bias)

    def step(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.W(x) + h / 2)


def made(encoder: str, layers: int = 2, **more: Any) -> recurra.tasks.encoder.Encoder:
    cell = {"cell": "gru"} if encoder == "recurrent" else {}
    sizes = EncoderSizes(**{"encoder": encoder, "layers": layers, "hidden": 6, **cell, **more})
    return encoder_of(sizes, 4, 0.0)


# ---------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_interface(encoder: str) -> None:
    torch.manual_seed(0)
    network = made(encoder).eval()
    x, lengths = torch.randn(7, 3, 4), torch.tensor([7, 1, 4])
    y, after = network(x, lengths)
    assert y.shape[1:] == (3, network.width)
    assert network.aligned == (encoder != "bag")
    assert torch.equal(after, lengths) if network.aligned else y.shape[0] == 1 and after.tolist() == [1, 1, 1]


@pytest.mark.parametrize("encoder", USES["normalisation"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_enter_the_statistics(encoder: str, training: bool) -> None:
    torch.manual_seed(0)
    network = made(encoder, normalisation="batch").train(training)
    x, lengths = torch.randn(5, 3, 4), torch.tensor([5, 2, 3])
    noisy = torch.where(within(lengths, x), x, 1e3)
    longer = torch.cat([noisy, torch.full((4, 3, 4), -1e3)])
    seen = []
    for each in (x * within(lengths, x), noisy, longer):
        for norm in (m for m in network.modules() if isinstance(m, BatchNorm)):
            norm.reset_running_stats()
        y, after = network(each, lengths)
        means = torch.cat([m.running_mean for m in network.modules() if isinstance(m, BatchNorm)])  # type: ignore[misc]
        seen.append((y[: after.max()].masked_fill(~within(after, y[: after.max()]), 0), means))
    for y, means in seen[1:]:
        torch.testing.assert_close(y, seen[0][0])
        torch.testing.assert_close(means, seen[0][1])


def test_batch_normalisation_by_hand() -> None:
    norm, lengths = BatchNorm(2), torch.tensor([3, 1])
    y = torch.randn(3, 2, 2)
    inside = within(lengths, y)
    rows = torch.cat([y[:, 0], y[:1, 1]])
    wanted = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm.eps).sqrt()
    found = norm(y, inside)
    torch.testing.assert_close(found[inside[..., 0]], torch.stack([wanted[0], wanted[3], wanted[1], wanted[2]]))
    before = norm.running_mean.clone() if norm.running_mean is not None else None
    one = norm(y[:1, :1], torch.ones(1, 1, 1, dtype=torch.bool))  # one step has no variance: as in use
    torch.testing.assert_close(one, norm.eval()(y[:1, :1], torch.ones(1, 1, 1, dtype=torch.bool)))
    assert before is not None and torch.equal(before, norm.running_mean)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_activations_and_normalisation_have_an_effect(encoder: str) -> None:
    """Each in `USES` changes what an encoder gives; the others are refused in a test of settings."""
    x, lengths = 3 * torch.randn(4, 2, 4), torch.tensor([4, 3])

    def given(**more: Any) -> torch.Tensor:
        torch.manual_seed(1)
        more = {"cell": "elman", **more} if encoder == "recurrent" else more
        return made(encoder, **more)(x, lengths)[0][0]  # type: ignore[no-any-return]

    names = [name for name in ACTIVATIONS if encoder != "recurrent" or name != "leaky_relu"]
    rows = [given(activation=name) for name in names]
    if encoder in USES["normalisation"]:
        rows.append(given(normalisation="batch"))
    for n, row in enumerate(rows):
        assert not any(torch.allclose(row, other) for other in rows[:n])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_initialisers_draw_every_matrix(encoder: str) -> None:
    for name in INITIALISERS:
        torch.manual_seed(0)
        network = made(encoder)
        before = {key: p.clone() for key, p in network.named_parameters()}
        initialise(network, name)
        changed = {key for key, p in network.named_parameters() if not torch.equal(p, before[key])}
        assert changed == ({key for key, p in before.items() if p.ndim > 1} if name != "default" else set())


def test_initialisers_gate_by_gate() -> None:
    network = made("recurrent", cell="lstm", layers=1)
    initialise(network, "orthogonal")
    weights = dict(network.named_parameters())
    for gate in weights["layers.0.cell.weight_hh"].split(6):  # type: ignore[no-untyped-call]
        torch.testing.assert_close(gate @ gate.t(), torch.eye(6), atol=1e-5, rtol=0)
    initialise(network, "xavier")
    bound = (6 / (4 + 6)) ** 0.5
    drawn = weights["layers.0.cell.weight_ih"]
    assert drawn.abs().max() <= bound and drawn.abs().max() > 0.8 * bound
    assert weights["layers.0.cell.bias_ih"][6:12].tolist() == [1.0] * 6  # forget gates stay open


def test_a_residual_layer_adds_what_it_reads() -> None:
    torch.manual_seed(0)
    plain = made("recurrent", layers=2, bidirectional=True)
    torch.manual_seed(0)
    added = made("recurrent", layers=2, bidirectional=True, residual=True)
    x, lengths = torch.randn(5, 2, 4), torch.tensor([5, 3])
    torch.manual_seed(0)
    one = made("recurrent", layers=1, bidirectional=True)
    first, both, sums = (each(x, lengths)[0] for each in (one, plain, added))
    torch.testing.assert_close(sums, first + both)


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": "transformer", "normalisation": "batch"}, "normalisation='batch' says nothing to encoder='trans"),
        ({"encoder": "cnn", "forget_bias": 1.0}, "forget_bias=1.0 says nothing to encoder='cnn'"),
        ({"cell": "gru", "forget_bias": 2.0}, "forget_bias=2.0 says nothing to cell='gru'; leave one of them out."),
        ({"activation": "tanh"}, "activation='tanh' says nothing to cell='lstm'; leave one of them out."),
        (
            {"cell": "elman", "activation": "leaky_relu"},
            "activation='leaky_relu' is none that cell='elman' has; give tanh or relu.",
        ),
        ({"residual": True}, "residual=True says nothing to layers=1, for it joins layers; give layers=2 or more."),
        ({"encoder": "mlp", "residual": True, "layers": 2}, "residual=True says nothing to encoder='mlp'"),
        ({"cell": "Lstm"}, "cell='Lstm' cannot be used; give lstm, gru, rnn, "),
        ({"initialiser": "he"}, "initialiser='he' cannot be used; give default, xavier or orthogonal."),
    ],
)
def test_settings_that_say_nothing_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        recurra.train(sentiment(40), out=tmp_path / "run", **given)


def test_the_settings_are_those_of_the_parts() -> None:
    kinds = {row.name: row.kind for row in describe()}
    assert inspect.get_annotations(Settings)["cell"] and set(NAMES) == set(kinds["cell"].__args__)
    for name, wanted in (("encoder", ENCODERS), ("activation", (*ACTIVATIONS,)), ("initialiser", INITIALISERS)):
        assert kinds[name].__args__ == wanted


def test_they_reach_the_training(tmp_path: Path) -> None:
    rows = sentiment(40)
    each: list[dict[str, Any]] = [{}, {"initialiser": "orthogonal"}, {"forget_bias": 3.0}, {"word_dropout": 0.5}]
    losses = [
        recurra.train(rows, out=tmp_path / str(n), **TINY, **given).history[-1].loss for n, given in enumerate(each)
    ]
    assert len(set(losses)) == len(each)


def test_word_dropout_reads_the_unknown_symbol() -> None:
    sizes = Sizes(encoder="mlp", layers=1, hidden=3, embedding=3, pooling="mean")
    network = ClassificationNetwork(sizes, 5, 2, Beginning(word_dropout=0.5))
    with torch.no_grad():
        network.embedding.symbol.weight[1:] = torch.nan  # type: ignore[union-attr]
    rows = torch.full((1, 400), 3)
    scores = network.train()(rows, torch.ones(400, dtype=torch.long))
    assert 140 < scores.isfinite().all(1).sum() < 260
    assert not network.eval()(rows, torch.ones(400, dtype=torch.long)).isfinite().any()


# --------------------------------------------------------------------------------------------------- cells of one's own


def test_a_cell_of_ones_own_is_named_and_asked_for(tmp_path: Path) -> None:
    rows = sentiment(60)
    given = {**TINY, "cell": Halving, "layers": 2, "residual": True, "forget_bias": 0.5}
    run = recurra.train(rows, out=tmp_path / "run", **given)
    model = recurra.load(run.path, cells={"Halving": Halving})
    assert model.predict(["w1 awful", "lovely"]) == run.model.predict(["w1 awful", "lovely"])
    assert model.description.startswith("2 residual bidirectional Halving layers of 6 units")
    asked = (
        r"The cell Halving is a class of somebody's own, and no code is read from a file; give it, as in load\(path, "
    )
    with pytest.raises(InputError, match=asked + r"cells=\{'Halving': Halving\}\)"):
        recurra.load(run.path)
    with pytest.raises(InputError, match="The cell Halving is a class"):
        recurra.resume(run.path, steps=6)
    assert recurra.resume(run.path, cells={"Halving": Halving}, steps=6).step == 6
    with pytest.raises(InputError, match=r"cells\['Halving'\] is an int; give a class derived from recurra\.Cell"):
        recurra.load(run.path, cells={"Halving": 3})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"A cell called LSTM is one of Recurra's own; give yours another name\."):
        recurra.load(run.path, cells={"LSTM": Halving})


# ------------------------------------------------------------------------------------------------------------- learning


def test_which_half_is_reversed_needs_the_order(tmp_path: Path) -> None:
    """Whether the second half of a string is the first one reversed: encoders that see order learn it, a bag cannot."""
    rows = reversals(500)
    fresh = reversals(100, seed=7)
    given = {**TINY, "hidden": 24, "embedding": 12, "steps": 240, "eval_interval": 60, "dropout": 0.0, "batch": 32}
    reads = recurra.train(rows, out=tmp_path / "gru", cell="gru", pooling="last", learning_rate=0.02, **given)
    blind = recurra.train(rows, out=tmp_path / "bag", encoder="bag", learning_rate=0.02, **{**given, "steps": 60})
    found = [run.model.evaluate(fresh).accuracy for run in (reads, blind)]
    assert found[0] > 0.9 and found[1] < 0.65

"""Regularisers: their equations, with masks as drawn; eval; training; messages."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from regularisers import MAKERS, B, D, H, Maker, T, equal, made, same, seeded, strictly
from torch import Tensor, nn

import recurra
from examples import CELLS, Learned
from recurra import Cell, InputError, RecurrentDropout, VariationalDropout, WeightDrop, Zoneout, cells, scan, unroll
from recurra.cell import Wrapper, call_with
from recurra.training.observer import Observer


def rows_differ(m: Tensor, axis: int) -> bool:
    return not torch.equal(m, m.roll(1, axis))


def test_zoneout_keeps_single_units_of_the_state() -> None:
    cell, x = made(MAKERS["zoneout"])
    sides = cell.sides(x)
    zoned = dict(zip(cell.side_sizes, sides, strict=True))
    assert all(rows_differ(m, axis) for m in sides for axis in (0, 1, 2))
    h = c = torch.zeros(B, H, dtype=torch.double)
    for t in range(T):
        new_h, new_c = cell.inner.step(x[t], h, c)
        keep_h, keep_c = zoned["zoneout_h"][t].bool(), zoned["zoneout_c"][t].bool()
        h, c = torch.where(keep_h, h, new_h), torch.where(keep_c, c, new_c)
    y, last = unroll(cell, x, sides=sides)
    same((y[-1], *last), (h, h, c))


def test_zoneout_in_eval_is_the_expectation() -> None:
    cell, x = made(MAKERS["zoneout"])
    h = c = torch.zeros(B, H, dtype=torch.double)
    for t in range(T):
        new_h, new_c = cell.inner.step(x[t], h, c)
        h, c = 0.3 * h + 0.7 * new_h, 0.5 * c + 0.5 * new_c
    same(unroll(cell.eval(), x)[1], (h, c))


def test_an_output_that_is_no_state_is_not_zoned_out() -> None:
    cell, x = made(lambda: Zoneout(Learned(D, H), h=0.9))
    sides = tuple(torch.ones_like(s) for s in cell.sides(x))  # all units, at every step
    y, (h,) = unroll(cell, x, sides=sides)
    assert torch.equal(h, cell.initial(B))
    same(y[0], cell.inner.step(x[0], h)[0])


def test_variational_masks_are_those_of_the_sequence_and_scale() -> None:
    cell, x = made(MAKERS["variational"])
    m_x, m_h = cell.sides(x)
    for m, rate in ((m_x, 0.3), (m_h, 0.4)):
        assert torch.equal(m, m[:1].expand_as(m)) and rows_differ(m, 1)
        assert set(m.unique().tolist()) == {0.0, 1 / (1 - rate)}
    h = c = torch.zeros(B, H, dtype=torch.double)
    for t in range(T):
        h, c = cell.inner.step(x[t] * m_x[0], h * m_h[0], c)
    same(unroll(cell, x, sides=(m_x, m_h))[1], (h, c))


def test_recurrent_dropout_is_that_of_the_candidate() -> None:
    cell, x = made(lambda: RecurrentDropout(cells.LSTM(D, H), g=0.25))
    (m,) = cell.sides(x)
    assert all(rows_differ(m, axis) for axis in (0, 1, 2))
    w, u, b = cell.inner.weight_ih, cell.inner.weight_hh, cell.inner.bias_ih + cell.inner.bias_hh
    h = c = torch.zeros(B, H, dtype=torch.double)
    for t in range(T):
        i, f, g, o = (x[t] @ w.t() + h @ u.t() + b).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * (g.tanh() * m[t])
        h = o.sigmoid() * c.tanh()
    same(unroll(cell, x, sides=(m,))[1], (h, c))


@strictly
def test_what_is_recorded_is_what_was_masked() -> None:
    layer = recurra.Recurrent(Zoneout(RecurrentDropout(cells.LSTM(D, H), g=0.25), h=0.2))
    with layer.record("g", "h") as record:
        y, _ = layer(torch.randn(T, B, D))
    assert torch.equal(record["h"], y)
    assert 0.05 < (record["g"] == 0).double().mean() < 0.6
    with (
        pytest.raises(InputError, match=r"masks.* It has x, h, c, gates, i, f, g, o, output\."),
        layer.record("masks"),
    ):
        layer(torch.randn(T, B, D))


def test_recurrent_dropout_of_a_value_that_changes_in_place() -> None:
    class InPlace(Cell):
        def step(self, x: Tensor, h: Tensor) -> Tensor:
            a = x + h
            a.tanh_()
            return a * 2

    cell, x = RecurrentDropout(InPlace(D, D), a=0.5), torch.randn(T, B, D)
    (m,) = cell.sides(x)
    for run in (unroll, scan):
        torch.testing.assert_close(run(cell, x[:1], sides=(m[:1],))[0][0], 2 * m[0] * x[0].tanh())


def test_weight_drop_is_of_single_weights_once_a_call() -> None:
    cell, x = made(MAKERS["weights"])
    drawn = seeded(cell.call_weights)
    assert set(drawn) == {"inner.wh.weight", "inner.peep"}
    for name, rate in (("wh.weight", 0.5), ("peep", 0.2)):
        whole = cell.inner.get_parameter(name)
        kept = drawn[f"inner.{name}"] != 0
        assert 0 < kept.double().mean() < 1
        same(drawn[f"inner.{name}"], kept * whole / (1 - rate))
    weights = {name.removeprefix("inner."): w for name, w in drawn.items()}
    assert equal(seeded(unroll, cell, x), unroll(cell.inner, x, weights=weights))
    assert equal(seeded(scan, cell, x), scan_with(cell.inner, x, weights))


def test_weights_of_one_shape_are_dropped_apart() -> None:
    cell = WeightDrop(cells.LSTM(H, H), weight_ih=0.5, weight_hh=0.5)
    ih, hh = (w == 0 for w in cell.call_weights().values())
    assert ih.shape == hh.shape and not torch.equal(ih, hh)


def scan_with(cell: Cell, x: Tensor, weights: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    found: tuple[Tensor, tuple[Tensor, ...]] = call_with(cell, weights, lambda: scan(cell, x))
    return found


@pytest.mark.parametrize("name", ["variational", "recurrent", "weights"])
@strictly
def test_in_eval_and_at_rate_zero_it_is_the_inner_cell(name: str) -> None:
    cell, x = made(MAKERS[name], torch.float32)
    plain = unroll(cell.inner, x)
    assert not equal(unroll(cell, x), plain)
    assert equal(unroll(cell.eval(), x), plain)
    cell.train().rates = dict.fromkeys(cell.rates, 0.0)
    assert equal(unroll(cell, x), plain) and not cell.side_sizes


def test_every_regulariser_is_among_the_examples() -> None:
    found = set()
    for example in CELLS:
        cell = example.make(3, 4)
        while isinstance(cell, Wrapper):
            found |= set(type(cell).__mro__)
            cell = cell.inner
    assert {Zoneout, VariationalDropout, RecurrentDropout, WeightDrop} <= found


def test_training_interrupted_and_resumed_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def layers(sizes: Any, width: int, dropout: float) -> nn.Module:
        inner = VariationalDropout(cells.LSTM(width, sizes.hidden), x=0.2, h=0.2)
        return recurra.Recurrent(WeightDrop(Zoneout(inner, h=0.1, c=0.1), weight_hh=0.3))

    class Stopping(Observer):
        def on_step(self, run: Any, step: Any) -> None:
            if run.step == 5:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("recurra.tasks.language._dense", layers)
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog sat on the log.\n" * 60)
    settings = {"hidden": 6, "embedding": 4, "batch": 4, "window": 8, "steps": 9, "eval_interval": 9, "seed": 1}
    whole = recurra.train(tmp_path / "text.txt", out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        recurra.train(tmp_path / "text.txt", out=tmp_path / "cut", observer=Stopping(), **settings)
    recurra.resume(tmp_path / "cut")
    assert whole.steps == 9
    name = "last/model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Zoneout(cells.LSTM(3, 4), k=0.1),
            "Zoneout got k=0.1, but LSTM has no state k. It has h, c.",
        ),
        (
            lambda: VariationalDropout(Zoneout(cells.GRU(3, 4), h=0.1), c=0.1),
            "VariationalDropout got c=0.1, but GRU has no argument c. It has x, h.",
        ),
        (
            lambda: RecurrentDropout(cells.LSTM(3, 4), q=0.1),
            "RecurrentDropout got q=0.1, but LSTM has no variable q. It has gates, i, f, g, o, c, h.",
        ),
        (
            lambda: WeightDrop(cells.GRU(3, 4), w=0.1),
            "WeightDrop got w=0.1, but GRU has no parameter w. It has weight_ih, weight_hh, bias_ih, bias_hh.",
        ),
        (
            lambda: Zoneout(cells.LSTM(3, 4), h=1.0),
            "Zoneout got h=1.0. A rate is a number of at least 0 and less than 1.",
        ),
        (
            lambda: WeightDrop(cells.LSTM(3, 4), weight_hh=-0.1),
            "WeightDrop got weight_hh=-0.1. A rate is a number of at least 0 and less than 1.",
        ),
        (
            lambda: VariationalDropout(cells.LSTM(3, 4), x="0.1"),
            "VariationalDropout got x='0.1'. A rate is a number of at least 0 and less than 1.",
        ),
        (
            lambda: Zoneout(cells.LSTM(3, 4), h=float("nan")),
            "Zoneout got h=nan. A rate is a number of at least 0 and less than 1.",
        ),
        (
            lambda: VariationalDropout(cells.LSTM(3, 4), 0.3),
            "VariationalDropout got 0.3 without a name. Give it by name, as in x=0.3: LSTM has the arguments x, h, c.",
        ),
        (
            lambda: Zoneout(cells.LSTM(3, 4), 0.3, c=0.1),
            "Zoneout got 0.3 without a name. Give it by name, as in h=0.3: LSTM has the states h, c.",
        ),
        (
            lambda: RecurrentDropout(cells.GRU(3, 4), 0.3),
            "RecurrentDropout got 0.3 without a name. Give it by name, as in x_r=0.3: "
            "GRU has the variables x_r, x_z, x_n, h_r, h_z, h_n, r, z, n, h.",
        ),
        (
            lambda: WeightDrop(cells.SRU(3, 3), 0.3),
            "WeightDrop got 0.3 without a name. Give it by name, as in weight_ih=0.3: "
            "SRU has the parameters weight_ih, weight_ch, bias_ih.",
        ),
        (
            lambda: Zoneout(cells.LSTM(3, 4)),
            "Zoneout got no rate. Give one by name, as in h=0.1: LSTM has the states h, c.",
        ),
        (
            lambda: RecurrentDropout(nn.Linear(3, 4), g=0.1),
            "RecurrentDropout wraps a recurra.Cell, and Linear is none. Derive it from Cell.",
        ),
    ],
)
def test_what_does_not_fit_is_told(make: Maker, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


def test_a_step_that_runs_other_operations_than_it_did_is_told() -> None:
    class Switching(Cell):
        wide = False

        def step(self, x: Tensor, h: Tensor) -> Tensor:
            n = torch.tanh(x) if self.wide else x + h
            return h + n

    cell = RecurrentDropout(Switching(3, 3), n=0.1)
    cell.inner.wide = True
    with pytest.raises(recurra.CellError) as caught:
        scan(cell, torch.randn(2, 2, 3))
    assert str(caught.value) == (
        "Switching.step does not run the operations that it ran when RecurrentDropout was put around it. "
        "Put it around the cell after changing the cell."
    )


def test_a_session_of_a_layer_in_training_is_refused() -> None:
    layer = recurra.Recurrent(MAKERS["weights"]().float())
    with pytest.raises(InputError) as caught:
        recurra.Session(layer).step(torch.randn(1, D))
    assert str(caught.value) == (
        "WeightDrop(Peephole) draws weights for every call, and a session is one call without end. "
        "Call layer.eval() first, or make the session of the layer without the wrapper."
    )
    x = torch.randn(1, D)
    assert torch.equal(recurra.Session(layer.eval()).step(x), layer(x[None])[0][0])

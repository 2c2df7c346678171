"""Dropout between the layers of RNN, LSTM and GRU: drawn once a call, between layers only, and as much as is asked."""

import warnings
from typing import Any

import torch
from checks import alike, numbers
from drop_in import D, over_names, strictly
from torch import nn

import recurra

pytestmark = strictly


def deep(name: str, p: float, layers: int = 2) -> Any:
    torch.manual_seed(3)
    return getattr(recurra, name)(D, 64, layers, dropout=p, dtype=torch.float64)


@over_names
def test_dropout_is_a_function_of_the_default_generator(name: str) -> None:
    layer, x = deep(name, 0.4), numbers(6, 2, D)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(layer(x)[0])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@over_names
def test_nothing_is_drawn_without_dropout(name: str) -> None:
    x = numbers(6, 2, D)
    silent = [deep(name, 0.0), deep(name, 0.4).eval()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.nn says that one layer has no dropout
        silent.append(deep(name, 0.4, layers=1))
    for layer in silent:
        before = torch.get_rng_state()
        y, last = layer(x)
        assert torch.equal(before, torch.get_rng_state())
        theirs = getattr(nn, name)(D, 64, layer.num_layers, dtype=torch.float64)
        theirs.load_state_dict(layer.state_dict())
        alike((y, last), theirs(x))


@over_names
def test_one_number_is_drawn_for_a_call(name: str) -> None:
    layer, x = deep(name, 0.4, layers=4), numbers(6, 2, D)
    torch.manual_seed(9)
    torch.randint(2**63 - 1, ())
    expected = torch.get_rng_state()
    torch.manual_seed(9)
    layer(x)
    assert torch.equal(expected, torch.get_rng_state())


def copying(width: int, layers: int, dropout: float) -> Any:
    """Every layer after the first copies its input through relu(1 · x), so that masks can be read off the output."""
    layer = recurra.RNN(1, width, layers, nonlinearity="relu", dropout=dropout, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.weight_ih_l0.fill_(1)
        for k in range(1, layers):
            layer.get_parameter(f"weight_ih_l{k}").copy_(torch.eye(width))
    return layer


def test_dropout_drops_between_layers_and_keeps_the_mean() -> None:
    """One mask, on what the first layer wrote."""
    layer = copying(500, 2, 0.25)
    y, _ = layer(torch.ones(40, 2, 1, dtype=torch.float64))
    assert set(y.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(y.mean() - 1) < 0.01
    assert not torch.equal(y[0], y[1]) and not torch.equal(y[:, 0], y[:, 1])  # a mask for every step and row


def test_dropout_masks_differ_between_layers() -> None:
    layer = copying(200, 3, 0.5)
    y, _ = layer(torch.ones(50, 1, 1, dtype=torch.float64))
    assert abs((y > 0).double().mean() - 0.25) < 0.02  # the same mask twice would keep a half


def test_dropout_of_everything() -> None:
    layer = deep("GRU", 1.0)
    zeros, _ = layer(numbers(4, 2, D))
    alike(zeros, layer(numbers(4, 2, D, seed=5))[0])
    assert torch.isfinite(zeros).all()

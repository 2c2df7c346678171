"""The calls that are handed to cuDNN: what torch.nn's forward is handed, which on the CPU is its own or oneDNN's."""

from typing import Any

import pytest
import torch
from checks import alike, weighed
from torch import Tensor

import recurra
from recurra.layers import cudnn
from recurra.layers.drop_in import DropIn

LAYERS: dict[str, Any] = {
    "RNN": lambda first: recurra.RNN(3, 4, nonlinearity="relu", batch_first=first),
    "LSTM": lambda first: recurra.LSTM(3, 4, batch_first=first),
    "GRU, deep": lambda first: recurra.GRU(3, 4, 2, bidirectional=True, batch_first=first),
    "LSTM, projected": lambda first: recurra.LSTM(3, 4, 2, proj_size=2, bias=False, batch_first=first),
}
LENGTHS = [None, [5, 5, 5, 5], [2, 5, 1, 3], [0, 4, 0, 2], [0, 0, 0, 0]]


def flat(state: Any) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else list(state)


def results(layer: torch.nn.RNNBase, x: Tensor, lengths: list[int] | None, given: bool) -> list[Tensor]:
    """Outputs, last states and every gradient, with states that are given or not."""
    batch = () if x.dim() == 2 else (x.shape[0 if layer.batch_first else 1],)
    layers = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    numbers = torch.Generator().manual_seed(2)
    states = [torch.randn(layers, *batch, n, generator=numbers, dtype=x.dtype).requires_grad_() for n in widths]
    hx = None if not given else tuple(states) if layer.mode == "LSTM" else states[0]
    y, last = layer(x, hx, lengths)
    ends = [y, *flat(last)]
    of = [x, *layer.parameters(), *(states if given else [])]
    found = torch.autograd.grad(weighed(*ends), of, allow_unused=True)
    return [*ends, *[torch.zeros_like(t) if d is None else d for t, d in zip(of, found, strict=True)]]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_call_that_is_handed_over_is_what_ours_is(
    name: str, lengths: list[int] | None, batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LAYERS[name](batch_first).double()
    rows = torch.randn((4, 5, 3) if batch_first else (5, 4, 3), dtype=torch.float64, requires_grad=True)
    alone = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    cases = [(rows, lengths, False), (rows, lengths, True), (alone, None if lengths is None else lengths[1:2], True)]
    ours = [results(layer, *case) for case in cases]
    monkeypatch.setattr(DropIn, "_on_cudnn", lambda self, rows: True)
    for case, truth in zip(cases, ours, strict=True):
        alike(results(layer, *case), truth, 1e-10)
    if lengths is None or any(lengths):
        told = recurra.explain(layer, rows, lengths=lengths)
        assert set(told.executors) == {"cuDNN"} and "second derivatives" in str(told)
        with recurra.strict():
            layer(rows, lengths=lengths)


def test_what_cudnn_lacks_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows:
        is_cuda, requires_grad = True, True

    x: Any = Rows()
    monkeypatch.setattr(torch, "cudnn_is_acceptable", lambda rows: True)
    assert cudnn.takes(recurra.LSTM(3, 4), x)
    assert not cudnn.takes(recurra.LSTM(3, 4).eval(), x), "a backward pass in eval mode"
    with torch.no_grad():
        assert cudnn.takes(recurra.LSTM(3, 4).eval(), x)
    assert not cudnn.takes(recurra.LSTM(3, 4, 2, dropout=0.5), x), "masks that are a function of a key"
    monkeypatch.setattr(torch, "cudnn_is_acceptable", lambda rows: False)
    assert not cudnn.takes(recurra.LSTM(3, 4), x), "torch.backends.cudnn.flags(enabled=False)"
    layer = recurra.LSTM(3, 4, memory="sqrt")
    assert not layer._on_cudnn(x) and not recurra.LSTM(3, 4)._on_cudnn(torch.randn(2))

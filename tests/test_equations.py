"""Cells in another form, which must give the same numbers: a torch.nn layer with other weights, a convolution, a closed
form, the paper's equation before it was made safe."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra import Cell, cells, scan

T, B, D, H = 6, 3, 4, 5


def sequence(width: int = D) -> Tensor:
    return torch.randn(T, B, width, dtype=torch.float64)


def run(cell: Cell, x: Tensor) -> Tensor:
    return scan(cell.double(), x)[0]


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def lstm_of(cell: cells.LSTMOriginal | cells.LSTMCoupled, forget: Tensor, forget_bias: Tensor) -> nn.LSTM:
    """torch.nn.LSTM with the gates i, g, o of the cell; `forget` turns the rows of i into those of f."""
    layer = nn.LSTM(D, H).double()
    for name, p in cell.named_parameters():
        i, g, o = p.chunk(3)
        layer.get_parameter(f"{name}_l0").data = torch.cat([i, forget * i, g, o])
    layer.bias_ih_l0.data[H : 2 * H] += forget_bias
    return layer


def test_the_original_lstm_is_an_lstm_that_never_forgets() -> None:
    cell, x = cells.LSTMOriginal(D, H).double(), sequence()
    same(run(cell, x), lstm_of(cell, torch.tensor(0.0), torch.tensor(1e3))(x)[0])


def test_the_coupled_lstm_is_an_lstm_with_the_forget_gates_weights_turned_round() -> None:
    cell, x = cells.LSTMCoupled(D, H).double(), sequence()
    same(run(cell, x), lstm_of(cell, torch.tensor(-1.0), torch.tensor(0.0))(x)[0])


def test_peepholes_that_are_shut_leave_an_lstm() -> None:
    cell, layer, x = cells.LSTMPeephole(D, H).double(), nn.LSTM(D, H).double(), sequence()
    cell.weight_ph.data.zero_()
    layer.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items() if k != "weight_ph"})
    same(run(cell, x), layer(x)[0])


def test_peepholes_see_the_old_cell_and_the_output_gate_the_new_one() -> None:
    cell = cells.LSTMPeephole(D, H).double()
    x, h, c = (torch.randn(B, n, dtype=torch.float64) for n in (D, H, H))
    W, U, p = cell.weight_ih.chunk(4), cell.weight_hh.chunk(4), cell.weight_ph.chunk(3)
    b = (cell.bias_ih + cell.bias_hh).chunk(4)
    i, f, g, o = (x @ W[k].T + h @ U[k].T + b[k] for k in range(4))
    new = (f + p[1] * c).sigmoid() * c + (i + p[0] * c).sigmoid() * g.tanh()
    same(cell.step(x, h, c)[1], new)
    same(cell.step(x, h, c)[0], (o + p[2] * new).sigmoid() * new.tanh())


def normalised(a: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = a.mean(-1, keepdim=True)
    deviation = ((a - mean) ** 2).mean(-1, keepdim=True).add(norm.eps).sqrt()
    return norm.weight * (a - mean) / deviation + norm.bias


def drawn(*norms: nn.LayerNorm) -> None:
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)


def test_the_layer_normed_lstm() -> None:
    cell, x = cells.LSTMLayerNorm(D, H).double(), sequence()
    drawn(cell.norm_ih, cell.norm_hh, cell.norm_c)
    h = c = torch.zeros(B, H, dtype=torch.float64)
    for x_t, y_t in zip(x, run(cell, x), strict=True):
        gates = normalised(x_t @ cell.weight_ih.T, cell.norm_ih) + normalised(h @ cell.weight_hh.T, cell.norm_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * normalised(c, cell.norm_c).tanh()
        same(y_t, h)


def test_the_layer_normed_gru() -> None:
    cell, x = cells.GRULayerNorm(D, H).double(), sequence()
    drawn(cell.norm_ih, cell.norm_hh, cell.norm_in, cell.norm_hn)
    W, U = cell.weight_ih, cell.weight_hh
    h = torch.zeros(B, H, dtype=torch.float64)
    for x_t, y_t in zip(x, run(cell, x), strict=True):
        gates = normalised(x_t @ W[: 2 * H].T, cell.norm_ih) + normalised(h @ U[: 2 * H].T, cell.norm_hh)
        r, z = gates.sigmoid().chunk(2, -1)
        n = (normalised(x_t @ W[2 * H :].T, cell.norm_in) + r * normalised(h @ U[2 * H :].T, cell.norm_hn)).tanh()
        h = n + z * (h - n)
        same(y_t, h)


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_an_independent_network_is_an_elman_network_with_a_diagonal(nonlinearity: str) -> None:
    cell, x = cells.IndRNN(D, H, nonlinearity=nonlinearity).double(), sequence()
    layer = nn.RNN(D, H, nonlinearity=nonlinearity).double()
    layer.weight_ih_l0.data, layer.weight_hh_l0.data = cell.weight_ih.data, cell.weight_hh.data.diag()
    layer.bias_ih_l0.data = cell.bias_ih.data
    layer.bias_hh_l0.data.zero_()
    same(run(cell, x), layer(x)[0])


def test_a_leaky_integrator_goes_a_part_of_an_elman_networks_way() -> None:
    cell, elman = cells.LeakyIntegrator(D, H, leak=0.25, dtype=torch.float64), cells.Elman(D, H).double()
    elman.load_state_dict({k: v for k, v in cell.state_dict().items() if k != "logit_leak"})
    x, h = sequence()[0], torch.randn(B, H, dtype=torch.float64)
    same(cell.step(x, h), h + 0.25 * (elman.step(x, h) - h))


def test_an_output_ahead_of_the_state_reads_the_previous_one() -> None:
    cell, elman, x = cells.ElmanOutputBefore(D, H, 2).double(), cells.Elman(D, H).double(), sequence()
    elman.load_state_dict({k: v for k, v in cell.state_dict().items() if "." not in k})
    previous = torch.cat([torch.zeros(1, B, H, dtype=torch.float64), run(elman, x)[:-1]])
    same(run(cell, x), (cell.output(previous) + cell.skip(x)).sigmoid())


def closed(keep: Tensor, new: Tensor) -> Tensor:
    """h_t = keep_t h_{t-1} + new_t from h_{-1} = 0, all at once: h_t = k_t Σ_{s ≤ t} new_s / k_s, k the products."""
    k = keep.cumprod(0)
    return k * (new / k).cumsum(0)


def test_min_gru_is_a_sum() -> None:
    cell, x = cells.MinGRU(D, H).double(), sequence()
    z, n = F.linear(x, cell.weight_ih, cell.bias_ih).chunk(2, -1)
    same(run(cell, x), closed(1 - z.sigmoid(), z.sigmoid() * n))


def test_min_lstm_is_a_sum() -> None:
    cell, x = cells.MinLSTM(D, H).double(), sequence()
    f, i, n = F.linear(x, cell.weight_ih, cell.bias_ih).chunk(3, -1)
    f, i = f.sigmoid(), i.sigmoid()
    same(run(cell, x), closed(f / (f + i), i / (f + i) * n))


def test_min_lstm_with_both_gates_shut_is_finite() -> None:
    cell = cells.MinLSTM(D, H)
    cell.bias_ih.data[: 2 * H] = -1000
    y = scan(cell, torch.randn(T, B, D))[0]
    y.sum().backward()
    assert all(bool(t.isfinite().all()) for t in (y, cell.weight_ih.grad, cell.bias_ih.grad))


def test_qrnn_is_a_convolution_and_a_pooling() -> None:
    cell, x = cells.QRNN(D, H).double(), sequence()
    kernel = torch.stack([cell.weight_bh, cell.weight_ih], -1)
    padded = F.pad(x.permute(1, 2, 0), (1, 0))
    z, f, o = F.conv1d(padded, kernel, cell.bias_ih).permute(2, 0, 1).chunk(3, -1)
    same(run(cell, x), o.sigmoid() * closed(f.sigmoid(), (1 - f.sigmoid()) * z.tanh()))


@pytest.mark.parametrize("width", [D, H])
def test_sru_gate_by_gate(width: int) -> None:
    cell, x = cells.SRU(width, H).double(), sequence(width)
    nn.init.normal_(cell.bias_ih)
    W, W_f, W_r, *W_skip = cell.weight_ih.split(H)
    (v_f, v_r), (b_f, b_r) = cell.weight_ch.chunk(2), cell.bias_ih.chunk(2)
    c = torch.zeros(B, H, dtype=torch.float64)
    for x_t, y_t in zip(x, run(cell, x), strict=True):
        f, r = (x_t @ W_f.T + v_f * c + b_f).sigmoid(), (x_t @ W_r.T + v_r * c + b_r).sigmoid()
        c = f * c + (1 - f) * (x_t @ W.T)
        skip = x_t @ W_skip[0].T if W_skip else x_t
        same(y_t, r * c + (1 - r) * 3**0.5 * skip)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_slstm_without_its_stabiliser(forget_gate: str) -> None:
    cell, x = cells.SLSTM(D, H, forget_gate=forget_gate).double(), sequence()
    h = c = n = torch.zeros(B, H, dtype=torch.float64)
    for x_t, y_t in zip(x, run(cell, x), strict=True):
        i, f, z, o = (x_t @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh).chunk(4, -1)
        f = f.sigmoid() if forget_gate == "sigmoid" else f.exp()
        c, n = f * c + i.exp() * z.tanh(), f * n + i.exp()
        h = o.sigmoid() * c / n
        same(y_t, h)


@pytest.mark.parametrize("size", [-1000.0, 1000.0])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_slstms_stabiliser_keeps_it_finite(forget_gate: str, size: float) -> None:
    """An exponential gate of e^1000, or of e^-1000 in the first step, where there is nothing else to divide by."""
    cell = cells.SLSTM(D, H, forget_gate=forget_gate)
    cell.bias_ih.data[: 2 * H] = size
    y = scan(cell, torch.randn(T, B, D))[0]
    y.sum().backward()
    assert bool((y.abs() <= 1).all())
    assert all(bool(p.grad.isfinite().all()) for p in cell.parameters() if p.grad is not None)

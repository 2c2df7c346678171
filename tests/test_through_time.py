"""gradients_through_time: dL/ds_t of every state is what a plain loop retains, and nobody else notices."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import close, everything, few_lengths, needs_machine, weighed
from steps import STEPS, Step
from test_record import Branching
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample, Peephole
from recurra import Cell, FileError, InputError, cells
from recurra.cell import call_sides, initial_states, one_step
from recurra.diagnostics.through_time import gradients_through_time
from recurra.layers import Layer
from recurra.unroll import Recording, explain, unroll, visits

States = tuple[Tensor, ...]


def by_retaining(
    cell: Cell, x: Tensor, sides: States, lengths: Tensor | None, reverse: bool, last_too: bool = True
) -> list[Tensor]:
    """dL/ds (T, B, n) for each state, by a plain loop over each sequence that keeps every state's gradient."""
    T, B, _ = x.shape
    kept: list[tuple[int, int, States]] = []
    y: dict[tuple[int, int], Tensor] = {}
    ends = []
    for b in range(B):
        states = tuple(s.detach().requires_grad_() for s in initial_states(cell, x, 1))
        times = range(T if lengths is None else int(lengths[b]))
        for t in reversed(times) if reverse else times:
            rows = (x[t, b : b + 1].detach().requires_grad_(), *(s[t, b : b + 1] for s in sides))
            out, nexts = one_step(cell, rows[0], states, rows[1:])
            passed = {id(r) for r in (*rows, *states)}
            new = tuple(n.view_as(n) if id(n) in passed else n for n in nexts)  # its own, not that of what it was
            out = new[0] if out is nexts[0] else out
            for n in new:
                n.retain_grad()
            y[t, b], states = out, new
            kept.append((t, b, states))
        ends.append(states)
    width = cell.output_size
    zero = x.new_zeros(1, width)
    whole = torch.stack([torch.cat([y.get((t, b), zero) for b in range(B)]) for t in range(T)])
    last = [torch.cat(s) for s in zip(*ends, strict=True)]
    weighed(whole, *(last if last_too else ())).backward()
    found = [x.new_zeros(T, B, n) for n in cell.state_sizes.values()]
    for t, b, states in kept:
        for d, s in zip(found, states, strict=True):
            if s.grad is not None:
                d[t, b] = s.grad[0]
    return found


CASES = [(7, False, False), (7, True, False), (7, False, True), (7, True, True), (1, False, False), (1, True, True)]


@needs_machine
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_every_state_of_every_cell_has_the_gradient_that_a_plain_loop_retains(
    example: CellExample, strict: None
) -> None:
    cell = example.make(3, 5).double()
    for T, with_lengths, reverse in CASES:
        x = torch.randn(T, 4, 3, dtype=torch.double)
        lengths, sides = few_lengths(T, 4) if with_lengths else None, call_sides(cell, x)
        truth = by_retaining(cell, x, sides, lengths, reverse)
        seen = Recording({}, tapped=True)
        y, last = unroll(cell, x, None, lengths, reverse, sides=sides, record=seen)
        weighed(y, *last).backward()
        assert seen.arrived and len(truth) == len(cell.state_names)
        for ours, d in zip(seen.gradients(), truth, strict=True):
            close(ours, d, 1e-10)


def assert_unchanged(cell: Cell, dtype: torch.dtype, exact: float = 0.0) -> None:
    for B, lengths, reverse in ((4, few_lengths(6, 4), True), (9, None, False)):
        x = torch.randn(6, B, cell.input_size, dtype=dtype, requires_grad=True)
        off = everything(cell, x, lengths, reverse, None)
        on = everything(cell, x, lengths, reverse, Recording({}, tapped=True))
        outputs = 1 + len(cell.state_names)
        assert all(torch.equal(a, b) for a, b in zip(off[:outputs], on[:outputs], strict=True))
        for a, b in zip(off[outputs:], on[outputs:], strict=True):
            close(b, a, exact)


@needs_machine
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_outputs_and_gradients_keep_their_bits(example: CellExample, strict: None) -> None:
    assert_unchanged(example.make(5, 17), torch.float32)
    assert_unchanged(example.make(5, 6).double(), torch.double)


@needs_machine
@pytest.mark.parametrize("make", STEPS)
def test_so_they_do_for_every_idiom(make: type[Step]) -> None:
    cell = make()
    dtype = next(cell.parameters()).dtype
    assert_unchanged(cell, dtype, 1e-12 if dtype == torch.double else 1e-6)


class Signed(Cell):
    """Its state is a zero with the sign that its weight has."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.w = nn.Parameter(torch.tensor([1.0, -1.0, 1.0]))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.relu(h - x.abs() - 1) * self.w


@needs_machine
def test_nothing_is_added_to_a_zero_that_has_a_sign(strict: None) -> None:
    cell, x = Signed(), torch.randn(2, 2, 3)
    y, _ = unroll(cell, x, record=Recording({}, tapped=True))
    assert not y.any() and y.signbit().equal(torch.tensor([False, True, False]).expand_as(y))


# ---- shapes of states that are made in no way of their own


class Delayed(Cell):
    """y_t = h_t; its states are x as it came, h as it was, and twice the same value."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, before=input_size)
        self.w = nn.Linear(2 * input_size + hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, 2)

    def step(self, x: Tensor, h: Tensor, before: Tensor, old: Tensor, same: Tensor) -> tuple[Tensor, ...]:
        new = torch.tanh(self.w(torch.cat([x, before, h + 0.5 * old - same], -1)))
        return self.out(new) * x.sum(-1, keepdim=True), new, x, h, new


class DelayedBranching(Delayed):
    """The same on scan."""

    def step(self, x: Tensor, h: Tensor, before: Tensor, old: Tensor, same: Tensor) -> tuple[Tensor, ...]:
        assert float(x.detach().sum()) < 1e9
        return super().step(x, h, before, old, same)


@pytest.mark.parametrize("make", [Delayed, DelayedBranching, lambda D, H: Branching()])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_that_are_inputs_or_each_other_and_cells_on_scan(make: Callable[..., Cell], reverse: bool) -> None:
    cell = make(3, 4).double()
    x = torch.randn(6, 3, 3, dtype=torch.double)
    for lengths in (None, torch.tensor([3, 6, 0])):
        truth = by_retaining(cell, x, (), lengths, reverse)
        for frozen in (False, True):
            cell.requires_grad_(not frozen)
            seen = Recording({}, tapped=True)
            y, last = unroll(cell, x, None, lengths, reverse, record=seen)
            assert torch.equal(y, unroll(cell, x, None, lengths, reverse)[0])
            weighed(y, *last).backward()
            for ours, d in zip(seen.gradients(), truth, strict=True):
                close(ours, d, 1e-10)


class Twice(Cell):
    """h is computed twice: what the output reads is another tensor than what becomes the state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.w, self.out = nn.Linear(input_size + hidden_size, hidden_size), nn.Linear(hidden_size, 2)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = self.w(torch.cat([x, h], -1))
        return self.out(torch.tanh(a)), torch.tanh(a)


class Handed(Twice):
    """The state is a copy of what the output reads."""

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(self.w(torch.cat([x, h], -1)))
        return self.out(new), new.clone()


class Taken(Twice):
    """The output reads a copy, and a piece, of the state: all through the state itself."""

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(self.w(torch.cat([x, h], -1)))
        return self.out(torch.cat([*new.clone().chunk(2, 1)], 1)), new


@needs_machine
@pytest.mark.parametrize(("make", "native"), [(Twice, False), (Handed, False), (Taken, True)])
def test_a_state_that_the_step_computes_twice_has_the_gradient_of_what_it_returns(
    make: type[Twice], native: bool
) -> None:
    cell, x = make(3, 4).double(), torch.randn(6, 3, 3, dtype=torch.double)
    (truth,) = by_retaining(cell, x, (), None, False)
    seen = Recording({}, tapped=True)
    with visits() as told:
        y, last = unroll(cell, x, record=seen)
    torch.testing.assert_close(y, unroll(cell, x)[0])
    sum(weighed(t) for t in (y, *last)).backward()  # type: ignore[union-attr]
    close(seen.gradients()[0], truth, 1e-10)
    (visit,) = told
    assert (visit.executor == "native machine") == native
    assert native or visit.reason == (
        "the step computes h twice, and the gradient of a state is that of the one it returns"
    )
    assert explain(cell, x).native


# ---- layers


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_every_layer_in_every_layout(example: LayerExample, batch_first: bool) -> None:
    layer = example.make(3, batch_first).double()
    x, lengths = torch.randn(6, 4, 3, dtype=torch.double), torch.tensor([3, 6, 1, 5])
    padded = x.transpose(0, 1) if batch_first else x
    with gradients_through_time(layer) as through:
        y, _ = layer(padded, lengths=lengths)
        y.square().sum().backward()
        whole = dict(through)
        packed, _ = layer(pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False))
        packed.data.square().sum().backward()
        for key, norms in whole.items():
            assert norms.shape == (6, 4) and norms[0].any() and not norms[torch.arange(6)[:, None] >= lengths].any()
            torch.testing.assert_close(through[key], norms)
        layer(x[:5, 3])[0].square().sum().backward()
        for key, norms in whole.items():
            torch.testing.assert_close(through[key], norms[:5, 3:])
    assert len(whole) == sum(len(c.state_names) for m in layer.modules() if isinstance(m, Layer) for c in cells_of(m))


def cells_of(layer: Layer) -> list[Cell]:
    return [*layer.cells_by_part().values()]


@pytest.mark.parametrize("cell", [Branching(), cells.GRU(3, 4)], ids=["scan", "machine"])
def test_packed_rows_of_sequences_in_any_order_with_resets(cell: Cell) -> None:
    layer, lengths = recurra.Recurrent(cell), torch.tensor([2, 6, 4])
    x, resets = torch.randn(6, 3, 3), torch.zeros(6, 3, dtype=torch.bool)
    resets[1:4, 1] = True
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    with gradients_through_time(layer) as through:
        layer(x, lengths=lengths, resets=resets)[1].square().sum().backward()
        padded, span = through["h"], through.memory_span(0.9)
        layer(packed, resets=resets)[1].square().sum().backward()
    torch.testing.assert_close(through["h"], padded)
    assert through.memory_span(0.9) == span and padded[1, 0] and not padded[:3, 1].any() and padded[3:, 1].all()


class Tagger(nn.Module):
    """Somebody's model, with layers of ours inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = recurra.LSTM(3, 4, bidirectional=True)
        self.second = recurra.Recurrent(Branching())
        self.between, self.head = nn.Linear(8, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.between(self.first(x)[0]))[0])
        return out


def test_keys_norms_and_several_passes() -> None:
    model, x = Tagger(), torch.randn(5, 2, 3)
    with recurra.gradients_through_time(model) as through:
        y = model(x)
    y.sum().backward(retain_graph=True)
    once = dict(through)
    assert [*once] == ["first.l0.h", "first.l0.c", "first.l0_reverse.h", "first.l0_reverse.c", "second.h"]
    for key, norm in through.norms.items():
        torch.testing.assert_close(norm, once[key].square().sum(1).sqrt())
    y.sum().backward()
    assert all(torch.allclose(through[key], 2 * once[key]) for key in once)
    model(x)
    assert all(torch.allclose(through[key], 2 * once[key]) for key in once)


def test_resets_and_records_with_it() -> None:
    layer, resets = recurra.LSTM(3, 4), torch.zeros(6, 2, dtype=torch.bool)
    resets[3] = True
    x = torch.randn(6, 2, 3)
    with recurra.gradients_through_time(layer) as through, layer.record("i", "c") as seen:
        y, _ = layer(x, resets=resets)
    y[5].sum().backward(retain_graph=True)
    assert not through["c"][:3].any() and through["c"][3:].all()
    seen["c"][1].sum().backward()
    assert through["c"][:2].all() and not through["c"][2].any()


def test_the_gradient_of_a_gradient_and_second_derivatives() -> None:
    layer, x = recurra.GRU(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    with recurra.gradients_through_time(layer) as through:
        y, _ = layer(x)
    y.square().sum().backward(retain_graph=True)
    once = through["h"]
    x.grad = None
    with recurra.gradients_through_time(layer) as again:
        z, _ = layer(x)
    (d,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    assert torch.autograd.grad(d.square().sum(), x, retain_graph=True)[0].any()
    with pytest.raises(InputError, match="No gradient has come yet"):
        again["h"]
    z.square().sum().backward()
    torch.testing.assert_close(again["h"], once)


# ---- the span


class Halving(Cell):
    """h_t = h_{t-1} / 2 + x_t: dL/dh_{T-1-k} is 2^-k of that of the last."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.rate = nn.Parameter(torch.tensor(0.5))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return self.rate * h + x


@pytest.mark.parametrize("reverse", [False, True])
def test_the_memory_span_is_counted_from_the_last_output_that_the_loss_reads(reverse: bool) -> None:
    layer = recurra.Recurrent(Halving())
    x, lengths = torch.randn(20, 3, 1), torch.tensor([20, 0, 9])
    with recurra.gradients_through_time(layer) as through:
        y, h = layer(x, lengths=lengths, reverse=reverse)
        h.sum().backward(retain_graph=True)
        assert through.memory_span() == {"h": 7}  # 2^-7 < 0.01 < 2^-6
        assert through.memory_span(0.3) == {"h": 2} and through.memory_span(1e-9) == {"h": None}
        y, _ = layer(x, reverse=reverse)
    y[4 if not reverse else 15].sum().backward()
    assert through.memory_span() == {"h": None} and through.memory_span(0.1) == {"h": 4}
    with pytest.raises(InputError, match=r"fraction is 2, but is part of the largest norm\. Give a number between"):
        through.memory_span(2)
    with pytest.raises(InputError, match=r"^fraction is 'a', but is part of the largest norm\. Give a number between"):
        through.memory_span("a")  # type: ignore[arg-type]


def test_a_gradient_that_has_all_but_vanished_is_no_zero() -> None:
    layer = recurra.Recurrent(Halving())
    with recurra.gradients_through_time(layer) as through:
        layer(torch.randn(101, 2, 1))[1].sum().backward()
    exact = 0.5 ** torch.arange(100.0, -1, -1)
    torch.testing.assert_close(through["h"], exact[:, None].expand(-1, 2), rtol=1e-6, atol=0)
    torch.testing.assert_close(through.norms["h"], exact * 2**0.5, rtol=1e-6, atol=0)
    assert through.memory_span(1e-29) == {"h": 97}


# ---- the picture, and what does not fit


def test_the_plot_has_a_line_for_each_layer_and_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = pytest.importorskip("matplotlib.figure")
    figures: list[Any] = []
    monkeypatch.setattr(drawing.Figure, "savefig", lambda self, path, **_: figures.append(self))
    model = Tagger()
    with recurra.gradients_through_time(model) as through:
        model(torch.randn(30, 2, 3))[-1].sum().backward()
    assert through.plot(tmp_path / "through.png") == tmp_path / "through.png"
    (axes,) = figures[0].axes
    assert axes.get_yscale() == "log"
    labels = ["first.l0  dL/dh", "first.l0  dL/dc", "first.l0_reverse  dL/dh", "first.l0_reverse  dL/dc"]
    assert [line.get_label() for line in axes.lines] == [*labels, "second  dL/dh"]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 5
    for line, norm in zip(axes.lines, through.norms.values(), strict=True):
        drawn = torch.tensor(line.get_ydata())
        torch.testing.assert_close(drawn[norm > 0].float(), norm[norm > 0])
        assert drawn[norm == 0].isnan().all()


def test_a_plot_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    layer = recurra.Recurrent(cells.GRU(3, 4))
    with gradients_through_time(layer) as through:
        layer(torch.randn(3, 2, 3))[0].sum().backward()
    for path, why in ((tmp_path / "none" / "a.png", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(FileError) as caught:
            through.plot(path)
        assert str(caught.value) == (
            f"{path} cannot be written: {why}. Give the path of a file in a folder that is there and can be written."
        )
    with pytest.raises(InputError, match=r"^path is a NoneType, but names a file\. Pass a str or a pathlib\.Path\.$"):
        through.plot(None)  # type: ignore[arg-type]
    with pytest.raises(InputError) as format:
        through.plot(tmp_path / "x.foo")
    assert str(format.value) == "path ends in .foo, and matplotlib writes no such format. End it in .png, .svg or .pdf."
    for name in ("through", "through.svg", "through.PNG"):
        assert through.plot(tmp_path / name) == tmp_path / name and (tmp_path / name).is_file()


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    layer = recurra.GRU(3, 4)
    with recurra.gradients_through_time(layer) as through:
        layer(torch.randn(3, 2, 3))[0].sum().backward()
    with pytest.raises(InputError, match=r"matplotlib, which is not installed: pip install 'recurra\[plot\]'\."):
        through.plot(tmp_path / "through.png")


def test_what_does_not_fit() -> None:
    with (
        pytest.raises(InputError, match=r"^Linear has no layer of Recurra, .* recurra\.accelerate\(model\) replaces"),
        recurra.gradients_through_time(nn.Linear(3, 4)),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"^gradients_through_time takes a torch\.nn\.Module, and list is none\.$"),
        recurra.gradients_through_time([]),  # type: ignore[arg-type]
    ):
        pass
    layer = recurra.Recurrent(Peephole(3, 4))
    with recurra.gradients_through_time(layer) as through:
        with pytest.raises(InputError, match=r"'c' has no gradients yet: call the model inside"):
            through["c"]
        with pytest.raises(InputError, match=r"There are no gradients yet: call the model inside"):
            _ = through.norms
        assert "c" not in through and "q" not in through
        layer(torch.randn(3, 2, 3))
    assert "c" in through and "q" not in through
    with pytest.raises(InputError, match=r"'q' is no state of this model, whose states are h, c\."):
        through["q"]
    with pytest.raises(InputError, match=r"No gradient has come yet: call loss\.backward\(\)\."):
        through["h"]


def test_steps_and_states_that_no_gradient_reaches() -> None:
    layer = recurra.Bidirectional(recurra.Recurrent(cells.GRU(3, 4)))
    with recurra.gradients_through_time(layer) as through:
        y, _ = layer(torch.randn(3, 2, 3))
        y[..., :4].sum().backward()
        assert through["ahead.h"].all() and not through["back.h"].any()
        assert through.memory_span()["back.h"] is None
        layer(torch.randn(0, 2, 3))
        assert through["ahead.h"].shape == (0, 2)

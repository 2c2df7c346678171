"""layer.record: what a step's variables hold at every t, and that nobody else notices."""

import cProfile
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
import torch
from checks import close, everything, few_lengths, needs_machine
from steps import STEPS, Step
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import Cell, InputError, cells
from recurra.cell import Wrapper, call_sides, call_with, initial_states, innermost, one_step, recordable
from recurra.layers import Layer
from recurra.unroll import Recording, unroll

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}


def locals_of(
    cell: Cell, x: Tensor, sides: tuple[Tensor, ...], states: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """What the variables of the step's own code hold when it returns, by looking; states and output as meant."""
    seen: dict[str, Any] = {}
    code = type(innermost(cell)).step.__code__

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            seen.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        y, nexts = one_step(cell, x, states, sides)
    finally:
        sys.setprofile(before)
    tensors = {name: t for name, t in seen.items() if isinstance(t, Tensor)}
    return tensors | dict(zip(cell.state_names, nexts, strict=True)) | {"output": y}, nexts


def by_looking(
    cell: Cell, x: Tensor, lengths: Tensor | None, reverse: bool, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The plain loop, one sequence after the other."""
    T, B, _ = x.shape
    beside = call_sides(cell, x)
    found = {name: x.new_zeros(T, B, *shape) for name, shape in shapes.items()}
    for b in range(B):
        states = initial_states(cell, x, 1)
        times = range(T if lengths is None else int(lengths[b]))
        for t in reversed(times) if reverse else times:
            seen, states = locals_of(cell, x[t, b : b + 1], tuple(s[t, b : b + 1] for s in beside), states)
            for name in shapes:
                found[name][t, b] = seen[name][0]
    return found


# ---- the values


@needs_machine
@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_every_variable_of_every_cell_is_what_a_plain_loop_sees(
    example: CellExample, dtype: torch.dtype, strict: None
) -> None:
    cell = example.make(3, 5).to(dtype)
    shapes = own(cell, recordable(cell))
    for T, with_lengths, reverse in ((7, False, False), (7, True, False), (7, True, True), (1, False, True), (0, 0, 0)):
        x = torch.randn(T, 4, 3, dtype=dtype)
        lengths = few_lengths(T, 4) if with_lengths else None
        with torch.no_grad():
            looking = partial(by_looking, cell, x, lengths, bool(reverse), shapes)
            truth = call_with(cell, cell.call_weights(), looking)
        for grad in (False, True):
            seen = Recording(shapes)
            with torch.set_grad_enabled(grad):
                unroll(cell, x, None, lengths, bool(reverse), record=seen)
            for name, rows in seen.rows().items():
                close(rows.detach(), truth[name], EXACT[dtype])


def own(cell: Cell, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Those of the step itself; not of functions it calls, nor of a wrapper."""
    names = {*type(innermost(cell)).step.__code__.co_varnames, *cell.state_names, "output"}
    wrapped = {name for c in cell.modules() if isinstance(c, Wrapper) for name in type(c).around.__code__.co_varnames}
    return {name: shapes[name] for name in shapes if name in names - wrapped | {*cell.state_names, "output"}}


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_the_list_of_names_is_that_of_the_steps_own_variables(example: CellExample) -> None:
    cell = example.make(3, 5)
    sides, states = (tuple(torch.zeros(11, n) for n in s.values()) for s in (cell.side_sizes, cell.state_sizes))
    seen, _ = locals_of(cell, torch.zeros(11, 3), sides, states)
    expected = {name for name, t in seen.items() if t.dim() and len(t) == 11}
    assert expected <= set(recordable(cell))
    assert {*cell.state_names, "output"} <= set(recordable(cell))


# ---- and nothing else


def assert_same_bits(cell: Cell, names: list[str], shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    for B, lengths, reverse in ((4, few_lengths(6, 4), True), (9, None, False))[: 2 if len(names) > 1 else 1]:
        x = torch.randn(6, B, cell.input_size, dtype=dtype, requires_grad=True)
        off = everything(cell, x, lengths, reverse, None)
        on = everything(cell, x, lengths, reverse, Recording({name: shapes[name] for name in names}))
        assert [a.stride() for a in off] == [a.stride() for a in on]
        assert all(torch.equal(a, b) for a, b in zip(off, on, strict=True))
        with torch.no_grad():
            plain = unroll(cell, x, None, lengths, reverse)
            shown = unroll(cell, x, None, lengths, reverse, record=Recording({name: shapes[name] for name in names}))
        assert torch.equal(plain[0], shown[0])
        assert all(torch.equal(a, b) for a, b in zip(plain[1], shown[1], strict=True))


@needs_machine
@pytest.mark.parametrize("example", CELLS, ids=str)
def test_recording_changes_no_bit_of_anything_else(example: CellExample, strict: None) -> None:
    cell = example.make(5, 17)
    shapes = recordable(cell)
    for names in ([*shapes], *([name] for name in shapes)):
        assert_same_bits(cell, names, shapes, torch.float32)


@needs_machine
@pytest.mark.parametrize("make", STEPS)
def test_nor_does_it_for_any_idiom(make: type[Step]) -> None:
    cell = make()
    shapes = recordable(cell)
    names = [name for name in shapes if runs_on_the_machine(cell, shapes, name)]
    assert {*cell.state_names, "output"} <= {*names}
    for chosen in (names, *([name] for name in names)):
        assert_same_bits(cell, chosen, shapes, next(cell.parameters()).dtype)


def runs_on_the_machine(cell: Cell, shapes: dict[str, tuple[int, ...]], name: str) -> bool:
    """A variable that is no part of a program sends the step to scan."""
    try:
        with recurra.strict():
            dtype = next(cell.parameters()).dtype
            unroll(cell, torch.zeros(1, 2, cell.input_size, dtype=dtype), record=Recording({name: shapes[name]}))
    except recurra.StrictError:
        return False
    return True


# ---- what a cell that runs on scan shows


class Branching(Cell):
    """Looks at numbers, so that it runs on scan."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.w = nn.Linear(7, 4)

    def gate(self, x: Tensor, h: Tensor) -> Tensor:
        inner = self.w(torch.cat([x, h], -1))
        return torch.sigmoid(inner)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        g = self.gate(x, h)
        if g.sum() < 0:
            never = g + 1
            return never * h
        return g * h + (1 - g) * torch.tanh(g)


def test_a_cell_on_scan_shows_the_same_way() -> None:
    layer = recurra.Recurrent(Branching())
    x, lengths = torch.randn(5, 3, 3, requires_grad=True), torch.tensor([2, 5, 0])
    y, _ = layer(x, lengths=lengths)
    with layer.record("g", "h", "inner") as seen:
        shown, _ = layer(x, lengths=lengths)
    assert torch.equal(y, shown) and torch.equal(seen["h"], y)
    assert torch.equal(torch.where(seen["g"] != 0, torch.sigmoid(seen["inner"]), 0), seen["g"])
    assert not seen["g"][2:, 0].any()
    assert torch.autograd.grad(seen["g"].sum(), x)[0].any()


def test_a_variable_that_is_not_always_there() -> None:
    layer = recurra.Recurrent(Branching())
    with pytest.raises(InputError, match=r"Recurrent has nothing called 'never' to record. It has .*g.*, output\."):
        layer.record("never")
    with pytest.raises(InputError, match="step does not set never at every step"):
        unroll(layer.cell, torch.zeros(2, 1, 3), record=Recording({"never": (4,)}))


def test_a_cell_typed_at_the_prompt() -> None:
    source = """
class Typed(recurra.Cell):
    def step(self, x, h):
        g = torch.sigmoid(x + h)
        return g * h
"""
    names: dict[str, Any] = {"recurra": recurra, "torch": torch, "__name__": "__main__"}
    exec(compile(source, "<stdin>", "exec"), names)  # noqa: S102 (what the prompt does)
    layer, x = recurra.Recurrent(names["Typed"](3, 3)), torch.randn(4, 2, 3)
    with layer.record("g") as seen:
        layer(x)
    torch.testing.assert_close(seen["g"][0], torch.sigmoid(x[0]))


# ---- layers


def outputs(y: Any) -> Tensor:
    return y.data if isinstance(y, PackedSequence) else y


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_every_layer_in_every_layout(example: LayerExample, batch_first: bool) -> None:
    layer = example.make(3, batch_first)
    x, lengths = torch.randn(6, 4, 3), torch.tensor([3, 6, 1, 5])
    padded = x.transpose(0, 1) if batch_first else x
    with layer.record("output") as seen:
        layer(padded, lengths=lengths)
        whole = dict(seen)
        packed, _ = layer(pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False))
        for key, t in whole.items():
            assert t.shape[:2] == padded.shape[:2]
            assert isinstance(seen[key], PackedSequence)
            torch.testing.assert_close(pad_packed_sequence(seen[key], batch_first)[0], t)
        layer(x[:, 1])
        for key, t in whole.items():
            torch.testing.assert_close(seen[key], t[1] if batch_first else t[:, 1])
    assert len(whole) == sum(len(m.cells_by_part()) for m in layer.modules() if isinstance(m, Layer))
    last = [*whole.values()][-1]
    assert last.shape[-1] <= outputs(packed).shape[-1]


def test_names_have_the_path_of_their_cell_where_there_are_several() -> None:
    deep = recurra.LSTM(3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    with deep.record("i", "l1_reverse.c") as seen:
        _, (_, c) = deep(x)
    assert [*seen] == ["l0.i", "l0_reverse.i", "l1.i", "l1_reverse.i", "l1_reverse.c"]
    assert torch.equal(seen["l1_reverse.c"][0], c[3])
    mixed = recurra.Stack(
        [recurra.Bidirectional(recurra.Recurrent(cells.GRU(3, 4))), recurra.Residual(recurra.GRU(8, 8))]
    )
    with mixed.record("layers.0.back.z", "layers.1.layer.l0.n") as seen:
        mixed(x)
    assert {k: t.shape for k, t in seen.items()} == {"layers.0.back.z": (5, 2, 4), "layers.1.layer.l0.n": (5, 2, 8)}


def test_records_nest_and_forget() -> None:
    layer = recurra.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    with layer.record("i") as outer:
        layer(x)
        with layer.record("f", "i") as inner:
            layer(2 * x)
        assert torch.equal(outer["i"], inner["i"]) and [*outer] == ["i"]
        layer(x)
        assert not torch.equal(outer["i"], inner["i"])
    before = outer["i"]
    layer(3 * x)
    assert outer["i"] is before


def test_gradients_flow_through_what_is_recorded() -> None:
    cell = cells.LSTM(3, 4).double()
    layer = recurra.Recurrent(cell)
    x = torch.randn(5, 2, 3, dtype=torch.double, requires_grad=True)

    def loss(x: Tensor, run: Callable[..., Any]) -> Tensor:
        with layer.record("i", "c") as seen:
            y, _ = run(x)
        return (seen["i"] ** 2).sum() + (seen["c"] * y.detach()).sum() + y.sum()

    def plain(x: Tensor) -> Tensor:
        h = c = x.new_zeros(2, 4)
        total = x.new_zeros(())
        for x_t in x:
            seen, (h, c) = locals_of(cell, x_t, (), (h, c))
            total = total + (seen["i"] ** 2).sum() + (c * h.detach()).sum() + h.sum()
        return total

    for wanted in ([x], [x, *cell.parameters()]):
        ours, truth = torch.autograd.grad(loss(x, layer), wanted), torch.autograd.grad(plain(x), wanted)
        for a, b in zip(ours, truth, strict=True):
            close(a, b, 1e-12)
    (d,) = torch.autograd.grad(loss(x, layer), x, create_graph=True)
    (e,) = torch.autograd.grad(plain(x), x, create_graph=True)
    close(torch.autograd.grad(d.square().sum(), x)[0], torch.autograd.grad(e.square().sum(), x)[0], 1e-11)


@pytest.mark.parametrize(
    ("make", "names", "message"),
    [
        (lambda: recurra.LSTM(3, 4), ("q",), r"LSTM has nothing called 'q' to record\. It has .*i, f, g, o.*\."),
        (lambda: recurra.LSTM(3, 4), (3,), r"record was given 3\. Name variables of the step, as in record"),
        (lambda: recurra.LSTM(3, 4), (), r"record was given no name\. Name variables of the step, as in record"),
        (
            lambda: recurra.Bidirectional(recurra.Recurrent(cells.LSTM(3, 4))),
            ("forward.i",),
            r"Bidirectional has nothing called 'forward.i' to record\. It has .*output in ahead, back\.",
        ),
    ],
)
def test_a_name_that_does_not_exist(make: Callable[[], Any], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make().record(*names)


def test_asking_a_record_for_what_it_does_not_have() -> None:
    layer = recurra.LSTM(3, 4)
    with layer.record("i") as seen:
        with pytest.raises(InputError, match="'i' has no values yet: call the layer inside"):
            seen["i"]
        with pytest.raises(InputError, match=r"'f' was not recorded: this record has i\."):
            seen["f"]
        told = r"torch.nn would run LSTM, because autocast is on"
        with torch.autocast("cpu", dtype=torch.float16), pytest.raises(InputError, match=told):
            layer(torch.randn(2, 1, 3))


def test_a_profiler_keeps_its_place() -> None:
    with cProfile.Profile(), pytest.raises(InputError, match="Stop the profiler while you record"):
        recurra.LSTM(3, 4).record("i")


def test_resets_and_records_together() -> None:
    layer = recurra.LSTM(3, 4, bidirectional=True)
    x, resets = torch.randn(6, 2, 3), torch.zeros(6, 2, dtype=torch.bool)
    resets[2] = True
    with layer.record("i", "c") as seen:
        y, _ = layer(x, resets=resets)
        whole = dict(seen)
        for piece in (slice(0, 2), slice(2, 6)):
            layer(x[piece])
            assert all(torch.equal(seen[key], whole[key][piece]) for key in whole)
    assert torch.equal(y, layer(x, resets=resets)[0])

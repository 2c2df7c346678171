"""Layers inside torch.compile and torch.export: one operator for a program, whatever T and B are."""

import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checks import few_lengths, filled, needs_machine, weighed
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import recurra
from examples import CELLS, LAYERS, CellExample, LayerExample
from recurra import Bidirectional, Cell, InputError, ProgramError, Recurrent, cells
from recurra.program.text import plan_text
from recurra.unroll.compiled import find

pytestmark = needs_machine

T, B, D = 5, 3, 4
OTHERS = [(9, 2), (1, 1), (6, 7), (2, 3), (13, 4)]  # (T, B)
DYNAMIC = {0: torch.export.Dim("T", min=1), 1: torch.export.Dim("B", min=1)}
# Weights that are drawn stand in for its own by torch.func.functional_call, in which Dynamo cannot follow an `initial`.
NOT_FOLLOWED = {"all regularisers"}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    import torch._dynamo.config  # a second, which the tests of other files need not wait for

    torch._dynamo.reset()
    with warnings.catch_warnings(), torch._dynamo.config.patch(allow_rnn=True):  # else it leaves all of torch.nn's kind
        warnings.simplefilter("ignore")
        yield


def rows(steps: int, batch: int) -> Tensor:
    return torch.randn(steps, batch, D, generator=torch.Generator().manual_seed(steps))


def seeded(layer: nn.Module, x: Tensor, **given: object) -> list[Tensor]:
    """Outputs and last states; masks that are drawn are the same every time."""
    torch.manual_seed(1)
    return tree_leaves(layer(x, **given))


def results(layer: nn.Module, of: nn.Module, x: Tensor, **given: object) -> list[Tensor]:
    """The same with the gradients of x and of every weight."""
    x = x.clone().requires_grad_()
    got, wanted = seeded(layer, x, **given), [x, *of.parameters()]
    return [*got, *filled(wanted, torch.autograd.grad(weighed(*got), wanted, allow_unused=True))]


def assert_close(mine: list[Tensor], others: list[Tensor]) -> None:
    for a, b in zip(mine, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def operators(graph: torch.fx.Graph) -> int:
    return sum(n.target is torch.ops.recurra.run.default for n in graph.nodes)


def compiled(layer: nn.Module) -> tuple[nn.Module, list[int]]:
    """The layer as one graph for all sizes, with gradients; and, of each graph made, how many operators it has."""
    seen: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        seen.append(sum("recurra.run" in str(n.target) for n in module.graph.nodes))
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    return torch.compile(layer, fullgraph=True, dynamic=True, backend=backend), seen


def exported(layer: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(layer, (rows(T, B),), dynamic_shapes=(DYNAMIC,))


def layer_of(example: CellExample) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(example.make(D, 3))


@pytest.mark.parametrize("example", [e for e in CELLS if e.name not in NOT_FOLLOWED], ids=str)
def test_a_compiled_cell_has_the_results_of_an_eager_one(example: CellExample) -> None:
    layer = layer_of(example)
    fast, graphs = compiled(layer)
    for steps, batch in ((T, B), (9, 2)):
        assert_close(results(fast, layer, rows(steps, batch)), results(layer, layer, rows(steps, batch)))
    assert set(graphs) == {1} and len(graphs) <= 2  # Dynamo looks at a number among the attributes twice


@pytest.mark.parametrize("example", CELLS, ids=str)
def test_an_exported_cell_runs_at_any_size(example: CellExample) -> None:
    layer = layer_of(example)
    program = exported(layer)
    assert operators(program.graph) == 1
    for steps, batch in OTHERS:
        assert_close(seeded(program.module(), rows(steps, batch)), seeded(layer, rows(steps, batch)))


@pytest.mark.parametrize("example", LAYERS, ids=str)
def test_layers_too(example: LayerExample) -> None:
    torch.manual_seed(0)
    layer = example.make(D, False)
    fast, graphs = compiled(layer)
    program = exported(layer).module()
    for steps, batch in OTHERS[::2]:
        x = rows(steps, batch)
        assert_close(results(fast, layer, x), results(layer, layer, x))
        assert_close(seeded(program, x), seeded(layer, x))
    assert len(set(graphs)) == 1 and graphs[0] == len(recurra.explain(layer, rows(T, B)).visits)


@pytest.mark.parametrize(
    "make", [lambda: recurra.LSTM(D, 3, bidirectional=True), lambda: Bidirectional(Recurrent(cells.GRU(D, 3)))]
)
def test_lengths_are_data(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    layer = make()
    fast, graphs = compiled(layer)
    for steps, batch in ((T, B), (9, 2)):
        x, given = rows(steps, batch), {"lengths": few_lengths(steps, batch)}
        assert_close(results(fast, layer, x, **given), results(layer, layer, x, **given))
        assert_close(
            seeded(fast, x, lengths=torch.ones(batch, dtype=torch.long)), seeded(layer, x, lengths=[1] * batch)
        )
    assert set(graphs) == {2}
    with pytest.raises(InputError, match=r"lengths\[1\] is 10, but x has 9 steps"):
        fast(rows(9, 2), lengths=torch.tensor([9, 10]))


@pytest.mark.parametrize("make", [lambda: recurra.GRU(D, 3), lambda: Recurrent(cells.GRU(D, 3))], ids=["GRU", "own"])
def test_double_precision(make: Callable[[], nn.Module]) -> None:
    layer, x = make().double(), rows(T, B).double()
    fast, _ = compiled(layer)
    assert_close(results(fast, layer, x), results(layer, layer, x))
    program = torch.export.export(layer, (x,), dynamic_shapes=(DYNAMIC,)).module()
    assert_close(seeded(program, rows(9, 2).double()), seeded(layer, rows(9, 2).double()))


def test_states_and_learned_first_states() -> None:
    layer = recurra.LSTM(D, 3)
    fast, _ = compiled(layer)
    _, state = layer(rows(3, B))
    given = {"hx": tuple(s.detach() for s in state)}
    assert_close(results(fast, layer, rows(T, B), **given), results(layer, layer, rows(T, B), **given))


class Scaled(Cell):
    """Reads a plain number."""

    def __init__(self) -> None:
        super().__init__(D, 3)
        self.wide = nn.Linear(D, 3)
        self.rate = 0.5

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.wide(x)) + self.rate * h


def test_an_attribute_that_changes_is_seen() -> None:
    layer = Recurrent(cell := Scaled())
    fast, _ = compiled(layer)
    before = fast(rows(T, B))[0]
    cell.rate = 0.25
    after = fast(rows(T, B))[0]
    assert not torch.equal(before, after) and torch.equal(after, layer(rows(T, B))[0])


def test_the_default_backend() -> None:
    layer = recurra.GRU(D, 3, bidirectional=True)
    fast = torch.compile(layer, fullgraph=True, dynamic=True)
    assert_close(results(fast, layer, rows(T, B)), results(layer, layer, rows(T, B)))


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    layer = Recurrent(cells.LSTM(D, 3))
    with torch.no_grad():
        program = exported(layer).module()
    y, _ = program(rows(T, B))
    torch.testing.assert_close(y, layer(rows(T, B))[0])
    with pytest.raises(InputError, match="written down without gradients"):
        y.sum().backward()


def test_a_saved_program_stands_alone(tmp_path: Path) -> None:
    layer = recurra.Stack([Recurrent(cells.LSTMLayerNorm(D, 3)), recurra.LSTM(3, 2, bidirectional=True)])
    file, x = io.BytesIO(), rows(9, 2)
    torch.export.save(exported(layer), file)
    (tmp_path / "layer.pt2").write_bytes(file.getvalue())
    torch.save({"x": x, "y": layer(x)[0].detach()}, tmp_path / "rows.pt")
    told = (
        "import torch, recurra.unroll\n"
        "layer = torch.export.load('layer.pt2').module()\n"
        "rows = torch.load('rows.pt')\n"
        "print(torch.equal(layer(rows['x'])[0], rows['y']))\n"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", told], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.split() == ["True"], ran.stderr


def test_the_operators_are_as_pytorch_wants_them() -> None:
    cell = cells.GRU(D, 3).double()
    found, tensors = find(cell, None)
    assert found.plan is not None
    text, statics = plan_text(found.plan, found.backward), [t.detach() for t in found.statics(tensors)]
    everything = "test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"
    for lengths in (None, few_lengths(8, 4)):
        given = [t.requires_grad_() for t in (rows(8, 4).double(), torch.zeros(4, 3, dtype=torch.double), *statics)]
        arguments = (text, given[:1], given[1:2], given[2:], lengths, True, True, "")
        # the last compares all numbers, and with lengths some of what is kept is room that nobody writes
        torch.library.opcheck(
            torch.ops.recurra.run.default, arguments, test_utils=everything[: 4 if lengths is None else 3]
        )
        assert torch.autograd.gradcheck(lambda *t, n=lengths: torch.ops.recurra.run(
            text, list(t[:1]), list(t[1:2]), list(t[2:]), n, True, True, "")[:2], given)  # fmt: skip


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
def test_no_steps_and_no_sequences(steps: int, batch: int) -> None:
    layer = Recurrent(cells.LSTM(D, 3))
    fast, _ = compiled(layer)
    x = torch.zeros(steps, batch, D)
    assert_close(results(fast, layer, x), results(layer, layer, x))


def test_onnx_gets_operations_of_its_own() -> None:
    pytest.importorskip("onnxscript")
    layer = recurra.GRU(D, 3).eval()
    program = torch.onnx.export(layer, (rows(T, B),), dynamo=True, verbose=False)
    assert program is not None and "GRU" in {n.op_type for n in program.model.graph}


def test_tensors_that_are_not_those_of_the_program_are_refused() -> None:
    found, tensors = find(cells.GRU(D, 3), None)
    assert found.plan is not None
    text, statics, x = plan_text(found.plan, found.backward), found.statics(tensors), rows(T, B)
    run = torch.ops.recurra.run.default
    h = torch.zeros(B, 3)
    for inputs, states, weights, told in (
        ([x[..., :3]], [], statics, r"program GRU takes \(5, 3, 4\) .* and is given \(5, 3, 3\)"),
        ([x], [h[:2]], statics, r"takes \(3, 3\) .* and is given \(2, 3\)"),
        ([x], [h], [statics[0][:3], *statics[1:]], r"takes \(9, 4\) .* and is given \(3, 4\)"),
        ([x], [h], statics[:-1], r"program GRU takes 6 tensors, and is given 5"),
    ):
        with pytest.raises(ProgramError, match=told):
            run(text, inputs, states, weights, None, False, False, "")
    with pytest.raises(InputError) as caught:
        run(text, [x.double()], [], statics, None, False, False, "")
    assert str(caught.value) == (
        "x is torch.float64 and the weights of program GRU are torch.float32. Convert one of them."
    )
    back, kept = torch.ops.recurra.run_backward.default, run(text, [x], [], statics, None, False, True, "")[-1]
    y, needed = torch.zeros(T, B, 3), [True] * 5
    for output, memory, told in ((y[:4], kept, r"\(5, 3, 3\) .* given \(4, 3, 3\)"), (y, kept[:9], r"given \(9,\)")):
        with pytest.raises(ProgramError, match=told):
            back(text, [x], [], statics, None, False, output, memory, [y, h], needed, "")
    with pytest.raises(ProgramError, match="line 1 of the program"):
        run("programme GRU", [x], [], statics, None, False, False, "")


@pytest.mark.parametrize("make", [lambda: recurra.LSTM(D, 3), lambda: Recurrent(cells.Elman(D, 3))])
def test_the_older_onnx_exporter_hands_truth_values_over_as_tensors(make: Callable[[], torch.nn.Module]) -> None:
    pytest.importorskip("onnx")
    layer, file = make().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (rows(T, B),), file, dynamo=False)
    written = file.getvalue()
    assert written.count(b"Tanh") >= T if isinstance(layer, Recurrent) else b"LSTM" in written


@pytest.mark.parametrize("make", [lambda: recurra.LSTM(D, 3), lambda: Recurrent(cells.LSTM(D, 3))])
def test_nothing_is_recorded_where_a_compiler_looks(make: Callable[[], torch.nn.Module]) -> None:
    layer = make()
    with layer.record("i") as seen:
        torch.compile(layer, backend="eager")(rows(T, B))
    assert not seen and "i" not in seen

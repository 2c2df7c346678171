"""The node cases of RNN, LSTM and GRU that come with the onnx package: its numbers, from our cells and layers.

A case's options (direction, layout, biases, peepholes, first states, lengths, place of the reset gate, activations) are
turned into ours; one that has no counterpart here would be named by `unmapped`, and is listed in UNMAPPED.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import recurra
from recurra import Cell, cells

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed: pip install recurra[dev]")
case_lists = pytest.importorskip("onnx.backend.test.case.node")
for module in ("rnn", "lstm", "gru"):  # each registers its cases
    pytest.importorskip(f"onnx.backend.test.case.node.{module}")

CASES = [c for c in case_lists._NodeTestCases if c.model.graph.node[0].op_type in ("RNN", "LSTM", "GRU")]
UNMAPPED: dict[str, str] = {}  # the name of a case, and why

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
GATES = {"RNN": "h", "LSTM": "iofg", "GRU": "zrn"}  # in ONNX's order
OURS = {"RNN": "h", "LSTM": "ifgo", "GRU": "rzn"}
PLAIN = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def options(node: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def unmapped(node: Any) -> str:
    """Why the case has no counterpart here; "" where it has one."""
    given = options(node)
    kinds = [a.decode() for a in given.pop("activations", [])]
    plain = PLAIN[node.op_type]
    relu = node.op_type == "RNN" and set(kinds) == {"Relu"}
    if kinds and not relu and kinds != plain * (len(kinds) // len(plain)):
        return f"activations {kinds}: write a cell of your own"
    if given.pop("input_forget", 0):
        return "input_forget: LSTMCoupled computes f = 1 - i without the rows of f that the case's weights have"
    for name in ("activation_alpha", "activation_beta", "clip"):
        if name in given:
            return f"{name}: write a cell of your own"
    return ""


def rows(op: str, p: Tensor, gates: str = "") -> Tensor:
    """Rows in ONNX's order of gates as rows in ours."""
    theirs = gates or GATES[op]
    parts = dict(zip(theirs, p.chunk(len(theirs)), strict=True))
    return torch.cat([parts[g] for g in OURS[op] if g in parts])


def make(op: str, given: dict[str, Any], inputs: dict[str, Tensor], direction: int) -> Cell:
    """Our cell with the weights of one direction of the case."""
    W, R = inputs["W"][direction], inputs["R"][direction]
    D, H, bias = W.shape[1], R.shape[1], "B" in inputs
    cell: Cell
    if op == "RNN":
        relu = [a.decode() for a in given.get("activations", [])][direction : direction + 1] == ["Relu"]
        cell = cells.Elman(D, H, bias, "relu" if relu else "tanh")
    elif op == "GRU":
        cell = (cells.GRU if given.get("linear_before_reset") else cells.GRUResetBefore)(D, H, bias)
    else:
        cell = (cells.LSTMPeephole if "P" in inputs else cells.LSTM)(D, H, bias)
    weights = {"weight_ih": rows(op, W), "weight_hh": rows(op, R)}
    if bias:
        weights["bias_ih"], weights["bias_hh"] = (rows(op, b) for b in inputs["B"][direction].chunk(2))
    if "P" in inputs:
        weights["weight_ph"] = rows(op, inputs["P"][direction], "iof")
    cell.load_state_dict(weights)
    return cell


def run(node: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Y, Y_h and Y_c as ONNX lays them out."""
    op, given = node.op_type, options(node)
    batch_first = bool(given.get("layout"))
    layers = [recurra.Recurrent(make(op, given, inputs, d), batch_first) for d in range(len(inputs["W"]))]
    firsts = [inputs[name] for name in ("initial_h", "initial_c") if name in inputs]
    states = [tuple(s[:, d] if batch_first else s[d] for s in firsts) or None for d in range(len(layers))]
    if len(layers) == 2:
        y, lasts = recurra.Bidirectional(*layers)(inputs["X"], tuple(states), inputs.get("sequence_lens"))
    else:
        reverse = given.get("direction", b"forward") == b"reverse"
        y, last = layers[0](inputs["X"], states[0], inputs.get("sequence_lens"), reverse)
        lasts = (last,)
    of_each = [(s,) if isinstance(s, Tensor) else s for s in lasts]
    found = {
        name: torch.stack(s, 1 if batch_first else 0) for name, s in zip(("Y_h", "Y_c"), zip(*of_each, strict=True))
    }
    return found | {"Y": torch.stack(y.chunk(len(layers), -1), 2 if batch_first else 1)}


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in UNMAPPED], ids=lambda c: c.name)
@pytest.mark.usefixtures("strict")
def test_it_gives_the_numbers_of_onnx(case: Any) -> None:
    node = case.model.graph.node[0]
    assert not unmapped(node)
    for inputs, outputs in case.data_sets:
        names = [name for name, given in zip(INPUTS, node.input, strict=False) if given]
        found = run(node, {name: torch.from_numpy(np.asarray(v)) for name, v in zip(names, inputs, strict=True)})
        kinds = [kind for kind, given in zip(("Y", "Y_h", "Y_c"), node.output, strict=False) if given]
        for kind, wanted in zip(kinds, outputs, strict=True):
            torch.testing.assert_close(found[kind], torch.from_numpy(wanted), rtol=1e-5, atol=1e-6)


DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("full", [False, True], ids=["bare", "everything given"])
@pytest.mark.usefixtures("strict")
def test_the_generators_of_the_cases_with_other_numbers(op: str, direction: str, layout: int, full: bool) -> None:
    """The weights of most cases are all equal; here none are. Given: biases, first states, peepholes, a late reset."""
    T, B, D, H, dirs = 5, 3, 4, 6, DIRECTIONS[direction]
    gates = len(GATES[op])
    shapes = {"X": (B, T, D) if layout else (T, B, D), "W": (dirs, gates * H, D), "R": (dirs, gates * H, H)}
    given: dict[str, Any] = {"direction": direction, "layout": layout, "hidden_size": H}
    if full:
        shapes |= {"B": (dirs, 2 * gates * H), "initial_h": (B, dirs, H) if layout else (dirs, B, H)}
        shapes |= {"initial_c": shapes["initial_h"], "P": (dirs, 3 * H)} if op == "LSTM" else {}
        given |= {"linear_before_reset": 1} if op == "GRU" else {}
    inputs = {name: torch.randn(shape) for name, shape in shapes.items()}
    helper = getattr(getattr(case_lists, op.lower()), f"{op}Helper")
    wanted = helper(**{name: t.numpy() for name, t in inputs.items()}, **given).step()
    node = onnx.helper.make_node(op, inputs=list(inputs), outputs=["Y", "Y_h"], **given)
    found = run(node, inputs)
    for kind, w in zip(("Y", "Y_h", "Y_c"), wanted, strict=False):
        torch.testing.assert_close(found[kind], torch.from_numpy(w.astype(np.float32)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "given", "why"),
    [
        ("RNN", {"activations": ["Affine"]}, "activations ['Affine']: write a cell of your own"),
        ("RNN", {"activations": ["Relu"]}, ""),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"] * 2}, ""),
        ("GRU", {"clip": 3.0}, "clip: write a cell of your own"),
        (
            "LSTM",
            {"input_forget": 1},
            "input_forget: LSTMCoupled computes f = 1 - i without the rows of f that the case's weights have",
        ),
    ],
)
def test_what_has_no_counterpart(op: str, given: dict[str, Any], why: str) -> None:
    assert unmapped(onnx.helper.make_node(op, inputs=["X", "W", "R"], outputs=["Y"], hidden_size=3, **given)) == why


def test_every_case_is_run_or_listed() -> None:
    assert {c.name: why for c in CASES if (why := unmapped(c.model.graph.node[0]))} == UNMAPPED
    ops = [c.model.graph.node[0].op_type for c in CASES]
    assert all(ops.count(op) >= 6 for op in GATES)

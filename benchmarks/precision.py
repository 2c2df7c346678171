"""Layers in fewer bits, against torch in fp32 and under autocast; what they lose is compared before any is timed."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import recurra
from benchmarks.cells import TORCH, share
from benchmarks.goals import Shape
from benchmarks.layers import STEPS
from benchmarks.own import CELLS, unbound
from benchmarks.race import Check, Race, Values, either, gradients, rows, values
from benchmarks.timing import Absent, Contestant
from recurra.machine.precision import lacking

LOST = {"bf16": 1e-2, "fp32-fast": 2e-5, "int8": 5e-2}  # of the largest number of every tensor
NARROW: dict[str, Callable[..., nn.Module]] = {"gru": recurra.GRU, "elman": recurra.RNN, "lstm": recurra.LSTM}


def pair(cell: str, width: int, precision: str) -> tuple[nn.RNNBase, nn.Module]:
    """PyTorch's layer, and ours in that precision with the same weights."""
    if reason := lacking(precision):
        raise Absent(reason)
    theirs, ours = TORCH[cell](width, width), NARROW[cell](width, width, precision=precision)
    share(theirs, ours)
    return theirs, ours


def autocast(layer: Callable[[Tensor], Any], x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return layer(x)


def train(precision: str, cell: str, shape: Shape) -> Race:
    theirs, ours = pair(cell, shape[2], precision)
    x, dy = rows(shape, grad=True)
    return Race(
        [
            Contestant("ours", gradients(ours, ours, x, dy)),
            *either("torch", gradients(theirs, theirs, x, dy)),
            *either("autocast", gradients(partial(autocast, theirs), theirs, x, dy.bfloat16())),
        ],
        [Check("ours", values(ours, ours, x), values(theirs, theirs, x), LOST[precision])],
    )


def infer(precision: str, cell: str, shape: Shape) -> Race:
    theirs, ours = (layer.requires_grad_(False) for layer in pair(cell, shape[2], precision))
    x, _ = rows(shape, grad=False)
    return Race(
        [
            Contestant("ours", partial(ours, x), grad=False),
            *either("torch", partial(theirs, x), grad=False),
            *either("autocast", partial(autocast, theirs, x), grad=False),
        ],
        [Check("ours", values(ours, None, x), values(theirs, None, x), LOST[precision])],
    )


def own(precision: str, cell: str, shape: Shape) -> Race:
    """A user's own cell, whose Python loop computes in fp32."""
    plain = CELLS[cell](shape[2])
    layer = recurra.Recurrent(plain.cell, precision=precision)
    x, dy = rows(shape, grad=True)
    loop = unbound(plain)
    reference, under = values(loop, layer, x), values(partial(autocast, loop), layer, x)
    lost = max(LOST[precision], Check("autocast", under, reference, math.inf).run())  # a cell may double what is lost
    return Race(
        [Contestant("ours", gradients(layer, layer, x, dy)), *either("loop", gradients(loop, layer, x, dy))],
        [Check("ours", values(layer, layer, x), reference, lost)],
    )


def stream(precision: str, cell: str, shape: Shape) -> Race:
    """One step at a time of an LSTM, the state carried along; seconds are those of one step."""
    width = shape[2]
    theirs, ours = pair(cell, width, precision)
    single = nn.LSTMCell(width, width)
    single.load_state_dict({name.removesuffix("_l0"): weight for name, weight in theirs.state_dict().items()})
    xs = list(torch.randn(STEPS, shape[0], width).unbind())
    zero = torch.zeros(shape[0], width)

    def by_cell() -> Tensor:
        h, c = zero, zero
        for x in xs:
            h, c = single(x, (h, c))
        return h

    def by_session(session: recurra.Session) -> Tensor:
        for x in xs:
            y = session.step(x)
        return y

    def last() -> Values:
        return {"last output": by_session(recurra.Session(ours))}

    own = recurra.Session(ours)
    return Race(
        [
            Contestant("ours", lambda: by_session(own), work=STEPS, grad=False),
            *either("cell", by_cell, work=STEPS, grad=False),
        ],
        [Check("ours", last, lambda: {"last output": by_cell().detach()}, LOST[precision])],
    )


KINDS = {
    "train bf16": partial(train, "bf16"),
    "train fp32-fast": partial(train, "fp32-fast"),
    "infer bf16": partial(infer, "bf16"),
    "infer int8": partial(infer, "int8"),
    "own bf16": partial(own, "bf16"),
    "stream bf16": partial(stream, "bf16"),
    "stream int8": partial(stream, "int8"),
}

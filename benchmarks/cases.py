"""What is raced: for every kind of goal, who runs, and whose values and gradients must agree before any is timed."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recurra
from benchmarks import parts
from benchmarks.cells import COPIES, GATES, OURS, TORCH, Peephole, share, weights
from benchmarks.goals import Shape
from benchmarks.records import Time
from benchmarks.timing import Contestant, Effort, Measured, measure

TOLERANCE = 1e-5  # max |difference| / max |reference| of every tensor, float32
STEPS = 200  # of a streaming session, timed together

Forward = Callable[[Tensor], tuple[Tensor, Tensor | tuple[Tensor, ...]]]
Values = Mapping[str, Tensor]


class Mismatch(Exception):
    """A contestant computes something else than its rival."""


@dataclass(frozen=True)
class Check:
    """`who` must give what the reference gives."""

    who: str
    values: Callable[[], Values]
    reference: Callable[[], Values]

    def run(self) -> float:
        """The largest relative difference; raises Mismatch above TOLERANCE, StrictError when ours falls back."""
        reference = self.reference()
        with recurra.strict():
            found = self.values()
        worst = 0.0
        for name, wanted in reference.items():
            scale = wanted.abs().max().item() or 1.0
            difference = (found[name] - wanted).abs().max().item() / scale
            if not difference <= TOLERANCE:  # also when it is not a number
                size = f"{difference:.1e} of its largest value"
                raise Mismatch(f"{self.who}: {name} differs from the reference by {size}, allowed are {TOLERANCE}")
            worst = max(worst, difference)
        return worst


@dataclass(frozen=True)
class Race:
    """Contestants whose values were compared; run gives times and the largest difference seen.

    multiply_adds: of the products alone, for one call and unit of work: nobody can be faster than they take.
    """

    contestants: Sequence[Contestant]
    checks: Sequence[Check]
    multiply_adds: float = 0.0

    def only(self, names: set[str]) -> "Race":
        """The same among the contestants of these names."""
        contestants = [each for each in self.contestants if each.name in names]
        return replace(self, contestants=contestants, checks=[each for each in self.checks if each.who in names])

    def run(self, effort: Effort) -> tuple[Measured, float]:
        worst = self.check()
        return measure(self.contestants, effort), worst

    def check(self) -> float:
        return max((check.run() for check in self.checks), default=0.0)


def either(name: str, call: Callable[[], object], work: float = 1.0, grad: bool = True) -> list[Contestant]:
    """A rival twice, with mkldnn and without: the faster one counts."""
    return [Contestant(name, call, f"mkldnn {'on' if on else 'off'}", work, on, grad) for on in (True, False)]


def gradients(forward: Forward, layer: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], object]:
    """One training step without the optimiser: outputs, then the gradients of the input and of every weight."""
    leaves = [x, *weights(layer).values()]
    return lambda: torch.autograd.grad(forward(x)[0], leaves, dy)


def values(forward: Forward, layer: nn.Module | None, x: Tensor) -> Callable[[], Values]:
    """Outputs and last states, and with a layer their gradients, drawn with the same cotangents for everybody."""

    def compute() -> Values:
        y, state = forward(x)
        rows = [y, *(state if isinstance(state, tuple) else (state,))]
        found = {("outputs" if n == 0 else f"last state {n}"): row.detach().flatten() for n, row in enumerate(rows)}
        if layer is not None:
            generator = torch.Generator().manual_seed(1)
            cotangents = [torch.randn(row.numel(), generator=generator).view_as(row) for row in rows]
            leaves = {"input": x, **weights(layer)}
            grads = torch.autograd.grad(rows, list(leaves.values()), cotangents)
            found |= {f"gradient of {name}": grad for name, grad in zip(leaves, grads, strict=True)}
        return found

    return compute


def trio(cell: str, width: int) -> tuple[nn.RNNBase, nn.Module, nn.Module]:
    """PyTorch's layer, ours and a user's copy with the same weights."""
    theirs, ours = TORCH[cell](width, width), OURS[cell](width, width)
    copy = recurra.Recurrent(COPIES[cell](width, width))
    share(theirs, ours, copy)
    return theirs, ours, copy


def rows(shape: Shape, grad: bool) -> tuple[Tensor, Tensor]:
    """Input and cotangent of the output."""
    batch, time, width = shape
    return torch.randn(time, batch, width, requires_grad=grad), torch.randn(time, batch, width)


def multiply_adds(cell: str, steps: int, width: int, passes: int) -> float:
    """Of the two products of a cell over so many steps of one row; 3 passes with gradients, 1 without."""
    return 2.0 * GATES[cell] * width**2 * steps * passes


def train(cell: str, shape: Shape) -> Race:
    theirs, ours, copy = trio(cell, shape[2])
    x, dy = rows(shape, grad=True)
    reference = values(theirs, theirs, x)
    return Race(
        [
            Contestant("ours", gradients(ours, ours, x, dy)),
            Contestant("copy", gradients(copy, copy, x, dy)),
            *either("torch", gradients(theirs, theirs, x, dy)),
        ],
        [Check("ours", values(ours, ours, x), reference), Check("copy", values(copy, copy, x), reference)],
        multiply_adds(cell, shape[0] * shape[1], shape[2], 3),
    )


def infer(cell: str, shape: Shape) -> Race:
    theirs, ours, copy = (layer.requires_grad_(False) for layer in trio(cell, shape[2]))
    x, _ = rows(shape, grad=False)
    reference = values(theirs, None, x)
    return Race(
        [
            Contestant("ours", lambda: ours(x), grad=False),
            Contestant("copy", lambda: copy(x), grad=False),
            *either("torch", lambda: theirs(x), grad=False),
        ],
        [Check("ours", values(ours, None, x), reference), Check("copy", values(copy, None, x), reference)],
        multiply_adds(cell, shape[0] * shape[1], shape[2], 1),
    )


def lengths(cell: str, shape: Shape) -> Race:
    """Lengths from 20 to T in no order; the rival packs and pads, or runs the padded batch as if it were full."""
    batch, time, width = shape
    theirs, ours, copy = trio(cell, width)
    x, dy = rows(shape, grad=True)
    lens = torch.randint(20, time + 1, (batch,))
    lens[batch // 2] = time

    def packed(x: Tensor) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        y, state = theirs(pack_padded_sequence(x, lens, enforce_sorted=False))
        return pad_packed_sequence(y)[0], state

    def with_lengths(layer: nn.Module) -> Forward:
        return lambda x: layer(x, lengths=lens)

    reference = values(packed, theirs, x)
    own, copied = with_lengths(ours), with_lengths(copy)
    return Race(
        [
            Contestant("ours", gradients(own, ours, x, dy)),
            Contestant("copy", gradients(copied, copy, x, dy)),
            *either("packed", gradients(packed, theirs, x, dy)),
            *either("padded", gradients(theirs, theirs, x, dy)),
        ],
        [Check("ours", values(own, ours, x), reference), Check("copy", values(copied, copy, x), reference)],
        multiply_adds(cell, int(lens.sum()), width, 3),
    )


def stream(cell: str, shape: Shape) -> Race:
    """One step at a time, the state carried along; seconds are those of one step."""
    width = shape[2]
    theirs, ours, copy = trio(cell, width)
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

    def last(layer: nn.Module) -> Callable[[], Values]:
        return lambda: {"last output": by_session(recurra.Session(layer))}

    def reference() -> Values:
        return {"last output": by_cell().detach()}

    own, copied = recurra.Session(ours), recurra.Session(copy)

    return Race(
        [
            Contestant("ours", lambda: by_session(own), work=STEPS, grad=False),
            Contestant("copy", lambda: by_session(copied), work=STEPS, grad=False),
            *either("cell", by_cell, work=STEPS, grad=False),
        ],
        [Check("ours", last(ours), reference), Check("copy", last(copy), reference)],
        multiply_adds(cell, shape[0], width, 1),
    )


def width(cell: str, shape: Shape) -> Race:
    """An odd width against H = 256, seconds per multiplication of the products."""
    batch, time, odd = shape
    theirs, ours, copy = trio(cell, odd)
    even = OURS[cell](256, 256)
    x, dy = rows(shape, grad=True)
    reference = values(theirs, theirs, x)
    return Race(
        [
            Contestant("ours", gradients(ours, ours, x, dy), work=odd**2),
            Contestant("copy", gradients(copy, copy, x, dy), work=odd**2),
            Contestant("H = 256", gradients(even, even, *rows((batch, time, 256), grad=True)), work=256**2),
        ],
        [Check("ours", values(ours, ours, x), reference), Check("copy", values(copy, copy, x), reference)],
    )


def own(cell: str, shape: Shape) -> Race:
    """A cell that PyTorch does not have, against what its author would write without Recurra: a loop over unbind."""
    assert cell == "peephole"
    layer = recurra.Recurrent(Peephole(shape[2], shape[2]))
    x, dy = rows(shape, grad=True)

    def loop(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        h = c = x.new_zeros(x.shape[1], shape[2])
        ys = []
        for x_t in x.unbind():  # x[t] would make the backward pass quadratic in T
            h, c = layer.cell.step(x_t, h, c)
            ys.append(h)
        return torch.stack(ys), (h, c)

    return Race(
        [Contestant("ours", gradients(layer, layer, x, dy)), *either("loop", gradients(loop, layer, x, dy))],
        [Check("ours", values(layer, layer, x), values(loop, layer, x))],
        multiply_adds(cell, shape[0] * shape[1], shape[2], 3),
    )


@dataclass(frozen=True)
class Preparation:
    """Trace, passes and packing of cells never seen before, in a process of its own (benchmarks.prepare)."""

    cell: str
    shape: Shape
    multiply_adds: float = 0.0

    def only(self, names: set[str]) -> "Preparation":
        return self

    def run(self, effort: Effort) -> tuple[Measured, float]:
        numbers = [str(torch.get_num_threads()), str(self.shape[2])]
        command = [sys.executable, "-m", "benchmarks.prepare", *numbers]
        first, *later = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = {"1 s": 1.0, "first cell": first, "0.1 s": 0.1, "later cells": max(later)}
        return Measured({name: Time(each, each) for name, each in seconds.items()}), 0.0


def product(cell: str, shape: Shape) -> Race:
    """The machine's recurrent product against the multiply-adds a second that the processor can do at all."""
    return Race(parts.product(cell, shape), [])


def pointwise(cell: str, shape: Shape) -> Race:
    """The interpreted pointwise part of an LSTM step on one tile of H numbers, against the same as one loop."""
    assert (cell, shape[1]) == ("lstm", parts.Pointwise.STEPS)
    tile = parts.Pointwise(shape[2])
    return Race(
        [Contestant("ours", tile.interpreted), Contestant("fused loop", tile.fused)],
        [Check("ours", tile.interpreted, tile.fused)],
    )


CASES: dict[str, Callable[[str, Shape], Race | Preparation]] = {
    "train": train,
    "infer": infer,
    "call": infer,
    "lengths": lengths,
    "stream": stream,
    "width": width,
    "own": own,
    "product": product,
    "pointwise": pointwise,
    "prepare": Preparation,
}

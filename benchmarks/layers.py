"""Layers that PyTorch has too, raced against torch.nn, and against JAX and onnxruntime where a goal asks for it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recurra
from benchmarks.cells import COPIES, OURS, TORCH, share, weights
from benchmarks.goals import FLAT, Shape
from benchmarks.race import (
    Check,
    Forward,
    Race,
    Values,
    abroad,
    either,
    given,
    gradients,
    multiply_adds,
    rows,
    values,
)
from benchmarks.remote import Rival, task
from benchmarks.timing import Contestant, Effort, Measured

STEPS = 200  # of a streaming session, timed together
FEWEST = 2_000  # steps of one turn in the race of lengths


def trio(cell: str, width: int) -> tuple[nn.RNNBase, nn.Module, nn.Module]:
    """PyTorch's layer, ours and a user's copy with the same weights."""
    theirs, ours = TORCH[cell](width, width), OURS[cell](width, width)
    copy = recurra.Recurrent(COPIES[cell](width, width))
    share(theirs, ours, copy)
    return theirs, ours, copy


def train(cell: str, shape: Shape) -> Race:
    theirs, ours, copy = trio(cell, shape[2])
    x, dy = rows(shape, grad=True)
    reference = values(theirs, theirs, x)
    jax, checks = abroad("jax", Rival(task("jax", cell, shape), given(theirs, theirs, x)), reference)
    return Race(
        [
            Contestant("ours", gradients(ours, ours, x, dy)),
            Contestant("copy", gradients(copy, copy, x, dy)),
            *either("torch", gradients(theirs, theirs, x, dy)),
            *jax,
        ],
        [Check("ours", values(ours, ours, x), reference), Check("copy", values(copy, copy, x), reference), *checks],
        multiply_adds(cell, shape[0] * shape[1], shape[2], 3),
    )


def directions(cell: str, shape: Shape) -> Race:
    """A bidirectional layer, whose directions two threads may run side by side."""
    width = shape[2]
    theirs, ours = (getattr(of, cell.upper())(width, width, bidirectional=True) for of in (nn, recurra))
    share(theirs, ours)
    x, _ = rows(shape, grad=True)
    dy = torch.randn(*x.shape[:2], 2 * width)
    return Race(
        [
            Contestant("ours", gradients(ours, ours, x, dy)),
            *either("torch", gradients(theirs, theirs, x, dy)),
        ],
        [Check("ours", values(ours, ours, x), values(theirs, theirs, x))],
        multiply_adds(cell, 2 * shape[0] * shape[1], width, 3),
    )


def infer(cell: str, shape: Shape) -> Race:
    theirs, ours, copy = (layer.requires_grad_(False) for layer in trio(cell, shape[2]))
    x, _ = rows(shape, grad=False)
    reference = values(theirs, None, x)
    onnx, checks = abroad("onnxruntime", Rival(task("onnxruntime", cell, shape), given(theirs, theirs, x)), reference)
    return Race(
        [
            Contestant("ours", lambda: ours(x), grad=False),
            Contestant("copy", lambda: copy(x), grad=False),
            *either("torch", lambda: theirs(x), grad=False),
            *onnx,
        ],
        [Check("ours", values(ours, None, x), reference), Check("copy", values(copy, None, x), reference), *checks],
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


def second(cell: str, shape: Shape) -> Race:
    """Gradients of |dL/dx|^2, by input and weights, through a backward pass with create_graph."""
    theirs, ours, copy = trio(cell, shape[2])
    x, dy = rows(shape, grad=True)

    def derive(layer: nn.Module) -> Sequence[Tensor | None]:
        (dx,) = torch.autograd.grad(layer(x)[0], x, dy, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, *weights(layer).values()], allow_unused=True)

    def found(layer: nn.Module) -> Callable[[], Values]:
        names = [f"second gradient by {name}" for name in ("input", *weights(theirs))]
        return lambda: {n: torch.zeros(1) if d is None else d for n, d in zip(names, derive(layer), strict=True)}

    return Race(
        [
            Contestant("ours", lambda: derive(ours)),
            Contestant("copy", lambda: derive(copy)),
            *either("torch", lambda: derive(theirs)),
        ],
        [Check("ours", found(ours), found(theirs)), Check("copy", found(copy), found(theirs))],
    )


class Lengthening(Race):
    """The same layer over sequences of different lengths; the fastest of them is the one to keep up with."""

    def run(self, effort: Effort) -> Measured:
        found = super().run(effort)
        return replace(found, times=found.times | {"fastest": min(found.times.values(), key=lambda time: time.median)})


def steps(cell: str, shape: Shape) -> Race:
    """Seconds a step of training, for lengths up to T; what a call costs whatever its length is in them."""
    ours = OURS[cell](shape[2], shape[2])
    inputs = {T: rows((shape[0], T, shape[2]), grad=True) for T in FLAT if shape[1] >= T}
    return Lengthening([over_steps(T, gradients(ours, ours, x, dy), True) for T, (x, dy) in inputs.items()], [])


def steps_forward(cell: str, shape: Shape) -> Race:
    """The same of inference."""
    ours = OURS[cell](shape[2], shape[2])
    inputs = {T: rows((shape[0], T, shape[2]), grad=False)[0] for T in FLAT if shape[1] >= T}
    return Lengthening([over_steps(T, partial(ours, x), False) for T, x in inputs.items()], [])


def over_steps(T: int, call: Callable[[], object], grad: bool) -> Contestant:
    """Short calls in a row, or the caches would be those of whoever ran before."""
    calls = max(1, FEWEST // T)

    def run() -> None:
        for _ in range(calls):
            call()

    return Contestant(f"T = {T:,}", run, work=calls * T, grad=grad)

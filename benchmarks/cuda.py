"""On a GPU: the dense LSTM, which is handed to cuDNN, and a user's cell on generated kernels."""

from collections.abc import Callable

import torch

import recurra
from benchmarks.goals import Shape
from benchmarks.own import CELLS, unbound
from benchmarks.race import Check, Race, gradients, rows, values
from benchmarks.timing import Absent, Contestant


def cuda(cell: str, shape: Shape) -> Race:
    """Training: outputs, then the gradients of the input and of every weight."""
    if not torch.cuda.is_available():
        raise Absent("no GPU here")
    return dense(shape) if cell == "lstm" else own(cell, shape)


def dense(shape: Shape) -> Race:
    """bf16 throughout. Ours is torch.nn's forward, too: the row says what handing it over costs."""
    x, dy = (t.detach().to("cuda", torch.bfloat16) for t in rows(shape, grad=False))
    x.requires_grad_()
    theirs = torch.nn.LSTM(shape[2], shape[2], device="cuda", dtype=torch.bfloat16)
    ours = recurra.LSTM(shape[2], shape[2], device="cuda", dtype=torch.bfloat16)
    ours.load_state_dict(theirs.state_dict())
    return Race(
        [
            Contestant("ours", finished(gradients(ours, ours, x, dy))),
            Contestant("cuDNN", finished(gradients(theirs, theirs, x, dy))),
        ],
        [Check("ours", values(ours, ours, x), values(theirs, theirs, x), tolerance=1e-2)],
    )


def own(cell: str, shape: Shape) -> Race:
    """A cell of a user in single precision against its step in a Python loop."""
    layer = CELLS[cell](shape[2]).cuda()
    x, dy = (t.detach().cuda() for t in rows(shape, grad=False))
    x.requires_grad_()
    loop = unbound(layer)
    return Race(
        [
            Contestant("ours", finished(gradients(layer, layer, x, dy))),
            Contestant("loop", finished(gradients(loop, layer, x, dy))),
        ],
        [Check("ours", values(layer, layer, x), values(loop, layer, x), tolerance=1e-3)],
    )


def finished(call: Callable[[], object]) -> Callable[[], object]:
    """The call, and the wait for what it put into the GPU's queue."""

    def both() -> object:
        found = call()
        torch.cuda.synchronize()
        return found

    return both

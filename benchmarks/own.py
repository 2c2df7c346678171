"""Cells that PyTorch does not have, against what their author would write without Recurra."""

from collections.abc import Callable

import torch
from torch import Tensor

import recurra
from benchmarks.cells import LayerNormLSTM, Peephole
from benchmarks.goals import Shape
from benchmarks.race import Check, Forward, Race, abroad, either, given, gradients, multiply_adds, rows, values
from benchmarks.remote import Rival, task
from benchmarks.timing import Contestant

Layer = recurra.Recurrent


def layer_norm(width: int) -> Layer:
    """Its gates start quiet: with a gain of 1 a random network doubles a difference of one bit at every step."""
    layer = Layer(LayerNormLSTM(width, width))
    torch.nn.init.constant_(layer.cell.get_parameter("norm_h.weight"), 0.1)
    return layer


CELLS: dict[str, Callable[[int], Layer]] = {
    "peephole": lambda width: Layer(Peephole(width, width)),
    "layer-norm lstm": layer_norm,
}


def unbound(layer: Layer) -> Forward:
    """The step in a Python loop, over unbind: x[t] would make the backward pass quadratic in T."""
    sizes, step = tuple(layer.cell.state_sizes.values()), layer.cell.step

    def loop(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        states = tuple(x.new_zeros(x.shape[1], size) for size in sizes)
        ys = []
        for x_t in x.unbind():
            states = step(x_t, *states)
            ys.append(states[0])
        return torch.stack(ys), states

    return loop


def own(cell: str, shape: Shape) -> Race:
    layer = CELLS[cell](shape[2])
    x, dy = rows(shape, grad=True)
    loop = unbound(layer)
    reference = values(loop, layer, x)
    compiled, checks = abroad("compile", Rival(task("compile", cell, shape), given(loop, layer, x)), reference)
    return Race(
        [Contestant("ours", gradients(layer, layer, x, dy)), *either("loop", gradients(loop, layer, x, dy)), *compiled],
        [Check("ours", values(layer, layer, x), reference), *checks],
        multiply_adds(cell, shape[0] * shape[1], shape[2], 3),
    )

"""A call inside torch.compile or torch.export as one operator: what is written down in place of the loop."""

import torch
from torch import Tensor

from recurra.cell import Cell, autocast_is_on, call_sides, check_dtypes, check_input, check_sides, check_states
from recurra.errors import InputError
from recurra.passes import own_weights
from recurra.program.statics import Listing, evaluated
from recurra.program.text import plan_text
from recurra.program.trace import outside_transforms, rows_of
from recurra.unroll.call import Call, States, drawn
from recurra.unroll.compiled import find
from recurra.unroll.notes import constant_to_compilers
from recurra.unroll.operator import run
from recurra.unroll.precision import NO_GRADIENTS


def by_operator(call: Call) -> tuple[Tensor, States] | None:
    """The call as an operator; None where it has to be written down step by step."""
    if call.record is not None or call.batch_sizes is not None or call.x.device.type != "cpu" or autocast_is_on(call.x):
        return None
    # of a drop-in layer's cell the dtype is that of the layer's weights: its own have no numbers
    dtype, _ = rows_of(call.weights or own_weights(call.cell))
    program, (calls, results), zero_start = written(call.cell, dtype, *_settings(call.cell))
    if not program:
        return None
    if call.thrifty and torch.is_grad_enabled():
        raise InputError(
            'memory="sqrt" is not for torch.compile and torch.export, which keep all. Set layer.memory="all".'
        )
    if call.precision == "int8" and torch.is_grad_enabled():
        raise InputError(NO_GRADIENTS)
    call = drawn(call)
    cell, x, name = call.cell, call.x, call.cell.full_name
    check_input(name, x, cell.input_size)
    check_dtypes(name, dtype, x.device, x, {})
    sides = call_sides(cell, x) if call.sides is None else check_sides(name, cell.side_sizes, call.sides, x)
    states: list[Tensor] = []
    if call.states is not None:
        states = list(check_states(name, cell.state_sizes, call.states, x.shape[1]))
    elif not zero_start:
        states = list(call.first_states(x.shape[1]))
    weights = {**own_weights(cell), **(call.weights or {})}
    statics = evaluated(Listing(calls, results), weights, dtype, x.device)
    inputs, keep = [x, *sides], torch.is_grad_enabled()
    y, *last, _ = run(program, inputs, states, statics, call.lengths, call.reverse, keep, call.precision or "")
    return y, tuple(last)


def written(cell: Cell, dtype: torch.dtype, *settings: object) -> tuple[str, Listing, bool]:
    """What stands for the cell, with weights of this dtype, in what is written down: its program's text, "" when it has
    none; its statics; whether it starts at zero. settings: what it depends on, so that a compiler looks again."""
    with outside_transforms():
        weights = {name: _numbers(t, dtype) for name, t in own_weights(cell).items()}
    compiled, _ = find(cell, weights)
    plan = compiled.plan
    text = "" if plan is None or compiled.executor is None else plan_text(plan, compiled.backward)
    return text, compiled.evaluate.listing if text else Listing((), ()), compiled.zero_start


constant_to_compilers(written)


def _numbers(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers for a weight that may have none here: a program holds shapes."""
    numbers = torch.randn(like.shape, generator=torch.Generator().manual_seed(1))
    return numbers.to(dtype if like.is_floating_point() else like.dtype)


def _settings(cell: Cell) -> list[bool | int | str | None]:
    """The plain attributes of the cell and its modules; as numbers that torch.compile takes for constants."""
    found: list[bool | int | str | None] = []
    for module in cell.modules():
        for value in vars(module).values():
            if isinstance(value, float):
                found.append(value.hex())
            elif value is None or isinstance(value, (bool, str)):
                found.append(value)
            elif isinstance(value, int):
                found.append(int(value))
    return found

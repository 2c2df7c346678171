"""scan: the plain loop over time. It is the meaning of every faster executor, and what runs when none can."""

import torch
from torch import Tensor

from recurra.cell import (
    Cell,
    Resets,
    autocast_is_on,
    call_sides,
    call_with,
    check_dtypes,
    check_input,
    check_lengths,
    check_made,
    check_made_states,
    check_numbers,
    check_resets,
    check_sides,
    check_states,
    check_tensor,
    drawn_weights,
    initial_states,
    no_truth,
    one_step,
    output_width,
    reset_side,
    resetting,
    rows_like,
    undisturbed,
)
from recurra.errors import alone


def scan(
    cell: Cell,
    x: Tensor,
    states: tuple[Tensor, ...] | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
    sides: tuple[Tensor, ...] | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs `cell` over x (T, B, D) and returns the outputs (T, B, m) and the last states, a tuple of (B, n).

    states: those before the first step; None: `cell.initial(B)`.
    lengths: (B,) whole numbers from 0 to T, in any order. Past its length a row's output is 0 and its state stays.
    reverse: each row runs from its last valid step to its first; outputs stay beside their inputs.
    sides: what the step of a wrapper reads beside x, (T, B, width) each; None: `cell.sides(x)`, and
        `cell.call_weights()` stand in for weights of the cell.
    resets: (T, B) truth values: a new sequence begins at this step, and the states before it are the initial ones.
    Raises InputError for arguments that do not fit, CellError for a step that does not keep its states.
    """
    check_made(cell)
    name = cell.full_name
    if reverse is not False and reverse is not True:
        raise no_truth("reverse", reverse)
    check_numbers(name, dict(cell.named_parameters()))
    check_tensor(name, x)
    check_input(name, x, cell.input_size)
    weights = drawn_weights(cell) if sides is None else {}
    if len(weights):  # torch.compile takes any mapping for a true one
        found: tuple[Tensor, tuple[Tensor, ...]] = call_with(
            cell, weights, lambda: scan(cell, x, states, lengths, reverse, call_sides(cell, x), resets)
        )
        return found
    T, B, _ = x.shape
    if lengths is not None:
        lengths = check_lengths(lengths, T, B)
    if resets is not None:
        side = reset_side(check_resets(resets, T, B, lengths), x, reverse)
        sides = (side, *(call_sides(cell, x) if sides is None else sides))
        cell = resetting(cell)
    first = initial_states(cell, x, B) if states is None else check_states(name, cell.state_sizes, states, B)
    sides = call_sides(cell, x) if sides is None else check_sides(name, cell.side_sizes, sides, x)
    try:
        with undisturbed():
            return _loop(cell, x, first, lengths, reverse, sides)
    except RuntimeError:
        alone(lambda: _explain(cell, x, states))
        raise


def _explain(cell: Cell, x: Tensor, states: tuple[Tensor, ...] | None) -> None:
    """Why a step has failed, where weights or dtypes are why. Raises InputError or CellError."""
    cell.check_weights()
    if not autocast_is_on(x):
        _check_dtypes(cell, x, states)


def _check_dtypes(cell: Cell, x: Tensor, states: tuple[Tensor, ...] | None) -> None:
    """Whether dtypes are why a step has failed. states: those given. Raises InputError or CellError."""
    like, names = rows_like(cell), cell.state_names
    given = {} if states is None else dict(zip(names, states, strict=True))
    check_dtypes(cell.full_name, like.dtype, like.device, x, given)
    if states is None or any(isinstance(m, Resets) for m in cell.modules()):
        made = dict(zip(names, initial_states(cell, x, x.shape[1]), strict=True))
        check_made_states(cell.full_name, like.dtype, like.device, made)


def _loop(
    cell: Cell,
    x: Tensor,
    states: tuple[Tensor, ...],
    lengths: Tensor | None,
    reverse: bool,
    sides: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    T, B, _ = x.shape
    steps = T if lengths is None else int(lengths.max()) if B else 0
    ys: list[Tensor] = []
    xs = list(zip(*(s.unbind(0) for s in (x, *sides)), strict=True))  # indexing costs a gradient as large as x, each t
    for t in reversed(range(steps)) if reverse else range(steps):
        rows = None if lengths is None else (lengths > t).nonzero().squeeze(1).to(x.device)
        if rows is None or len(rows) == B:
            y, states = one_step(cell, xs[t][0], states, xs[t][1:])
        else:
            y, states = _step_of(rows, cell, *xs[t], states=states)
        ys.append(y)

    if not ys:
        return states[0].new_zeros(T, B, output_width(cell)), states
    y = torch.stack(ys[::-1] if reverse else ys)
    return (y if steps == T else torch.cat([y, y.new_zeros(T - steps, B, y.shape[2])])), states


def _step_of(
    rows: Tensor, cell: Cell, x: Tensor, *sides: Tensor, states: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One step of some rows only: what lies in the padding of the others enters no result and no gradient."""
    y, nexts = one_step(cell, x[rows], tuple(s[rows] for s in states), tuple(s[rows] for s in sides))
    whole = y.new_zeros(len(x), y.shape[1]).index_copy(0, rows, y)
    return whole, tuple(s.index_copy(0, rows, n.to(s.dtype)) for s, n in zip(states, nexts, strict=True))

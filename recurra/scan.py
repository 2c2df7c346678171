"""scan: the plain loop over time. It is the meaning of every faster executor, and what runs when none can."""

import torch
from torch import Tensor

from recurra.cell import (
    Cell,
    check_input,
    check_lengths,
    check_made,
    check_states,
    initial_states,
    one_step,
    output_width,
)


def scan(
    cell: Cell,
    x: Tensor,
    states: tuple[Tensor, ...] | None = None,
    lengths: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs `cell` over x (T, B, D) and returns the outputs (T, B, m) and the last states, a tuple of (B, n).

    states: those before the first step; None: `cell.initial(B)`.
    lengths: (B,) whole numbers from 0 to T, in any order. Past its length a row's output is 0 and its state stays.
    reverse: each row runs from its last valid step to its first; outputs stay beside their inputs.
    Raises InputError for arguments that do not fit, CellError for a step that does not keep its states.
    """
    name = type(cell).__name__
    check_made(cell)
    check_input(name, x, cell.input_size)
    T, B, _ = x.shape
    states = initial_states(cell, x, B) if states is None else check_states(name, cell.state_sizes, states, B)
    if lengths is not None:
        lengths = check_lengths(lengths, T, B)
    steps = T if lengths is None else int(lengths.max()) if B else 0

    ys: list[Tensor] = []
    xs = x.unbind(0)  # the gradient of x[t] would be as large as x, at every t
    for t in reversed(range(steps)) if reverse else range(steps):
        rows = None if lengths is None else (lengths > t).nonzero().squeeze(1).to(x.device)
        if rows is None or len(rows) == B:
            y, states = one_step(cell, xs[t], states)
        else:
            y, states = _step_of(rows, cell, xs[t], states)
        ys.append(y)

    if not ys:
        return states[0].new_zeros(T, B, output_width(cell)), states
    y = torch.stack(ys[::-1] if reverse else ys)
    return (y if steps == T else torch.cat([y, y.new_zeros(T - steps, B, y.shape[2])])), states


def _step_of(rows: Tensor, cell: Cell, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One step of some rows only: what lies in the padding of the others enters no result and no gradient."""
    y, nexts = one_step(cell, x[rows], tuple(s[rows] for s in states))
    whole = y.new_zeros(len(x), y.shape[1]).index_copy(0, rows, y)
    return whole, tuple(s.index_copy(0, rows, n.to(s.dtype)) for s, n in zip(states, nexts, strict=True))

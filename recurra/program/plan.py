"""What the passes make of a step: a `Plan` (before, in and after the loop) and its `Backward`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from recurra.program.values import Value


@dataclass(frozen=True, slots=True)
class Step:
    """A traced step before it is split: everything `nexts` and `output` depend on, in no particular order.

    watched   values that somebody wants to see (passes.record). No pass decides anything by them.
    """

    name: str
    inputs: dict[str, Value]
    states: dict[str, Value]
    nexts: tuple[Value, ...]
    output: Value
    watched: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A step in three parts. Each part lists its operations (slices included, leaves not) in order of evaluation.

    before    over all rows, ahead of the loop: depends on inputs and statics only
    body      once a step: what the next states depend on and what depends on previous states.
              A slice of a value of `before` that the body reads stands in the body (it is a view).
    after     over all rows, after the loop: may read inputs, values of before, exported, nexts and previous states
    streams   values of before, or inputs, that the body reads, whole or through slices
    exported  values of body, not nexts, that `after`, or the output, reads
    nexts     aligned with states. Usually values of body; may also be an input, a value of before, or a state.
    statics   every static of any part, and of Backward's, in the order in which their tensors are handed to an executor
    linear    "none": no state is read; "diag": linear in the states without products; "dense": linear; "no"
    watched   as in Step; of no part where nothing else needs them
    """

    name: str
    inputs: dict[str, Value]
    states: dict[str, Value]
    nexts: tuple[Value, ...]
    output: Value
    statics: tuple[Value, ...]
    before: tuple[Value, ...]
    body: tuple[Value, ...]
    after: tuple[Value, ...]
    streams: tuple[Value, ...]
    exported: tuple[Value, ...]
    linear: str
    watched: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Backward:
    """The derivative of a whole step (all three parts) as three parts, run in this order: after, body, before.

    Operands of a part: values of the same or an earlier part, saved and free forward values, consts, statics,
    cotangents. Free are inputs, previous states, nexts and output. A forward value that is recomputed is listed, as the
    same node, in every part that reads it, so a node may stand in more than one part (and in the forward's).

    saved     forward rows (of before, body or after) that forward must keep
    d_output  the cotangent leaf of the output: rows of all steps (None when no gradient depends on it)
    d_nexts   the cotangent leaves of the next states, aligned with states: what the loop carries backwards in time
    after     over all rows: does not read d_nexts
    body      once a step, in reverse time
    before    over all rows, after the reverse loop
    d_states  aligned with states: what d_nexts becomes one step earlier; a leaf or a value of a part; None: zero
    d_inputs  rows, per input (None: zero)
    matrices  (static, left, right): the static's gradient gains leftᵀ @ right, over all rows
    vectors   (static, rows): the static's gradient gains the sum over all rows, as wide as the static has numbers
    streams   values of after (not forward values), or d_output, that the body reads, whole or through slices
    exported  values of body, d_nexts among them, that `before`, d_inputs, matrices or vectors read
    """

    saved: tuple[Value, ...]
    d_output: Value | None
    d_nexts: tuple[Value, ...]
    after: tuple[Value, ...]
    body: tuple[Value, ...]
    before: tuple[Value, ...]
    d_states: tuple[Value | None, ...]
    d_inputs: dict[str, Value | None]
    matrices: tuple[tuple[Value, Value, Value], ...]
    vectors: tuple[tuple[Value, Value], ...]
    streams: tuple[Value, ...]
    exported: tuple[Value, ...]


def reads(part: Iterable[Value], roots: Iterable[Value] = ()) -> dict[Value, None]:
    """The rows that a part reads and does not make, in order; `roots` are read too."""
    part = tuple(part)
    made = set(part)
    return {a: None for a in [*[a for v in part for a in v.args], *roots] if a.is_row and a not in made}


def streams_of(
    before: Iterable[Value], body: Iterable[Value], inputs: Iterable[Value], nexts: Iterable[Value]
) -> tuple[Value, ...]:
    """Inputs and values of `before` that the loop reads: `Plan.streams`."""
    made = {*before, *inputs}
    return tuple(v for v in reads(body, nexts) if v in made)


def exported_of(
    body: Iterable[Value], after: Iterable[Value], nexts: Iterable[Value], output: Value
) -> tuple[Value, ...]:
    """Values of the loop, not next states, that are read behind it: `Plan.exported`."""
    made = set(body) - set(nexts)
    return tuple(v for v in reads(after, [output]) if v in made)


def reverse_streams_of(b: Backward) -> tuple[Value, ...]:
    """What the reverse loop reads of the part ahead of it: `Backward.streams`."""
    made = {*b.after} | ({b.d_output} if b.d_output is not None else set())
    return tuple(v for v in reads(b.body, [v for v in b.d_states if v is not None]) if v in made)


def reverse_exported_of(b: Backward) -> tuple[Value, ...]:
    """What is read of the reverse loop behind it: `Backward.exported`."""
    made = {*b.body, *b.d_nexts}
    return tuple(v for v in reads(b.before, gradients_of(b)) if v in made)


class Gradients(Protocol):
    """What a derivative hands out and sums up, split into parts or not yet: as in `Backward`."""

    @property
    def d_inputs(self) -> Mapping[str, Value | None]: ...
    @property
    def matrices(self) -> Sequence[tuple[Value, Value, Value]]: ...
    @property
    def vectors(self) -> Sequence[tuple[Value, Value]]: ...


def gradients_of(b: Gradients) -> list[Value]:
    """Rows that a derivative hands out or sums up, the states' gradients apart."""
    sums = [*[v for _, left, right in b.matrices for v in (left, right)], *[v for _, v in b.vectors]]
    return [*[v for v in b.d_inputs.values() if v is not None], *sums]

"""Why a call takes as long as it does, in words: each rule looks at what ran, and at the times, if measured."""

from recurra.machine.caches import caches, level_of
from recurra.machine.shape import Phase, Shape
from recurra.unroll.measured import Against, Measured
from recurra.unroll.notes import Visit
from recurra.unroll.wording import in_bytes, in_time, per_cent, several

_NEAR = ("", "L1", "L2")
_MANY = 4  # register blocks of rows, whose products take longer than their weights take to be read
_FEW_FOR_PACKING = 64  # rows
_WASTE = 0.25  # of the products of a loop


def reasons(visit: Visit, shapes: tuple[Shape, ...], threads: int, measured: Measured | None) -> tuple[str, ...]:
    """One sentence for each thing that costs time."""
    if not visit.T * visit.B:
        return ()
    if not shapes:
        return tuple(filter(None, [_step_by_step(visit)]))
    shape = shapes[0]
    few = _one_step(measured) if visit.T == 1 else _few_sequences(visit, shape, measured)
    found = [
        _lengths(visit), few, _few_rows(visit, shape), _far_weights(visit, shape), _small(visit, shape, threads),
        _idle(visit, shape), _padding(shape), _thrifty(visit),
    ]  # fmt: skip
    if measured is not None:
        found.append(_bound("forward", measured.forward, measured))
    if measured is not None and measured.backward is not None:
        found.append(_bound("backward", measured.backward, measured))
    return tuple(filter(None, found))


def _step_by_step(v: Visit) -> str:
    who = {"scan": "the plain loop: Python runs the step", "PyTorch": "PyTorch runs the program"}.get(v.executor)
    return "" if who is None else f"{who} operation by operation, {several(v.T, 'time')}"


def _lengths(v: Visit) -> str:
    sizes = None if v.ran is None else v.ran.layout.batch_sizes
    if not sizes or sizes[-1] == v.B:
        return ""
    rows = v.T * v.B
    skipped = f"lengths differ: {per_cent(1 - sum(sizes) / rows)} of the {rows:,} padded rows are skipped"
    return f"{skipped}, and half of the steps have no more than {several(sizes[v.T // 2], 'sequence')}"


def _one_step(measured: Measured | None) -> str:
    told = "T = 1: one step bears the cost of the whole call"
    if measured is not None and measured.itself is not None:
        part = measured.itself / measured.forward.seconds
        share = "most" if part > 0.5 else per_cent(part)
        told = f"T = 1: the call itself, {in_time(measured.itself)}, is {share} of the time"
    return f"{told}; recurra.Session keeps weights packed from step to step"


def _products(shape: Shape) -> Phase | None:
    """The phase of the loop that has the largest products."""
    return max((p for p in shape.phases if p.full), key=lambda p: p.rows * p.columns, default=None)


def _few_sequences(v: Visit, shape: Shape, measured: Measured | None) -> str:
    phase = _products(shape)
    if phase is None or not 0 < phase.rows < phase.full:
        return ""
    level = level_of(shape.own)
    origin = f" from {level}" if level else ""
    who = "one sequence" if phase.rows == 1 else f"{phase.rows} sequences"
    who = who if phase.rows == v.B else f"{who} a thread"
    told = f"{who}: each step waits for the one before, and reads {in_bytes(shape.own)} of weights{origin}"
    told = f"{told} for {several(phase.rows, 'row')}"
    if measured is None or not measured.forward.reading:
        return f"{told}, where a register block has room for {phase.full}"
    return f"{told}; that takes as long as the products of {_balance(v, shape, measured.forward):.2g} rows"


def _balance(v: Visit, shape: Shape, against: Against) -> float:
    """Rows of a step, on average, whose products take as long as its weights take to be read."""
    assert v.ran is not None
    in_loop = against.arithmetic * shape.multiply_adds[1] / shape.arithmetic
    return against.reading / in_loop * v.ran.layout.N / v.T


def _few_rows(v: Visit, shape: Shape) -> str:
    rows = 0 if v.ran is None else v.ran.layout.N
    if not shape.arithmetic or rows > _FEW_FOR_PACKING:
        return ""
    if not shape.packed:
        return f"{several(rows, 'row')} in all: too few for weights to be packed, which are turned as they are read"
    return f"{several(rows, 'row')} in all: packing {in_bytes(shape.packing / 2)} of weights, once a call, serves few"


def _far_weights(v: Visit, shape: Shape) -> str:
    level, phase = level_of(shape.own), _products(shape)
    if level in _NEAR or phase is None or phase.rows > _MANY * phase.full or v.T == 1:
        return ""
    whose = "a thread's part of the weights" if shape.use == "columns" else "weights"
    room = caches().get("L2")
    fit = f" does not fit this core's {in_bytes(room)} L2, and" if room else ""
    return f"{in_bytes(shape.own)}, {whose},{fit} comes from {level} at every step"


def _small(v: Visit, shape: Shape, threads: int) -> str:
    if v.beside or shape.threads >= threads:
        return ""
    return f"{shape.threads} of {threads} threads: there is too little work to wake more"


def _idle(v: Visit, shape: Shape) -> str:
    busy = sum(n > 0 for n in shape.sequences)
    if shape.use != "rows" or busy == shape.threads:
        return ""
    few = f"{several(v.B, 'sequence')}, and steps too small to be shared"
    return f"{few}: {busy} of {shape.threads} threads {'runs' if busy == 1 else 'run'} the loop"


def _padding(shape: Shape) -> str:
    worst = max(shape.phases, key=lambda p: p.padded, default=None)
    if worst is None or worst.padded < _WASTE:
        return ""
    vain = f"{per_cent(worst.padded)} of the loop's multiply-adds only fill vectors"
    return f"{vain}: a width that is a multiple of {worst.unit} wastes none"


def _thrifty(v: Visit) -> str:
    graded = v.thrifty and v.ran is not None and v.ran.graded
    return 'memory="sqrt": the backward pass runs the forward once more' if graded else ""


def _bound(name: str, a: Against, measured: Measured) -> str:
    """What most of a direction's time goes to."""
    itself = measured.itself or 0.0
    parts = {"the call itself": itself, "reading weights": a.reading, "multiply-adds": a.arithmetic}
    what = max(parts, key=lambda name: parts[name])
    if parts[what] >= 0.5 * a.seconds:
        return f"{name}: bound by {what}, {in_time(parts[what])} of {in_time(a.seconds)}"
    rest = a.seconds - max(a.reading, a.arithmetic) - itself
    other = "operations one by one, rows that are read and written, packing, and waiting"
    return f"{name}: {in_time(rest)} of {in_time(a.seconds)} go to {other}"

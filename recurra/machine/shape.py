"""What a call of a native program does: threads, tiles, bytes and multiply-adds, as the machine tells them."""

from dataclasses import dataclass
from typing import Any

from recurra.program.layout import Layout


@dataclass(frozen=True, slots=True)
class Phase:
    """How one phase of the loop is cut: what a thread has, its tiles, and the register block of its products.

    rows, columns  of the thread that has the most; (rows, columns) of a tile and of a register block too
    full           rows of a register block that fills the registers; 0 where the phase has no product
    unit           columns come in multiples of it
    padded         the part of its multiply-adds that only fill vectors
    """

    rows: int
    columns: int
    tile: tuple[int, int]
    block: tuple[int, int]
    full: int
    unit: int
    padded: float


@dataclass(frozen=True, slots=True)
class Shape:
    """One call, forward or backward. Bytes are of all threads together unless said otherwise.

    use               how the threads share the loop: "alone", "columns" (of every step), "sequences" (of their own, and
                      none waits for another), "rows" (sequences of their own, and all wait after each part of a chunk)
    sequences         of each thread, in the loop
    chunk             steps that go through all parts together
    packed            whether weights are packed before the loop; a call of few rows reads them in place
    phases            those of the loop
    multiply_adds     of the products: before the loop, in it, after it, and in what weights gain
    weights           bytes of weights that the loop reads at every step, and `own` those that each thread reads
    read              bytes of weights that the loop reads in all
    weights_outside   bytes of weights read once a chunk
    packing           bytes that packing all of them reads and writes, once a call
    rows_read, rows_written   bytes of arrays for each row: of the arrays that the call is given or gives
    rows_passed       bytes that one part leaves for the next, for each row: they live for one chunk, in a cache
    moved             bytes in all
    """

    threads: int
    use: str
    sequences: tuple[int, ...]
    chunk: int
    packed: bool
    phases: tuple[Phase, ...]
    multiply_adds: tuple[int, int, int, int]
    weights: int
    own: int
    read: int
    weights_outside: int
    packing: int
    rows_read: int
    rows_written: int
    rows_passed: int
    moved: int

    @property
    def arithmetic(self) -> int:
        """Multiply-adds in all."""
        return sum(self.multiply_adds)


def shape_of(told: dict[str, Any], layout: Layout, size: int) -> Shape:
    """The shape of a call over a layout with numbers of `size` bytes."""
    threads, N, packed = told["threads"], layout.N, told["packed"]
    stages = told["stages"]
    place = next(i for i, s in enumerate(stages) if s["loop"])
    loop, outside = stages[place], [s for s in stages if not s["loop"]]
    use = "alone" if threads == 1 else "columns" if told["together"] else "sequences" if told["apart"] else "rows"
    weights, aside = _weights([loop], packed, size), _weights(outside, packed, size)
    busy = 1 if use == "columns" else sum(n > 0 for n in told["sequences"])
    read, written = _rows(stages, "rows_read", size), _rows(stages, "rows_written", size)
    passed = _rows(stages, "chunk_read", size) + _rows(stages, "chunk_written", size)
    of_parts = [N * _multiply_adds(part) for part in (stages[:place], [loop], stages[place + 1 :])]
    packing = 2 * (weights + aside) if packed else 0
    chunks = -(-layout.T // told["steps"])
    in_loop, gained = layout.T * weights * busy, N * told["gain_rows"] * size
    return Shape(
        threads, use, tuple(told["sequences"]), told["steps"], packed, tuple(_phase(p) for p in loop["phases"]),
        (of_parts[0], of_parts[1], of_parts[2], N * told["gain_multiply_adds"]),
        weights, weights // threads if use == "columns" else weights, in_loop, aside, packing, read, written, passed,
        packing + in_loop + chunks * aside * threads + N * (read + written + passed) + gained,
    )  # fmt: skip


def _phase(told: dict[str, Any]) -> Phase:
    padded = 1 - told["multiply_adds"] / told["done"] if told["done"] else 0.0
    tile, block, full = told["tile"], told["block"], told["most_block_rows"]
    return Phase(told["rows"], told["columns"], tile, block, full, told["unit"], padded)


def _weights(stages: list[dict[str, Any]], packed: bool, size: int) -> int:
    return sum(p["packed_bytes"] if packed else p["multiply_adds"] * size for s in stages for p in s["phases"])


def _multiply_adds(stages: list[dict[str, Any]]) -> int:
    found: int = sum(p["multiply_adds"] for s in stages for p in s["phases"])
    return found


def _rows(stages: list[dict[str, Any]], what: str, size: int) -> int:
    return size * sum(int(s[what]) for s in stages)

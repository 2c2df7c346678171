"""How a part falls into phases: products first, then operations, all of one width, tile by tile.

A value that only its own phase reads lives in a slot (first-level cache). One that another phase or a product reads, or
somebody at other columns, is written to memory as well, and can be read from the next phase on.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from recurra.machine.operands import Memory, Operand, Unsupported
from recurra.program.ops import OPS
from recurra.program.values import Value


def reduces(v: Value) -> bool:
    """Whether a value is one number made of a whole row."""
    return v.op in OPS and OPS[v.op].kind == "reduction"


def code_of(v: Value) -> int:
    """The native opcode of an operation."""
    native = OPS[v.op].native
    if native is None:
        raise Unsupported(f"{v.op} has no native form", v.line)
    return native


@dataclass(eq=False)
class Item:
    """Something to compute in a phase: an operation, or a gate (a product, or some columns of one)."""

    value: Value
    product: Value | None = None  # gates: the mm or mmt, and its first column
    column: int = 0
    start: "Item | Value | None" = None  # gates: what the chain of multiply-adds starts from
    rank: int = 0  # gates: after how many others of the same chain
    phase: int = -1
    slot: int = -1
    targets: list[Operand] = field(default_factory=list)


def pointwise_operands(item: Item) -> Sequence[Value]:
    """What an item reads column by column: an operation all its operands, a gate the start of its chain."""
    if item.product is None:
        return item.value.args
    return [item.start] if isinstance(item.start, Value) else []


def _columns(v: Value) -> int:
    """The width over which an operation runs."""
    return v.args[0].width if reduces(v) else v.width


class PartPlan:
    """The items of a part and their phases.

    values  the part, in order of evaluation
    kept    values that whoever reads the part's results wants in arrays
    nexts   what the states of a loop become
    maybe   values whose array a call may leave out, so that nothing here may be read from it
    """

    def __init__(
        self,
        memory: Memory,
        values: Sequence[Value],
        kept: Iterable[Value],
        nexts: Iterable[Value],
        maybe: Iterable[Value],
    ) -> None:
        self.memory, self.values, self.kept = memory, list(values), list(dict.fromkeys(kept))
        self.maybe = set(maybe)
        self.inside, self.asked = set(self.values), set(self.kept)
        self.uses: dict[Value, int] = defaultdict(int)
        self.items: dict[Value, Item] = {}
        self.order_of_items: list[Item] = []
        self.pieces: dict[Value, list[Item]] = {}  # of concatenations
        self.sums: dict[Value, tuple[Value, Value]] = {}  # add(product, other) that only slices read
        self.widths: list[int] = []  # of the phases
        for used in [*(a for v in self.values for a in v.args), *self.kept, *nexts]:
            self.uses[used] += 1
        for v in self.values:
            self._plan(v)

    # ---- views: slices and broadcasts are read where their operand lies

    def root(self, value: Value) -> tuple[Value, int, int]:
        """The value that is stored or computed, where in it this view begins, and whether it is broadcast."""
        column = broadcast = 0
        stored = self.memory.stored
        while (
            value.op in ("slice", "broadcast")
            and value not in self.items
            and (value not in stored or value in self.maybe or value in self.asked)  # ours to write: not there yet
        ):
            if value.op == "slice":
                column += int(value.attr[0])
            else:
                broadcast = 1
            value = value.args[0]
        return value, column, broadcast

    def exact(self, v: Value, width: int) -> Item | None:
        """The item that computes a value, if this view of it is the whole and `width` wide."""
        base, column, broadcast = self.root(v)
        item = self.items.get(base)
        return item if item is not None and not column and not broadcast and base.width == width else None

    # ---- what is computed, and in which phase

    def _plan(self, v: Value) -> None:
        if v.is_product:
            if not self._only_sliced(v) and not self._summed(v):
                self._gate(v, v, 0)
        elif v.op == "add" and self._only_sliced(v) and self._sum(v):
            pass
        elif v.op == "slice":
            whole = v.args[0]
            product, start = self.sums.get(whole, (whole, None))
            if product in self.inside and product.is_product and whole not in self.items:
                self._gate(v, product, int(v.attr[0]))
                if start is not None:
                    self.items[v].start = self._slice(start, v)
        elif v.op == "cat":
            self.pieces[v] = [self.whole(a, a.width) for a in v.args]
        elif v.op != "broadcast":
            code_of(v)
            if not (v.op == "add" and self._absorb(v)):
                self._add(Item(v), self._earliest(v))

    def _only_sliced(self, v: Value) -> bool:
        return sum(u.op == "slice" and u.args[0] is v for u in self.values) == self.uses[v]

    def _summed(self, product: Value) -> bool:
        """Whether the product's only use is a sum that only slices read."""
        users = [u for u in self.values if product in u.args]
        return len(users) == self.uses[product] == 1 and users[0].op == "add" and self._only_sliced(users[0])

    def _sum(self, v: Value) -> bool:
        """add(product, other), read by slices only: each slice is a gate whose chain starts from a slice of `other`."""
        products = [a for a in v.args if a.is_product and a in self.inside and a not in self.items]
        for product in products[1:]:
            self._gate(product, product, 0)
        if not products:
            return False
        product = products[0]
        other = v.args[1] if v.args[0] is product else v.args[0]
        if (
            product.width == v.width == other.width
            and not self.root(other)[2]
            and self._ready(other) <= self._ready(product.args[0])
        ):
            self.sums[v] = (product, other)
            return True
        self._gate(product, product, 0)
        return False

    def _slice(self, of: Value, like: Value) -> Value:
        view = Value("slice", (of,), like.attr, like.width, line=like.line)
        self.inside.add(view)
        return view

    def _add(self, item: Item, earliest: int) -> None:
        item.phase = self._phase_of_width(_columns(item.value), earliest)
        self.items[item.value] = item
        self.order_of_items.append(item)

    def _phase_of_width(self, width: int, earliest: int) -> int:
        for p in range(earliest, len(self.widths)):
            if self.widths[p] == width:
                return p
        self.widths.append(width)
        return len(self.widths) - 1

    def _ready(self, value: Value) -> int:
        """The first phase in which a value, or a view of it, can be read from memory."""
        base, _, _ = self.root(value)
        if base in self.items:
            return self.items[base].phase + 1
        if base.op == "cat" and base in self.inside:
            return max(item.phase for item in self.pieces[base]) + 1
        return 0

    def _earliest(self, v: Value) -> int:
        """The first phase that may compute an operation: its operands lie in slots of that phase, or in memory."""
        return max((self._same_or_later(a, _columns(v)) for a in v.args), default=0)

    def _same_or_later(self, a: Value, width: int) -> int:
        item = self.exact(a, width)
        return self._ready(a) if item is None or reduces(item.value) else item.phase

    def _gate(self, value: Value, product: Value, column: int) -> None:
        self._add(Item(value, product, column), self._ready(product.args[0]))

    def _absorb(self, v: Value) -> bool:
        """add(gate, other): the gate's chain starts at `other` instead of zero, if that is known by then."""
        for a, other in (v.args, v.args[::-1]):
            gate = self.items.get(a)
            if gate is None or gate.product is None or gate.start is not None or self.uses[a] != 1:
                continue
            if other is a or a.width != v.width or (other.width != v.width and other.op != "const"):
                continue
            before = self.exact(other, v.width)
            if before is not None and before.product is not None and before.phase == gate.phase:
                gate.start, gate.rank = before, before.rank + 1
            elif self._ready(other) <= gate.phase and not self.root(other)[2]:
                gate.start = other
            else:
                continue
            del self.items[a]
            gate.value = v
            self.items[v] = gate
            self.order_of_items.remove(gate)  # what reads it comes later in the list
            self.order_of_items.append(gate)
            return True
        return False

    def whole(self, v: Value, width: int) -> Item:
        """The item that computes a value as it is wanted: its own, or a copy of what lies elsewhere."""
        item = self.exact(v, width)
        if item is None:
            item = Item(Value("broadcast", (v,), (width,), width))
            item.phase = self._phase_of_width(width, self._ready(v))
            self.order_of_items.append(item)
        return item

    def overwritten(self, saved: Sequence[Value], streams: Sequence[Value]) -> dict[Value, tuple[Value, int]]:
        """Which saved values can be written over which columns of a stream: nothing reads those later."""
        reads: list[tuple[Value, int, int, Item, bool]] = []  # the last: as the left operand of a product, row by row
        for item in self.order_of_items:
            for a in pointwise_operands(item):
                base, column, broadcast = self.root(a)
                reads.append((base, column, column + (1 if broadcast else a.width), item, False))
            if item.product is not None:
                left = item.product.args[0]
                base, column, _ = self.root(left)
                reads.append((base, column, column + left.width, item, True))
        taken: dict[Value, tuple[Value, int]] = {}
        for v, writer in ((v, self.items[v]) for v in saved if v in self.items):
            for base, lo, hi, _, _ in reads:
                if (
                    base not in streams
                    or hi - lo != v.width
                    or any(s is base and abs(at - lo) < v.width for s, at in taken.values())
                ):
                    continue
                others = [r for r in reads if r[0] is base and r[1] < hi and lo < r[2]]
                if all(self._before(r, writer, whole or (at, end) != (lo, hi)) for _, at, end, r, whole in others):
                    taken[v] = (base, lo)
                    break
        return taken

    def _before(self, reader: Item, writer: Item, elsewhere: bool) -> bool:
        """Whether `reader` is done with a tile when `writer` writes it; `elsewhere`: it reads beyond the tile."""
        if reader.phase != writer.phase or elsewhere:
            return reader.phase < writer.phase
        if reader.product is not None:
            return True
        return writer.product is None and self.order_of_items.index(reader) <= self.order_of_items.index(writer)

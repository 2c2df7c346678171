"""From the parts of a plan to the list of integers that the native machine reads (native/program.h).

A part becomes phases: products first, then operations, all of one width, tile by tile. A value that only its own phase
reads lives in a slot (first-level cache); one that another phase reads at other columns is written to memory as well.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from recurra.machine.operands import NOTHING, Memory, Operand, Place, Unsupported
from recurra.program.ops import OPS
from recurra.program.values import Value

Instruction = tuple[int, Operand, Operand, Operand, Operand, Operand]  # code; to, also to, three operands


def _code(v: Value) -> int:
    native = OPS[v.op].native
    if native is None:
        raise Unsupported(f"{v.op} has no native form", v.line)
    return native


_COPY = _code(Value("broadcast", (), (), 1))


@dataclass(eq=False)
class _Item:
    """Something to compute in a phase: an operation, or a gate (a product, or some columns of one)."""

    value: Value
    product: Value | None = None  # gates: the mm or mmt, and its first column
    column: int = 0
    start: "_Item | Value | None" = None  # gates: what the chain of multiply-adds starts from
    rank: int = 0  # gates: after how many others of the same chain
    phase: int = -1
    slot: int = -1
    targets: list[Operand] = field(default_factory=list)
    copied: bool = False  # a copy of a value that is computed nowhere in this part


@dataclass(eq=False)
class State:
    """A state of a loop: its leaf, what it becomes (None: zero), and the arrays of its first and last rows."""

    leaf: Value
    next: Value | None
    initial: int
    final: int


class PartEncoder:
    """Encodes one part.

    keep    values to be written to arrays; their places in `memory.stored` are read by encode(), not before
    maybe   those of them whose array a call may leave out
    """

    def __init__(
        self,
        memory: Memory,
        values: Sequence[Value],
        keep: Iterable[Value],
        maybe: Iterable[Value] = (),
        loop: bool = False,
        order: int = 1,
        states: Sequence[State] = (),
    ) -> None:
        self.memory, self.values, self.loop, self.order, self.states = memory, list(values), loop, order, list(states)
        self.inside = set(self.values)
        self.keep = list(dict.fromkeys(keep))
        self.maybe = set(maybe)
        self.state_index = {s.leaf: i for i, s in enumerate(self.states)}
        self.uses: dict[Value, int] = defaultdict(int)
        self.pieces: dict[Value, list[_Item]] = {}  # of concatenations
        self.local_widths: list[int] = []
        self.local_of: dict[Value, int] = {}
        self.items: dict[Value, _Item] = {}
        self.order_of_items: list[_Item] = []
        self.sums: dict[Value, tuple[Value, Value]] = {}  # add(product, other) that only slices read
        self.widths: list[int] = []  # of the phases
        self._count_uses()
        for v in self.values:
            self._plan(v)

    # ---- views: slices and broadcasts are read where their operand lies

    def root(self, value: Value) -> tuple[Value, int, int]:
        """The value that is stored or computed, where in it this view begins, and whether it is broadcast."""
        column = broadcast = 0
        while value.op in ("slice", "broadcast") and value not in self.items and value not in self.memory.stored:
            if value.op == "slice":
                column += int(value.attr[0])
            else:
                broadcast = 1
            value = value.args[0]
        return value, column, broadcast

    def _count_uses(self) -> None:
        for v in self.values:
            for a in v.args:
                self.uses[a] += 1
        for v in [*self.keep, *(s.next for s in self.states if s.next is not None)]:
            self.uses[v] += 1

    # ---- what is computed, and in which phase

    def encode(self) -> list[int]:
        """The stage as integers."""
        self._place_results()
        self._place_memory()
        phases = [self._phase(p) for p in range(len(self.widths))]
        states = [n for s in self.states for n in (s.leaf.width, s.initial, s.final)]
        return [
            int(self.loop),
            self.order,
            len(self.states),
            *states,
            len(self.local_widths),
            *self.local_widths,
            len(phases),
            *(n for p in phases for n in p),
        ]

    def _plan(self, v: Value) -> None:
        if v.op in ("mm", "mmt"):
            if not self._only_sliced(v) and not self._summed(v):
                self._gate(v, v, 0)
        elif v.op == "add" and self._only_sliced(v) and self._sum(v):
            pass
        elif v.op == "slice":
            whole = v.args[0]
            product, start = self.sums.get(whole, (whole, None))
            if product in self.inside and product.op in ("mm", "mmt") and whole not in self.items:
                self._gate(v, product, int(v.attr[0]))
                if start is not None:
                    self.items[v].start = self._slice(start, v)
        elif v.op == "cat":
            self._cat(v)
        elif v.op != "broadcast":
            _code(v)
            if not (v.op == "add" and self._absorb(v)):
                self._add(_Item(v), self._earliest(v))

    def _only_sliced(self, v: Value) -> bool:
        return sum(u.op == "slice" and u.args[0] is v for u in self.values) == self.uses[v]

    def _summed(self, product: Value) -> bool:
        """Whether the product's only use is a sum that only slices read."""
        users = [u for u in self.values if product in u.args]
        return len(users) == self.uses[product] == 1 and users[0].op == "add" and self._only_sliced(users[0])

    def _sum(self, v: Value) -> bool:
        """add(product, other), read by slices only: each slice is a gate whose chain starts from a slice of `other`."""
        products = [a for a in v.args if a.op in ("mm", "mmt") and a in self.inside and a not in self.items]
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

    def _add(self, item: _Item, earliest: int) -> None:
        item.phase = self._phase_of_width(
            item.value.width if not item.value.op.startswith("row") else item.value.args[0].width, earliest
        )
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
        width = v.args[0].width if v.op.startswith("row") else v.width
        return max((self._same_or_later(a, width) for a in v.args), default=0)

    def _same_or_later(self, a: Value, width: int) -> int:
        base, column, broadcast = self.root(a)
        item = self.items.get(base)
        in_slot = (
            item is not None
            and not column
            and not broadcast
            and base.width == width == a.width
            and not base.op.startswith("row")
        )
        return item.phase if item is not None and in_slot else self._ready(a)

    def _gate(self, value: Value, product: Value, column: int) -> None:
        self._add(_Item(value, product, column), self._ready(product.args[0]))

    def _absorb(self, v: Value) -> bool:
        """add(gate, other): the gate's chain starts at `other` instead of zero, if that is known by then."""
        for a, other in (v.args, v.args[::-1]):
            gate = self.items.get(a)
            if (
                gate is None
                or gate.product is None
                or gate.start is not None
                or self.uses[a] != 1
                or a.width != v.width
            ):
                continue
            if other is a or (other.width != v.width and other.op != "const") or self.root(other)[2]:
                continue
            base, column, broadcast = self.root(other)
            before = self.items.get(base)
            if (
                before is not None
                and before.product is not None
                and not column
                and not broadcast
                and before.phase <= gate.phase
                and base.width == v.width
            ):
                if before.phase == gate.phase:
                    gate.start, gate.rank = before, before.rank + 1
                else:
                    gate.start = other
            elif self._ready(other) <= gate.phase:
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

    def _cat(self, v: Value) -> None:
        if v not in self.keep or v in self.maybe:
            self._local(v)
        self.pieces[v] = [self._whole(a, a.width) for a in v.args]

    def _whole(self, v: Value, width: int) -> _Item:
        """The item that computes a value as it is wanted: its own, or a copy of what lies elsewhere."""
        base, column, broadcast = self.root(v)
        item = self.items.get(base)
        if item is not None and not column and not broadcast and base.width == width:
            return item
        copy = _Item(Value("broadcast", (v,), (width,), width), copied=True)
        copy.phase = self._phase_of_width(width, self._ready(v))
        self.order_of_items.append(copy)
        return copy

    def _local(self, v: Value) -> None:
        if v not in self.local_of:
            self.local_of[v] = len(self.local_widths)
            self.local_widths.append(v.width)

    def overwritten(self, saved: Sequence[Value], streams: Sequence[Value]) -> dict[Value, tuple[Value, int]]:
        """Which saved values can be written over which columns of a stream: nothing reads those later."""
        reads: list[tuple[Value, int, int, _Item, bool]] = []  # the last: as the left operand of a product, row by row
        for item in self.order_of_items:
            for a in self._pointwise_operands(item):
                base, column, broadcast = self.root(a)
                reads.append((base, column, column + (1 if broadcast else a.width), item, False))
            if item.product is not None:
                left = item.product.args[0]
                base, column, _ = self.root(left)
                reads.append((base, column, column + left.width, item, True))
        taken: dict[Value, tuple[Value, int]] = {}
        for v in saved:
            writer = self.items.get(v)
            for base, lo, hi, _, _ in reads if writer is not None else ():
                if (
                    base not in streams
                    or hi - lo != v.width
                    or any(s is base and abs(at - lo) < v.width for s, at in taken.values())
                ):
                    continue
                others = [r for r in reads if r[0] is base and r[1] < hi and lo < r[2]]
                if writer is not None and all(
                    self._before(r, writer, whole or (first, end) != (lo, hi)) for _, first, end, r, whole in others
                ):
                    taken[v] = (base, lo)
                    break
        return taken

    @staticmethod
    def _pointwise_operands(item: _Item) -> Sequence[Value]:
        if item.product is None:
            return item.value.args
        return [item.start] if isinstance(item.start, Value) else []

    def _before(self, reader: _Item, writer: _Item, elsewhere: bool) -> bool:
        """Whether `reader` is done with a tile when `writer` writes it; `elsewhere`: it reads beyond the tile."""
        if reader.phase != writer.phase or elsewhere:
            return reader.phase < writer.phase
        if reader.product is not None:
            return True
        return writer.product is None and self.order_of_items.index(reader) <= self.order_of_items.index(writer)

    # ---- where results go

    def _targets_of_cat(self, v: Value) -> list[Operand]:
        targets: list[Operand] = []
        if v in self.keep and v in self.memory.stored:
            array, column = self.memory.stored[v]
            targets.append((Place.ROWS, array, column, 0))
        if v in self.local_of:
            targets.append((Place.LOCAL, self.local_of[v], 0, 0))
        return targets

    def _place_results(self) -> None:
        for v, pieces in self.pieces.items():
            for place, index, start, _ in self._targets_of_cat(v):
                for a, item in zip(v.args, pieces, strict=True):
                    item.targets.append((place, index, start, 0))
                    start += a.width
        for v in self.keep:
            if v not in self.pieces:
                array, column = self.memory.stored[v]
                self._whole(v, v.width).targets.append((Place.ROWS, array, column, 0))
        for i, state in enumerate(self.states):
            zero = Value("const", (), (0.0,), 1)
            item = self._whole(state.next if state.next is not None else zero, state.leaf.width)
            item.targets.append((Place.NEXT, i, 0, 0))

    def _place_memory(self) -> None:
        """Values that another phase reads, or a product, or at other columns, are written to memory."""
        for item in list(self.order_of_items):
            if item.product is not None:
                self._need(item.product.args[0])
            for a in self._pointwise_operands(item):
                self._need(a, item)
            if item.value.op.startswith("row") and not self._in_memory(item):
                self._to_local(item)

    def _need(self, a: Value, reader: _Item | None = None) -> None:
        base, _, _ = self.root(a)
        item = self.items.get(base)
        if item is not None and not self._in_slot(a, reader) and not self._in_memory(item):
            self._to_local(item)

    def _in_slot(self, a: Value, reader: _Item | None) -> bool:
        base, column, broadcast = self.root(a)
        item = self.items.get(base)
        return (
            item is not None
            and reader is not None
            and item.phase == reader.phase
            and not column
            and not broadcast
            and base.width == self.widths[reader.phase]
            and not base.op.startswith("row")
        )

    def _in_memory(self, item: _Item) -> Operand | None:
        for place, index, column, _ in item.targets:
            if place in (Place.LOCAL, Place.NEXT):
                return (place, index, column, 0)
            if place == Place.ROWS and not any(self.memory.stored.get(v, (-1,))[0] == index for v in self.maybe):
                return (place, index, column, 0)
        return None

    def _to_local(self, item: _Item) -> None:
        self._local(item.value)
        item.targets.append((Place.LOCAL, self.local_of[item.value], 0, 0))

    # ---- operands and phases as integers

    def _operand(self, a: Value, reader: _Item | None) -> Operand:
        base, column, broadcast = self.root(a)
        width = self.widths[reader.phase] if reader is not None else a.width
        spread = int(broadcast or (a.width == 1 and width > 1))
        item = self.items.get(base)
        if item is not None:
            if self._in_slot(a, reader):
                return (Place.SLOT, item.slot, 0, 0)
            where = self._in_memory(item)
            assert where is not None, f"{base} is read outside its phase but is not in memory"
            return (where[0], where[1], where[2] + column, spread)
        if base in self.local_of:
            return (Place.LOCAL, self.local_of[base], column, spread)
        if base in self.state_index:
            return (Place.STATE, self.state_index[base], column, spread)
        operand = self.memory.operand(base, column, spread)
        if operand is None:
            raise Unsupported(f"the operand {base} of {a} is not where the loop can read it", a.line)
        if not self.loop and operand[0] == Place.SHIFTED:
            raise Unsupported(f"{base} is read outside the loop", a.line)
        return operand

    def _phase(self, p: int) -> list[int]:
        items = [i for i in self.order_of_items if i.phase == p]
        gates, operations = [i for i in items if i.product is not None], [i for i in items if i.product is None]
        slots = self._assign_slots(p, gates, operations)
        groups = self._groups(gates)
        instructions = [self._store(g, t) for g in gates for t in g.targets]
        for item in operations:
            instructions += self._instructions(item)
        flat = [n for i in instructions for n in (i[0], *(x for o in i[1:] for x in o))]
        return [self.widths[p], slots, len(groups), *(n for g in groups for n in g), len(instructions), *flat]

    def _assign_slots(self, p: int, gates: list[_Item], operations: list[_Item]) -> int:
        """Linear scan: a slot is free again after the last operation of the phase that reads it."""
        last: dict[_Item, int] = {}
        for n, item in enumerate(operations):
            for a in item.value.args:
                if self._in_slot(a, item):
                    last[self.items[self.root(a)[0]]] = n
        free: list[int] = []
        count = 0
        for gate in gates:  # all alive when the operations begin
            gate.slot, count = count, count + 1
        alive = [g for g in gates if g in last]
        free += [g.slot for g in gates if g not in last]
        for n, item in enumerate(operations):
            if item.value.op.startswith("row"):
                continue
            if free:
                item.slot = free.pop()
            else:
                item.slot, count = count, count + 1
            alive.append(item)
            done = [i for i in alive if last.get(i, -1) <= n]
            alive = [i for i in alive if i not in done]
            free += [i.slot for i in done]
        return max(count, 1)

    def _groups(self, gates: list[_Item]) -> list[list[int]]:
        groups: dict[tuple[int, Operand, int], list[_Item]] = {}
        for gate in sorted(gates, key=lambda g: g.rank):
            assert gate.product is not None
            left = self._operand(gate.product.args[0], None)
            groups.setdefault((gate.rank, left, gate.product.args[0].width), []).append(gate)
        return [
            [*left, depth, len(members), *(n for g in members for n in self._gate_code(g))]
            for (_, left, depth), members in groups.items()
        ]

    def _gate_code(self, gate: _Item) -> list[int]:
        assert gate.product is not None
        matrix = gate.product.args[1]
        start: Operand = NOTHING
        if isinstance(gate.start, _Item):
            start = (Place.SLOT, gate.start.slot, 0, 0)
        elif gate.start is not None:
            start = self._operand(gate.start, gate)
        return [self.memory.static_index[matrix], int(gate.product.op == "mmt"), gate.column, 0, gate.slot, *start]

    def _store(self, gate: _Item, target: Operand) -> Instruction:
        slot: Operand = (Place.SLOT, gate.slot, 0, 0)
        return (_COPY, slot, target, slot, NOTHING, NOTHING)

    def _instructions(self, item: _Item) -> list[Instruction]:
        code = _code(item.value)
        args = [self._operand(a, item) for a in item.value.args]
        a, b, c = [*args, NOTHING, NOTHING][:3]
        if item.value.op.startswith("row"):
            first, *rest = [*item.targets]
            if len(rest) > 1:
                raise Unsupported(f"{item.value.op} is wanted in more than two places", item.value.line)
            return [(code, first, rest[0] if rest else NOTHING, a, NOTHING, NOTHING)]
        slot: Operand = (Place.SLOT, item.slot, 0, 0)
        also = item.targets[0] if item.targets else NOTHING
        copies = [self._store(item, t) for t in item.targets[1:]]
        return [(code, slot, also, a, b, c), *copies]

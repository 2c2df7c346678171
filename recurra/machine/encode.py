"""From the parts of a plan to the list of integers that the native machine reads (native/program.h)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recurra.machine.operands import NOTHING, Memory, Operand, Place, Unsupported
from recurra.machine.phases import Item, PartPlan, code_of, pointwise_operands, reduces
from recurra.program.values import Value

Instruction = tuple[int, Operand, Operand, Operand, Operand, Operand]  # code; to, also to, three operands
_COPY = code_of(Value("broadcast", (), (), 1))


@dataclass(eq=False)
class State:
    """A state of a loop: its leaf, what it becomes (None: zero), and the arrays of its first and last rows."""

    leaf: Value
    next: Value | None
    initial: int
    final: int


class PartEncoder(PartPlan):
    """Encodes one part.

    keep    values to be written to arrays; their places in `memory.stored` are read by encode(), not before
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
        super().__init__(memory, values, keep, [s.next for s in states if s.next is not None], maybe)
        self.loop, self.order, self.states = loop, order, list(states)
        self.state_index = {s.leaf: i for i, s in enumerate(self.states)}
        self.local_widths: list[int] = []
        self.local_of: dict[Value, int] = {}

    def encode(self) -> list[int]:
        """The stage as integers."""
        self._place_results()
        self._place_memory()
        phases = [self._phase(p) for p in range(len(self.widths))]
        states = [n for s in self.states for n in (s.leaf.width, s.initial, s.final)]
        head = [int(self.loop), self.order, len(self.states), *states, len(self.local_widths), *self.local_widths]
        return [*head, len(phases), *(n for p in phases for n in p)]

    # ---- where results go

    def _local(self, v: Value) -> Operand:
        if v not in self.local_of:
            self.local_of[v] = len(self.local_widths)
            self.local_widths.append(v.width)
        return (Place.LOCAL, self.local_of[v], 0, 0)

    def _targets_of_cat(self, v: Value) -> list[Operand]:
        targets = [self._local(v)] if v not in self.kept or v in self.maybe else []
        if v in self.kept:
            targets.append((Place.ROWS, *self.memory.stored[v], 0))
        return targets

    def _place_results(self) -> None:
        for v, pieces in self.pieces.items():
            for place, index, start, _ in self._targets_of_cat(v):
                for a, item in zip(v.args, pieces, strict=True):
                    item.targets.append((place, index, start, 0))
                    start += a.width
        for v in self.kept:
            if v not in self.pieces:
                array, column = self.memory.stored[v]
                self.whole(v, v.width).targets.append((Place.ROWS, array, column, 0))
        for i, state in enumerate(self.states):
            zero = Value("const", (), (0.0,), 1)
            item = self.whole(state.next if state.next is not None else zero, state.leaf.width)
            item.targets.append((Place.NEXT, i, 0, 0))

    def _place_memory(self) -> None:
        """Values that another phase reads, or a product, or at other columns, are written to memory."""
        for item in self.order_of_items:
            if item.product is not None:
                self._need(item.product.args[0])
            for a in pointwise_operands(item):
                self._need(a, item)
            if reduces(item.value) and not self._in_memory(item):
                self._to_local(item)

    def _need(self, a: Value, reader: Item | None = None) -> None:
        base, _, _ = self.root(a)
        item = self.items.get(base)
        if item is not None and not self._in_slot(a, reader) and not self._in_memory(item):
            self._to_local(item)

    def _in_slot(self, a: Value, reader: Item | None) -> bool:
        item = None if reader is None else self.exact(a, self.widths[reader.phase])
        return item is not None and reader is not None and item.phase == reader.phase and not reduces(item.value)

    def _in_memory(self, item: Item) -> Operand | None:
        for place, index, column, _ in item.targets:
            if place in (Place.LOCAL, Place.NEXT):
                return (place, index, column, 0)
            if place == Place.ROWS and not any(self.memory.stored.get(v, (-1,))[0] == index for v in self.maybe):
                return (place, index, column, 0)
        return None

    def _to_local(self, item: Item) -> None:
        item.targets.append(self._local(item.value))

    # ---- operands and phases as integers

    def _operand(self, a: Value, reader: Item | None) -> Operand:
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

    def _assign_slots(self, p: int, gates: list[Item], operations: list[Item]) -> int:
        """Linear scan: a slot is free again after the last operation of the phase that reads it."""
        last: dict[Item, int] = {}
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
            if reduces(item.value):
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

    def _groups(self, gates: list[Item]) -> list[list[int]]:
        groups: dict[tuple[int, Operand, int], list[Item]] = {}
        for gate in sorted(gates, key=lambda g: g.rank):
            assert gate.product is not None
            left = self._operand(gate.product.args[0], None)
            groups.setdefault((gate.rank, left, gate.product.args[0].width), []).append(gate)
        return [
            [*left, depth, len(members), *(n for g in members for n in self._gate_code(g))]
            for (_, left, depth), members in groups.items()
        ]

    def _gate_code(self, gate: Item) -> list[int]:
        assert gate.product is not None
        matrix = gate.product.args[1]
        start: Operand = NOTHING
        if isinstance(gate.start, Item):
            start = (Place.SLOT, gate.start.slot, 0, 0)
        elif gate.start is not None:
            start = self._operand(gate.start, gate)
        return [self.memory.static_index[matrix], int(gate.product.op == "mmt"), gate.column, 0, gate.slot, *start]

    def _store(self, gate: Item, target: Operand) -> Instruction:
        slot: Operand = (Place.SLOT, gate.slot, 0, 0)
        return (_COPY, slot, target, slot, NOTHING, NOTHING)

    def _instructions(self, item: Item) -> list[Instruction]:
        code = code_of(item.value)
        args = [self._operand(a, item) for a in item.value.args]
        a, b, c = [*args, NOTHING, NOTHING][:3]
        if reduces(item.value):
            first, *rest = [*item.targets]
            if len(rest) > 1:
                raise Unsupported(f"{item.value.op} is wanted in more than two places", item.value.line)
            return [(code, first, rest[0] if rest else NOTHING, a, NOTHING, NOTHING)]
        slot: Operand = (Place.SLOT, item.slot, 0, 0)
        also = item.targets[0] if item.targets else NOTHING
        copies = [self._store(item, t) for t in item.targets[1:]]
        return [(code, slot, also, a, b, c), *copies]

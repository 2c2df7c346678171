"""Parts of the native machine alone: the recurrent product, and the interpreted pointwise part.

Programs are written here as the integers that native/module.cpp reads (native/program.h says what they mean), so that
nothing but the part itself is in them.
"""

import ctypes
import hashlib
import importlib
import subprocess
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.cells import GATES
from benchmarks.goals import Shape
from benchmarks.timing import Contestant

HERE = Path(__file__).parent
FLAGS = ["-O3", "-std=gnu++20", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-Wno-psabi"]

# Places of an operand, and operations, by native/program.h and recurra/program/ops.py.
NONE, SLOT, LOCAL, STATE, NEXT, VECTOR = 0, 1, 4, 5, 6, 7
MUL, FMA, SIGMOID, TANH, COPY = 5, 8, 13, 14, 33


def native() -> ModuleType:
    """The native machine; only when a part is measured, since Recurra can be installed without it."""
    return importlib.import_module("recurra._native")


@cache
def library() -> ctypes.CDLL:
    """benchmarks/parts.cpp for the instruction set in use, compiled once."""
    isa = native().isa()
    sources = [HERE / "parts.cpp", HERE.parent / "native" / "functions.h", HERE.parent / "native" / "simd.h"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + isa.encode()).hexdigest()[:16]
    made = HERE.parent / "build" / "benchmarks" / f"parts-{digest}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        march = {"v3": ["-march=x86-64-v3"], "generic": []}.get(isa, ["-march=x86-64-v4"])
        subprocess.run(["g++", *FLAGS, *march, "-shared", "-fPIC", str(sources[0]), "-o", str(made)], check=True)
    loaded = ctypes.CDLL(str(made))
    loaded.multiply_adds.restype = ctypes.c_double
    return loaded


def operand(place: int, index: int = 0, column: int = 0) -> list[int]:
    return [place, index, column, 0]


def instruction(code: int, to: list[int], *read: list[int], also: list[int] | None = None) -> list[int]:
    operands = [to, also or operand(NONE), *read, *[operand(NONE)] * (3 - len(read))]
    return [code, *chain.from_iterable(operands)]


def recurrent_product(gates: int, width: int) -> list[int]:
    """h -> the first of the gates of W h, over time; the others are computed and dropped."""
    code = [1, width, 0, 1, 1]  # an array: the initial state; no shifted rows; one static, the weight; one stage
    code += [1, 1, 1, width, 0, -1, 0, 1]  # a loop forwards with one state, that array its start; no locals; one phase
    code += [width, gates, 1, *operand(STATE), width, gates]  # its slots, and one group of products of the state
    for gate in range(gates):
        code += [0, 0, gate * width, 0, gate, *operand(NONE)]
    return [*code, 1, *instruction(COPY, operand(NEXT), operand(SLOT)), 0, 0]  # no gains


def lstm_pointwise(width: int) -> list[int]:
    """What follows the product in an LSTM step; its gates come from a vector, and are kept."""
    code = [4, *[width] * 4, 0, 1, 1]  # arrays: c and h at the start and at the end; one static, a vector; one stage
    code += [1, 1, 2, width, 0, 2, width, 1, 3, 1, 4 * width, 1]  # a loop, two states, one local: the kept gates
    squashed = [
        instruction(
            TANH if gate == 2 else SIGMOID,
            operand(SLOT, gate),
            operand(VECTOR, 0, gate * width),
            also=operand(LOCAL, 0, gate * width),
        )
        for gate in range(4)
    ]
    i, f, g, o, scratch = (operand(SLOT, slot) for slot in range(5))
    instructions = [
        *squashed,
        instruction(MUL, scratch, i, g),
        instruction(FMA, operand(NEXT, 0), f, operand(STATE, 0), scratch),
        instruction(TANH, scratch, operand(NEXT, 0)),
        instruction(MUL, operand(NEXT, 1), o, scratch),
    ]
    return [*code, width, 5, 0, len(instructions), *chain.from_iterable(instructions), 0, 0]  # no gains


def multiply_adds(threads: int) -> float:
    """Does nothing but independent multiply-adds for about a millisecond; says how many."""
    return float(library().multiply_adds(ctypes.c_int64(20_000), threads, ctypes.byref(ctypes.c_float())))


def rate(threads: int) -> float:
    """Multiply-adds a second, the best of many tries."""
    best = Contestant("FMA rate", lambda: multiply_adds(threads), work=multiply_adds(threads))
    return 1 / min(best.seconds(1) for _ in range(50))


def product(cell: str, shape: Shape) -> list[Contestant]:
    """Seconds a multiply-add: in the product of the states with the weights, and at best."""
    batch, time, width = shape
    gates, threads = GATES[cell], torch.get_num_threads()
    program = native().Program(recurrent_product(gates, width), [], False)
    weight, start = torch.randn(gates * width, width) / width**0.5, torch.randn(batch, width)

    def ours() -> None:
        pointers = [start.data_ptr()], [weight.data_ptr()], (width,), ()
        program.run(time, batch, time * batch, 0, threads, *pointers)

    return [
        Contestant("ours", ours, work=batch * time * gates * width**2),
        Contestant("FMA rate", lambda: multiply_adds(threads), work=multiply_adds(threads)),
    ]


class Pointwise:
    """A thousand steps of the pointwise part of an LSTM on one tile, interpreted and fused."""

    STEPS = 1000

    def __init__(self, width: int) -> None:
        self.width = width
        self.gates = torch.randn(4 * width)
        self.zero = torch.zeros(width)
        self.c, self.h, self.saved = torch.zeros(width), torch.zeros(width), torch.zeros(4 * width)
        self.program = native().Program(lstm_pointwise(width), [], False)

    def interpreted(self) -> dict[str, Tensor]:
        arrays = (self.zero, self.zero, self.c, self.h)
        pointers = [each.data_ptr() for each in arrays], [self.gates.data_ptr()], (0,), ()
        self.program.run(self.STEPS, 1, self.STEPS, 0, 1, *pointers)
        return {"c": self.c.clone(), "h": self.h.clone()}

    def fused(self) -> dict[str, Tensor]:
        self.c.zero_()
        pointers = [ctypes.c_void_p(each.data_ptr()) for each in (self.gates, self.c, self.h, self.saved)]
        library().lstm_pointwise(ctypes.c_int64(self.STEPS), ctypes.c_int64(self.width), *pointers)
        return {"c": self.c.clone(), "h": self.h.clone()}

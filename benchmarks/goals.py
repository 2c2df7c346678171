"""The one table of what must be reached.

A goal is a ratio, the rival's time divided by ours, at one thread and at two. It is reached when the median over the
runs is at least `NOISE` of it, which is about how far one configuration moves from run to run on a virtual machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

NOISE = 0.93
QUIET = 0.12  # share of one core that other processes may take before a measurement is repeated, then marked
COPY = 1 / 1.05  # a user's copy may take at most 5 % longer than the layer it was copied from
POINTWISE = 1 / 1.1  # interpreting may cost 10 %
ODD = 1 / 1.15  # an odd width may take at most 15 % longer per unit of work than H = 256

DECAYING = 1 / 1.2  # a state that decays to nothing may take at most 20 % longer

FLAT = (100, 1_000, 10_000, 100_000)  # lengths of a sequence, which the time of a step must not depend on
SAME = 1 / 1.05  # so far it may
TOLD = 0.0  # no goal: the ratio is told, and counts for nothing

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Goal:
    """In the case (kind, cell, shape) `who` must be `one` times (at 1 thread; `two` at 2) as fast as `against`.

    kind: a key of benchmarks.cases.CASES. shape: (B, T, H), the input as wide as the state. hope: what would please.
    Where `one` or `two` is TOLD there is no goal.
    """

    kind: str
    cell: str
    shape: Shape
    one: float
    two: float
    who: str = "ours"
    against: str = "torch"
    hope: str = ""

    @property
    def case(self) -> tuple[str, str, Shape]:
        return self.kind, self.cell, self.shape

    @property
    def id(self) -> str:
        """The name that `--rows` is matched with: train/gru/1,128,128/ours:torch."""
        return "/".join([self.kind, self.cell, ",".join(map(str, self.shape)), f"{self.who}:{self.against}"])

    def at(self, threads: int) -> float:
        return self.one if threads == 1 else self.two

    def met(self, ratio: float, threads: int) -> bool:
        return ratio >= NOISE * self.at(threads)


def goal(kind: str, cell: str, shape: Shape, one: float, two: float | None = None, **rest: str) -> Goal:
    return Goal(kind, cell, shape, one, one if two is None else two, **rest)


LAYERS = [
    goal("train", "gru", (1, 128, 128), 8),
    goal("train", "elman", (1, 128, 128), 8),
    goal("train", "gru", (8, 128, 128), 3.2, 4.5),
    goal("train", "elman", (8, 128, 128), 2.5, 3.6),
    goal("train", "gru", (32, 128, 256), 1.45, 1.9),
    goal("train", "gru", (16, 512, 256), 1.6, 2.0),
    goal("train", "elman", (32, 128, 256), 1.15, 1.6),
    goal("train", "lstm", (1, 128, 128), 1.4, 1.9),
    goal("train", "lstm", (1, 512, 256), TOLD, 1.9),
    goal("train", "lstm", (8, 128, 128), 1.05, 1.3),
    goal("train", "lstm", (32, 128, 256), 1.1, 1.15),
    goal("train", "lstm", (64, 64, 512), 1.0),
    goal("infer", "lstm", (8, 128, 128), 0.92),
    goal("infer", "lstm", (32, 128, 256), 0.92),
    goal("infer", "lstm", (64, 64, 512), 0.85, hope="0.95"),
    goal("infer", "lstm", (16, 512, 256), 0.85, hope="0.95"),
    *(
        goal("lengths", cell, (32, 128, 256), least, against=rival)
        for cell in ("gru", "elman", "lstm")
        for rival, least in (("packed", 4.3), ("padded", 1.7))
    ),
    goal("stream", "lstm", (1, 1, 64), 15, against="cell", hope="1.5 us a step"),
    goal("stream", "lstm", (1, 1, 256), 2.5, against="cell"),
    goal("second", "lstm", (8, 64, 64), 1.0),
    *(goal("call", cell, (1, 1, 64), 1.0) for cell in ("gru", "elman", "lstm")),
    *(
        goal("width", cell, (32, 128, width), ODD, against="H = 256")
        for cell in ("gru", "elman", "lstm")
        for width in (250, 300)
    ),
]

DIRECTIONS = [goal("directions", cell, (1, 128, 128), TOLD) for cell in ("lstm", "gru")]

OWN = [
    goal("own", "peephole", (1, 128, 128), 15, against="loop"),
    goal("own", "peephole", (8, 128, 128), 6, against="loop"),
    goal("own", "peephole", (32, 128, 256), 2, against="loop"),
    goal("own", "layer-norm lstm", (1, 128, 128), 15, against="loop"),
    goal("own", "layer-norm lstm", (8, 128, 128), 6, against="loop"),
    goal("own", "layer-norm lstm", (32, 128, 256), 1.9, against="loop"),
    goal("own", "layer-norm lstm", (8, 128, 128), 2.5, against="compile"),
]

LINEAR = [
    *(
        goal("linear", "mingru scan", shape, 5)
        for shape in ((16, 512, 256), (4, 4096, 256), (1, 512, 64), (1, 4096, 64), (1, 32768, 64))
    ),
    *(goal("linear", "mingru", (1, time, 64), 5) for time in (512, 4096, 32768)),
    goal("linear", "mingru", (16, 512, 256), TOLD),  # its product, which is the same for all, is most of it
]

ABROAD = [
    *(
        goal("train", cell, shape, 1.4, against="jax")
        for cell in ("lstm", "gru")
        for shape in ((1, 128, 128), (8, 128, 128), (32, 128, 256), (16, 512, 256), (64, 64, 512))
    ),
    *(
        goal("infer", cell, shape, TOLD, against="onnxruntime")
        for cell in ("lstm", "gru")
        for shape in ((1, 128, 128), (8, 128, 128), (32, 128, 256), (16, 512, 256), (64, 64, 512))
    ),
]

FEATURES = [  # may cost so much of the time without them
    goal("resets", "gru", (128, 64, 128), 1 / 1.1, against="plain"),
    goal("record", "lstm", (32, 128, 256), 1 / 1.3, against="plain"),
    goal("thrift", "lstm", (8, 4096, 256), 1 / 1.45, against="plain"),
    goal("thrift memory", "lstm", (8, 4096, 256), 1 / 0.15, against="plain"),
    goal("regularised", "lstm", (32, 128, 256), 1 / 1.25, against="plain"),
    *(
        goal(kind, cell, (8, 1000, 128), DECAYING, against="plain")
        for kind in ("decaying", "decaying forward")
        for cell in ("leaky", "gru", "lstm")
    ),
]

PUBLISHED = "OriginalLSTM PeepholeLSTM MGU IndRNN CFN NBR LEM NAS MultiplicativeLSTM coRNN".split()
PACKAGE = [
    *(goal("package", cell, (8, 128, 128), TOLD, against="torchrecurrent") for cell in PUBLISHED),
    goal("package", "ten cells", (8, 128, 128), 6, against="torchrecurrent"),  # the median of those above
]

MEMORY = [goal("memory", cell, (32, 128, 256), 1.0 if cell == "lstm" else TOLD) for cell in ("lstm", "gru", "elman")]

STEPS = [
    goal(kind, "lstm", (8, FLAT[-1], 128), SAME, who=f"T = {T:,}", against="fastest")
    for kind in ("steps", "steps forward")
    for T in FLAT
]


def copies(goals: list[Goal]) -> Iterator[Goal]:
    """The same cases again for a user's copy of the cell, once a case."""
    for kind, cell, shape in dict.fromkeys(each.case for each in goals):
        yield goal(kind, cell, shape, COPY, who="copy", against="ours")


NARROW = [
    *(
        goal("train bf16", cell, shape, least)
        for cell, shape, least in (
            ("lstm", (32, 128, 256), 4.2),
            ("lstm", (64, 64, 512), 3.9),
            ("gru", (32, 128, 256), 4.8),
            ("gru", (16, 512, 256), 6),
            ("elman", (32, 128, 256), 3.6),
        )
    ),
    *(
        goal("train bf16", cell, (32, 128, 256), least, against="autocast")
        for cell, least in (("lstm", 1.8), ("gru", 3.3), ("elman", 3))
    ),
    *(
        goal("infer bf16", "lstm", shape, 0.9, against="autocast", hope="1.1")
        for shape in ((32, 128, 256), (64, 64, 512))
    ),
    *(
        goal("train fp32-fast", cell, shape, 1.8, hope="2.5")
        for cell in ("lstm", "gru")
        for shape in ((32, 128, 256), (64, 64, 512))
    ),
    *(goal("own bf16", cell, (32, 128, 256), 6, against="loop") for cell in ("peephole", "layer-norm lstm")),
    goal("stream bf16", "lstm", (1, 1, 256), 5, against="cell"),
    goal("stream bf16", "lstm", (1, 1, 512), 2.4, against="cell"),
    goal("stream int8", "lstm", (1, 1, 256), TOLD, against="cell"),
    goal("stream int8", "lstm", (1, 1, 512), TOLD, against="cell"),
    goal("infer int8", "lstm", (32, 128, 256), TOLD, against="autocast"),
]

PREPARE = [
    goal("prepare", "own cells", (1, 1, 256), 1.0, who="first cell", against="1 s"),
    goal("prepare", "own cells", (1, 1, 256), 1.0, who="later cells", against="0.1 s"),
]

PARTS = [
    *(
        goal("product", cell, (batch, 128, 128), 0.85, against="FMA rate")
        for cell in ("lstm", "gru")
        for batch in (8, 32)
    ),
    *(goal("pointwise", "lstm", (1, 1000, width), POINTWISE, against="fused loop") for width in (128, 256, 512)),
]

TRAINER = [
    goal("loop", "lstm", (32, 128, 512), TOLD, 1.4),
    goal("loop", "gru", (32, 128, 512), TOLD, 2.3, hope="3"),
    goal("reading", "lstm", (32, 20, 128), 1.0, who="reading", against="a tenth of training"),
]

CUDA = [  # an H200; elsewhere without a GPU these rows say so
    goal("cuda", "lstm", (16, 1024, 768), 1.0, against="cuDNN"),
    goal("cuda", "layer-norm lstm", (16, 1024, 768), 20, against="loop"),
]

GOALS = [
    *(*LAYERS, *DIRECTIONS, *OWN, *LINEAR, *ABROAD, *PACKAGE, *copies(LAYERS)),
    *(*FEATURES, *NARROW, *MEMORY, *STEPS, *PREPARE, *PARTS, *TRAINER, *CUDA),
]

"""Random calls of cells and layers, right and wrong: what a seed draws, what scan or torch.nn makes of it, and ours.

`make soak` runs ten thousand; test_random_calls.py runs the first of them.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import recurra
from examples import CELLS
from recurra import Cell, RecurraError

SIZES = (1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33)
STEPS = (0, 1, 1, 2, 3, 5, 9)
BATCHES = (0, 1, 1, 2, 3, 5, 8, 9, 17)
EXACT = {torch.float32: 1e-4, torch.float64: 1e-9}  # of the largest number of a tensor
SMALL = 0.02  # what is smaller may be the rest of numbers that cancel


@dataclass
class RandomCall:
    """What one seed stands for.

    ours, theirs: the same function, run by us and by whoever defines it. words: what was drawn, for a failing test.
    """

    seed: int
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arguments: list[Any]
    parameters: list[Tensor]
    mode: Callable[[], Any]
    same_errors: bool
    words: list[str] = field(default_factory=list)

    @property
    def mistaken(self) -> bool:
        return any(word.startswith("mistake") for word in self.words)

    def __str__(self) -> str:
        return f"random call {self.seed}: {', '.join(self.words)}"


class Draw:
    """A source of choices that remembers the words for them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = torch.Generator().manual_seed(seed)
        self.words: list[str] = []

    def of(self, choices: Sequence[Any], what: str = "") -> Any:
        chosen = self.random.choice(choices)
        if what:
            self.words.append(f"{what} {chosen}")
        return chosen

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def tensor(self, shape: Sequence[int], dtype: torch.dtype, what: str) -> Tensor:
        """Numbers of this shape, laid out in memory in one of the ways that PyTorch's users have."""
        n = len(shape)
        way = self.of(["whole", "whole", "transposed", "reversed axes", "every second", "a part", "expanded"], what)
        if way == "transposed" and n > 1:
            return self._normal((shape[1], shape[0], *shape[2:]), dtype).transpose(0, 1)
        if way == "reversed axes":
            return self._normal(tuple(reversed(shape)), dtype).permute(*reversed(range(n)))
        if way == "every second":
            return self._normal([2 * s for s in shape], dtype)[tuple(slice(None, None, 2) for _ in shape)]
        if way == "a part":
            return self._normal([s + 2 for s in shape], dtype)[tuple(slice(1, s + 1) for s in shape)]
        if way == "expanded":
            axis = self.random.randrange(n)
            return self._normal([1 if k == axis else s for k, s in enumerate(shape)], dtype).expand(*shape)
        return self._normal(shape, dtype)

    def _normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.randn(*shape, generator=self.numbers, dtype=torch.float64).to(dtype)


# ------------------------------------------------------------------------------------------------------ right arguments


def drawn(seed: int) -> RandomCall:
    """The call that a seed stands for: three in ten are of RNN, LSTM and GRU, the rest of cells."""
    draw = Draw(seed)
    call = _layer_call(draw, seed) if draw.chance(0.3) else _cell_call(draw, seed)
    call.words = draw.words
    return call


def _sizes(draw: Draw) -> tuple[int, int, int, int, torch.dtype]:
    T, B, D, H = draw.of(STEPS, "T"), draw.of(BATCHES, "B"), draw.of(SIZES, "D"), draw.of(SIZES, "H")
    dtype = draw.of([torch.float32, torch.float64], "in")
    return T, B, D, H, dtype


def _cell_call(draw: Draw, seed: int) -> RandomCall:
    example = draw.of(CELLS, "cell")
    T, B, D, H, dtype = _sizes(draw)
    torch.manual_seed(seed)
    cell = example.make(D, H).to(dtype)
    x = draw.tensor((T, B, D), dtype, "x")
    states = _reachable(_states(draw, cell, x, dtype), cell, example.at_least)
    lengths = None
    if draw.chance(0.4):
        lengths = torch.tensor([draw.random.randint(0, T) for _ in range(B)], dtype=draw.of([torch.int64, torch.int32]))
        draw.words.append(f"lengths {lengths.tolist()}")
    arguments = [x, states, lengths, draw.of([False, True], "reverse")]
    if draw.chance(0.25):
        arguments = _mistaken(draw, arguments)
    parameters = list(cell.parameters())
    _require(draw, [arguments[0], *tree_leaves(arguments[1])], parameters)

    def run(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: function(cell, *given)

    return RandomCall(seed, run(recurra.unroll), run(recurra.scan), arguments, parameters, _mode(draw), False)


def _states(draw: Draw, cell: Cell, x: Tensor, dtype: torch.dtype) -> Any:
    """None, or states of their own, the same tensor twice, views of x, or what an earlier call returned."""
    T, B, D = x.shape
    widths = list(cell.state_sizes.values())
    way = draw.of(["none", "own", "own", "one for all", "views of x", "an earlier call's"], "states")
    if way == "none":
        return None
    if way == "one for all" and len(set(widths)) == 1:
        return (draw.tensor((B, widths[0]), dtype, "each"),) * len(widths)
    if way == "views of x" and T and max(widths) <= D:
        return tuple(x[T // 2, :, :n] for n in widths)
    if way == "an earlier call's" and not draw.words[0].endswith("Learned"):
        with torch.no_grad():
            return recurra.unroll(cell, draw.tensor((3, B, D), dtype, "earlier"))[1]
    return tuple(draw.tensor((B, n), dtype, "each") for n in widths)


def _reachable(states: Any, cell: Cell, at_least: Mapping[str, float]) -> Any:
    """States such as the cell's own steps leave; one tensor for several stays one."""
    if states is None or not at_least:
        return states
    own = {id(s): s for s in states}
    for name, s in zip(cell.state_names, states, strict=True):
        if name in at_least:
            own[id(s)] = at_least[name] + s.abs()
    return tuple(own[id(s)] for s in states)


def _layer_call(draw: Draw, seed: int) -> RandomCall:
    name = draw.of(["RNN", "LSTM", "GRU"], "layer")
    T, B, D, H, dtype = _sizes(draw)
    options = {
        "num_layers": draw.of([1, 1, 2], "layers"),
        "bias": draw.of([True, False], "bias"),
        "batch_first": draw.of([True, False], "batch_first"),
        "bidirectional": draw.of([True, False], "bidirectional"),
        "dtype": dtype,
    }
    torch.manual_seed(seed)
    theirs, ours = getattr(nn, name)(D, H, **options), getattr(recurra, name)(D, H, **options)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data = other.data
    batched = draw.of([True, True, False], "batched")
    shape = ((B, T, D) if options["batch_first"] else (T, B, D)) if batched else (T, D)
    x = draw.tensor(shape, dtype, "x")
    parts = options["num_layers"] * (2 if options["bidirectional"] else 1)
    hx: Any = None
    if draw.chance(0.5):
        sizes = (parts, B, H) if batched else (parts, H)
        h = draw.tensor(sizes, dtype, "h")
        hx = (h, draw.tensor(sizes, dtype, "c")) if name == "LSTM" else h
    arguments = [x, hx]
    if draw.chance(0.25):
        arguments = _mistaken(draw, arguments)
    parameters = list(theirs.parameters())
    _require(draw, [arguments[0], *tree_leaves(arguments[1])], parameters)
    for mine, other in zip(ours.parameters(), parameters, strict=True):
        mine.requires_grad_(other.requires_grad)
    call = RandomCall(seed, ours, theirs, arguments, parameters, _mode(draw), True)
    call.ours = _with_parameters(ours, parameters)
    return call


def _with_parameters(ours: nn.Module, parameters: list[Tensor]) -> Callable[..., Any]:
    """Ours with torch.nn's own Parameter objects: gradients are then asked of the same tensors."""
    names = [name for name, _ in ours.named_parameters()]
    return lambda *given: torch.func.functional_call(ours, dict(zip(names, parameters, strict=True)), given)


def _require(draw: Draw, tensors: Sequence[Any], parameters: Sequence[Tensor]) -> None:
    """Gradients of some of them; a tensor that is a view is asked for its own."""
    for t in tensors:
        if isinstance(t, Tensor) and t.is_floating_point() and t.is_leaf and draw.chance(0.5):
            t.requires_grad_()
    for p in parameters:
        p.requires_grad_(draw.chance(0.8))


def _mode(draw: Draw) -> Callable[[], Any]:
    return draw.of([torch.enable_grad, torch.enable_grad, torch.enable_grad, torch.no_grad, torch.inference_mode])


# ------------------------------------------------------------------------------------------------------ wrong arguments


def _mistaken(draw: Draw, arguments: list[Any]) -> list[Any]:
    """The same with one thing wrong."""
    x, states, *rest = arguments
    D, kind = x.shape[-1], draw.of(["x", "x", "states", "lengths"], "mistake in")
    if kind == "x":
        x = draw.of(MISTAKEN_X, "x,")(x)
    elif kind == "states" and states is not None:
        states = draw.of(MISTAKEN_STATES, "states,")(states)
    elif rest:
        T, B = x.shape[0], x.shape[1]
        rest = [draw.of(MISTAKEN_LENGTHS, "lengths,")(T, B), *rest[1:]]
    else:
        x = x.new_zeros(*x.shape[:-1], D + 1)
    return [x, states, *rest]


class Named:
    """A change by its name."""

    def __init__(self, name: str, change: Callable[..., Any]) -> None:
        self.name, self.change = name, change

    def __str__(self) -> str:
        return self.name

    def __call__(self, *given: Any) -> Any:
        return self.change(*given)


def _other_float(t: Tensor) -> Tensor:
    return t.to(torch.float32 if t.dtype is torch.float64 else torch.float64)


MISTAKEN_X = [
    Named("wider", lambda x: torch.cat([x, x], -1)),
    Named("narrower", lambda x: x[..., :-1]),
    Named("without an axis", lambda x: x[0] if len(x) else x.sum(0)),
    Named("with an axis more", lambda x: x[None]),
    Named("of the other float", _other_float),
    Named("of half", lambda x: x.half()),
    Named("of whole numbers", lambda x: x.long()),
    Named("of booleans", lambda x: x > 0),
    Named("complex", lambda x: x.to(torch.complex64)),
    Named("one number", lambda x: x.new_zeros(())),
    Named("a list", lambda x: x.tolist()),
    Named("an array", lambda x: x.numpy(force=True)),
    Named("nothing", lambda x: None),
    Named("on meta", lambda x: x.to("meta")),
]
MISTAKEN_STATES = [
    Named("one too many", lambda s: (*tree_leaves(s), tree_leaves(s)[0])),
    Named("none", lambda s: ()),
    Named("of the other float", lambda s: tree_map(_other_float, s)),
    Named("of whole numbers", lambda s: tree_map(Tensor.long, s)),
    Named("a row more", lambda s: tree_map(lambda t: t.new_zeros(len(t) + 1, *t.shape[1:]), s)),
    Named("a column more", lambda s: tree_map(lambda t: torch.cat([t, t[..., :1]], -1), s)),
    Named("without an axis", lambda s: tree_map(lambda t: t.sum(0), s)),
    Named("lists", lambda s: tree_map(Tensor.tolist, s)),
    Named("a number", lambda s: 3),
    Named("on meta", lambda s: tree_map(lambda t: t.to("meta"), s)),
]
MISTAKEN_LENGTHS = [
    Named("too long", lambda T, B: torch.full((B,), T + 1)),
    Named("below 0", lambda T, B: torch.full((B,), -1)),
    Named("floats", lambda T, B: torch.zeros(B)),
    Named("booleans", lambda T, B: torch.zeros(B, dtype=torch.bool)),
    Named("one too many", lambda T, B: torch.zeros(B + 1, dtype=torch.int64)),
    Named("a column", lambda T, B: torch.zeros(B, 1, dtype=torch.int64)),
    Named("a number", lambda T, B: T),
    Named("a word", lambda T, B: "all"),
]


# ---------------------------------------------------------------------------------------------------------- the verdict


def outcome(call: RandomCall, run: Callable[..., Any], given: list[Any]) -> list[Tensor | None] | Exception:
    """Outputs, states and gradients, or what was raised."""
    torch.manual_seed(call.seed)  # of which masks are drawn
    try:
        with call.mode():
            y, last = run(*given)
    except Exception as error:  # noqa: BLE001 (the verdict is about it)
        return error
    found = [y, *tree_leaves(last)]
    wanted = [t for t in (*tree_leaves(given), *call.parameters) if isinstance(t, Tensor) and t.requires_grad]
    half = Draw(call.seed).random.random() < 0.5  # a loss of some of the outputs; sum's gradients have strides of zero
    moving = [t for t in (found[:1] if half else found) if t.requires_grad]
    if not moving or not wanted or call.mode is not torch.enable_grad:
        return [*found, *(None for _ in wanted)]
    loss = sum(t.sum() if half else (t * t.detach().cos()).sum() for t in moving)
    assert isinstance(loss, Tensor)
    return [*found, *torch.autograd.grad(loss, wanted, allow_unused=True)]


def verdict(call: RandomCall) -> str:
    """ "" for a call that went as it should, else what is wrong with it."""
    numbers = [a for a in tree_leaves(call.arguments) if isinstance(a, Tensor) and not a.is_meta]
    before = [a.detach().clone() for a in numbers]
    theirs = outcome(call, call.theirs, call.arguments)
    ours = outcome(call, call.ours, call.arguments)
    if not all(torch.equal(a.detach(), b) for a, b in zip(numbers, before, strict=True)):
        return "an argument was written over"
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return _about_errors(call, ours, theirs)
    for k, pair in enumerate(zip(ours, theirs, strict=True)):
        if told := _difference(*pair):
            return f"result {k} of {len(ours)}: {told}"
    return ""


def _about_errors(call: RandomCall, ours: Any, theirs: Any) -> str:
    if not isinstance(theirs, Exception) and not (call.same_errors and call.mistaken):  # torch.nn may overlook one
        return f"ours raised {ours!r}"
    if not isinstance(ours, Exception):
        return f"ours gave a result, and should have raised {theirs!r}"
    if call.same_errors and isinstance(theirs, Exception):
        return "" if (type(ours), str(ours)) == (type(theirs), str(theirs)) else f"{ours!r} instead of {theirs!r}"
    if not isinstance(ours, RecurraError):
        return f"ours raised {ours!r}, which is no error of ours"
    clear = str(ours).endswith(".") and len(str(ours)) < 400 and "\n" not in str(ours)
    return "" if clear else f"not a clear sentence: {ours}"


def _difference(a: Tensor | None, b: Tensor | None) -> str:
    if a is None or b is None:
        side, other = ("our", b) if a is None else ("their", a)
        return "" if other is None or not other.any() else f"a gradient is missing on {side} side"
    if a.shape != b.shape or a.dtype is not b.dtype:
        return f"{tuple(a.shape)} {a.dtype}, not {tuple(b.shape)} {b.dtype}"
    if a.numel() and not b.is_meta and not torch.equal(a, b):
        far = float((a.detach() - b.detach()).abs().nan_to_num(torch.inf).max())
        size = max(float(b.detach().abs().max()), SMALL)
        if not far <= EXACT[b.dtype] * size:
            return f"{far:.2g} off, and the largest is {size:.2g}"
    return ""

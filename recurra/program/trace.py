"""A cell's step, run once on a few rows and recorded as a program.

The recorder is a dispatch mode below `torch.func.functionalize`: it sees the ATen operations a step runs, whatever
idiom they were written in, with the user's line on the stack. Rows are real numbers, not fake tensors: meta kernels
import sympy (a second), and numbers can be checked. A step is traced with two batch sizes and must give equal text.
"""

import contextlib
import copy
import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from recurra.cell import Cell, split
from recurra.errors import CellError
from recurra.program import statics
from recurra.program.fingerprint import Fingerprint
from recurra.program.graph import Graph
from recurra.program.lowering import AXIS, FILLED, LOWERINGS, VIEWS
from recurra.program.plan import Step
from recurra.program.text import step_text
from recurra.program.values import Call, Parameter, Value

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(__file__)
_sync: Callable[[Tensor], None] = getattr(torch, "_sync")  # noqa: B009 (not in torch's own list of names)
_LOOKS = frozenset("_local_scalar_dense is_nonzero equal nonzero item allclose".split())
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_MODULE_SETATTR: CodeType = nn.Module.__setattr__.__code__


class Untraceable(Exception):
    """The step cannot be a program. `reason`: a sentence with the operation; `line`: the user's line, or ""."""

    def __init__(self, reason: str, line: str = "") -> None:
        super().__init__(f"{reason} ({line})" if line else reason)
        self.reason, self.line = reason, line


class Changing(Untraceable):
    """The step changes the cell it belongs to, so that no call is like the one before."""


class BrokenContract(Untraceable):
    """The step breaks the contract of a cell: scan says so, in its own words."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows a step was traced with, and what it gave: the program must give the same."""

    inputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    output: Tensor
    nexts: tuple[Tensor, ...]
    weights: dict[str, Tensor]


def trace(cell: Cell, weights: Mapping[str, Tensor]) -> tuple[Step, Sample]:
    """The cell's step as a program, and the sample to check it with.

    weights: every parameter and buffer by name (those that stand in for the cell's own included). Raises Untraceable
    for a step that cannot be a program. Call it inside `outside_transforms`.
    """
    taken = {n for t in weights.values() for n in t.shape} | {cell.input_size, *cell.state_sizes.values()}
    first, second = [b for b in _PRIMES if b not in taken][:2]
    trial, standing = _copy(cell, weights)
    before = Fingerprint(trial)
    step, sample = _record(trial, standing, first)
    again, _ = _record(trial, standing, second)
    if not before.holds():
        raise Changing("the step changes an attribute of the cell", definition(cell))
    if step_text(step) != step_text(again):
        raise Untraceable(
            f"{type(cell).__name__}.step does not give the same program twice: it depends on the batch size, "
            "or on something that changes from call to call",
            definition(cell),
        )
    return step, sample


def rows_of(weights: Mapping[str, Tensor]) -> tuple[torch.dtype, torch.device]:
    """The dtype and device of a step's rows: those of the cell's first floating parameter."""
    for t in weights.values():
        if t.is_floating_point():
            return t.dtype, t.device
    return torch.get_default_dtype(), torch.device("cpu")


def _record(cell: Cell, weights: Mapping[str, Tensor], batch: int) -> tuple[Step, Sample]:
    dtype, device = rows_of(weights)
    recorder = Recorder(batch, dtype)
    numbers = torch.Generator().manual_seed(batch)  # rows of our own: the user's random numbers stay where they are

    def row(n: int) -> Tensor:
        return torch.randn(batch, n, dtype=dtype, generator=numbers).to(device)

    x, states = row(cell.input_size), tuple(row(n) for n in cell.state_sizes.values())
    kept = tuple(t.clone() for t in (x, *states))
    leaf_x = recorder.bind(x, recorder.graph.leaf("input", type(cell).step.__code__.co_varnames[1], cell.input_size))
    leaves = {k: recorder.graph.leaf("state", k, n) for k, n in cell.state_sizes.items()}
    for t, v in zip(states, leaves.values(), strict=True):
        recorder.bind(t, v)
    out = _run(cell, weights, recorder, (x, *states))
    values = [recorder.value(t) for t in out]
    for v in values:
        if v.op == "poison":
            raise Untraceable(str(v.attr[0]), v.line)
    for name, v in zip([*leaves, "y"], [*values[-len(leaves) :], values[0]], strict=True):
        recorder.call(v, name)
    rows = [recorder.row(v, n) for v, n in zip(values, [t.shape[1] for t in out], strict=True)]
    step = Step(type(cell).__name__, {"x": leaf_x}, leaves, tuple(rows[-len(leaves) :]), rows[0])
    return step, Sample(kept[:1], kept[1:], out[0], tuple(out[-len(leaves) :]), dict(weights))


def _run(cell: Cell, weights: Mapping[str, Tensor], recorder: "Recorder", rows: Sequence[Tensor]) -> list[Tensor]:
    """The output and next states, recorded. The step's variables have named the values."""
    watch = _Watch(cell, recorder)
    before = sys.getprofile()
    watching = before is None or callable(before)  # cProfile could not be put back: then variables give no names
    with torch.inference_mode(False), torch.enable_grad():
        recorder.names.update({id(t): name for name, t in reversed([*weights.items()])})
        try:
            if watching:
                sys.setprofile(watch)
            with recorder:
                out = torch.func.functionalize(cell.step)(*rows)
        except (Untraceable, CellError):
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            raise Untraceable(f"{type(error).__name__}: {first}", _raised_at(error) or definition(cell)) from error
        finally:
            if watching:
                sys.setprofile(before)
    if watch.written:
        name, line = watch.written
        raise Changing(f"the step writes the attribute {name!r}", line)
    for name, value in watch.named.items():
        recorder.call(value, name)
    try:
        y, nexts = split(cell.step, cell.state_names, tuple(rows[1:]), out)
    except CellError as error:
        raise BrokenContract(str(error)) from error
    return [y, *nexts] if y is not nexts[0] else list(nexts)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Turns each operation that arrives into values of `graph`; every tensor seen has a value."""

    def __init__(self, batch: int, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch, self.dtype = batch, dtype
        self.graph = Graph()
        self.names: dict[int, str] = {}  # id of a parameter or buffer -> its name
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []  # ids stay meaningful while the tensors live
        self._foreign: set[Value] = set()  # statics of another dtype than the rows

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise PyTorch's first operation under the mode imports its compiler: 0.8 s

    def bind(self, t: Tensor, v: Value) -> Value:
        """Says that the tensor is the value."""
        self._values[id(t)] = v
        self._alive.append(t)
        if v.op == "static" and t.dtype != self.dtype:
            self._foreign.add(v)
        return v

    def call(self, v: Value, name: str) -> None:
        """Names a value, unless it has a name or needs none."""
        if not v.name and not v.is_leaf and v.op != "poison":
            v.name = name

    def known(self, t: Tensor) -> Value | None:
        """The value of a tensor that has been seen."""
        return self._values.get(id(t))

    def value(self, t: Tensor) -> Value:
        """The value of a tensor; a parameter or buffer is met for the first time here."""
        found = self._values.get(id(t))
        if found is not None:
            return found
        name = self.names.get(id(t))
        if name is None:
            return self.bind(
                t, self._poison("a tensor that is neither parameter nor buffer is used; register it as a buffer")
            )
        return self.bind(t, self.graph.static(Parameter(name), t.shape))

    def row(self, v: Value, width: int) -> Value:
        """The value as rows of that width: what a step returns."""
        v = self._operand(v)
        return v if v.is_row and v.width == width else self.graph("broadcast", v, width)

    def _poison(self, why: str) -> Value:
        return Value("poison", (), (why,), 0, line=self.graph.line)

    def _operand(self, v: Any) -> Any:
        """A static as it meets rows: () or (n,), in the rows' dtype."""
        if not isinstance(v, Value) or v.op != "static":
            return v
        expr, shape = v.expr, v.shape
        assert expr is not None
        if v in self._foreign:  # truth values, whole numbers
            expr = Call("aten._to_copy.default", (expr,), (("dtype", "dtype:row"),))
        if all(n == 1 for n in shape[:-1]) and (len(shape) > 1 or shape == (1,)):
            shape = shape[-1:] if shape[-1] != 1 else ()
            expr = Call("aten.reshape.default", (expr, shape))
        return v if expr is v.expr else self.graph.static(expr, shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.graph.line = _line(sys._getframe(1))
        self._refuse(func, name, args)
        if name.endswith("_") and func._schema.is_mutable:
            name = name[:-1]  # inside a composite operation: the tensor gets a new value
        leaves, spec = tree_flatten((args, kwargs or {}))
        if name == "lift_fresh" and id(leaves[0]) not in self._values and id(leaves[0]) not in self.names:
            self._literal(leaves[0])
        values = [self.value(a) if isinstance(a, Tensor) else a for a in leaves]
        out = func(*args, **(kwargs or {}))
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        for o, v in zip(outs, self._lowered(func, name, args, leaves, values, spec, outs), strict=True):
            if isinstance(o, Tensor):
                self.bind(o, v)
        return out

    def _refuse(self, func: Any, name: str, args: Any) -> None:
        line = self.graph.line
        if name in _LOOKS:
            raise Untraceable("the step looks at a tensor's value; torch.where chooses without looking", line)
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Untraceable(f"the step draws random numbers ({name})", line)
        stopped = name == "detach" and (v := self.known(args[0])) is not None and v.is_row
        if stopped or not torch.is_grad_enabled():
            raise Untraceable("the step stops gradients (detach or no_grad)", line)
        if func._schema.is_mutable:
            target = args[0] if args and isinstance(args[0], Tensor) else None
            v = None if target is None else self.known(target)
            if not name.endswith("_") or v is None or not v.is_row or v.op in ("input", "state"):
                raise Untraceable(f"the step changes a weight, a buffer or an argument in place ({name})", line)

    def _literal(self, t: Tensor) -> None:
        """A number written out in the step: torch.tensor(0.7)."""
        if t.dim() == 0:
            self.bind(t, self.graph.const(t.item()))
        elif t.numel() <= 1024:
            self.bind(t, self.graph.static(statics.literal(t), t.shape))

    def _lowered(
        self, func: Any, name: str, args: Any, leaves: list[Any], values: list[Any], spec: Any, outs: list[Any]
    ) -> list[Value]:
        """One value for each result."""
        nodes = [v for v in values if isinstance(v, Value)]
        poison = next((v for v in nodes if v.op == "poison"), None)
        if poison is not None:
            return [poison] * len(outs)
        if not any(v.is_row for v in nodes):
            return self._weights_only(func, name, args, values, spec, outs)
        try:
            y = self._row(name, args, leaves, values, spec, outs)
        except Untraceable as refused:
            return [self._poison(refused.reason)] * len(outs)
        ys = list(y) if isinstance(y, tuple) else [y]
        return [self._checked(name, v, o) for v, o in zip(ys, outs, strict=True)]

    def _checked(self, name: str, v: Value | None, out: Tensor) -> Value:
        if v is None:
            return self._poison(f"{name} has no operation, or not with these arguments")
        if [k for k in out.shape if k > 1] != [k for k in (self.batch, v.width) if k > 1]:
            return self._poison(
                f"{name} works across the rows of the batch, or on more than rows: its result is {tuple(out.shape)}"
            )
        if out.dtype not in (self.dtype, torch.bool) or (out.dtype == torch.bool and name == "add"):
            return self._poison(f"{name} gives {out.dtype} where the rows are {self.dtype}")
        return v

    def _row(self, name: str, args: Any, leaves: list[Any], values: list[Any], spec: Any, outs: list[Any]) -> Any:
        g = self.graph
        tensors = [a for a in leaves if isinstance(a, Tensor)]
        if name in ("mm", "addmm", "mv", "bmm"):
            operands = tree_unflatten(values, spec)
            return self._product(name, args, *operands)
        values = [self._operand(v) for v in values]
        vargs, vkw = tree_unflatten(values, spec)
        vkw = {
            k: v
            for k, v in vkw.items()
            if k not in ("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking")
        }
        if name == "_to_copy" and outs[0].dtype == torch.bool != tensors[0].dtype:
            return g("sub", 1.0, g("eq", vargs[0], 0.0))
        if name in VIEWS:
            v = vargs[0]
            return g("broadcast", v, outs[0].shape[-1]) if name == "expand" and v.width == 1 < outs[0].shape[-1] else v
        if name in FILLED:
            return g("broadcast", FILLED[name](args), outs[0].shape[-1])
        if name in AXIS and not _last_axis(name, args, vkw, tensors[0]):
            if name == "slice" and _whole(args, tensors[0]):
                return vargs[0]
            raise Untraceable(f"{name} works across the rows of the batch, or over more than one axis")
        rule = LOWERINGS.get(name)
        if rule is None:
            raise Untraceable(f"{name} is not among a program's operations")
        try:
            return rule(g, *vargs, **vkw)
        except TypeError as error:
            raise Untraceable(f"{name} is not known with these arguments") from error

    def _product(self, name: str, args: Any, operands: Sequence[Any], kwargs: Mapping[str, Any]) -> Value | None:
        g = self.graph
        bias, (a, W) = (operands[0], operands[1:3]) if name == "addmm" else (None, operands[:2])
        if not a.is_row or W.op != "static":
            raise Untraceable(f"{name} multiplies rows by rows; a product is of a row with a weight")
        if name == "mv":
            y = g("mm", a, g.static(Call("aten.reshape.default", (W.expr, (1, a.width))), (1, a.width)))
        elif name == "bmm":
            if W.shape[0] != 1 or args[0].shape[:2] != (1, self.batch):
                return None
            y = self._times(a, g.static(Call("aten.select.int", (W.expr, 0, 0)), W.shape[1:]))
        else:
            y = self._times(a, W)
        if bias is None:
            return y
        alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
        bias = self._operand(bias)
        y = y if alpha == 1 else g("mul", y, alpha)
        return y if beta == 0 else g("add", y, bias if beta == 1 else g("mul", bias, beta))

    def _times(self, a: Value, W: Value) -> Value:
        """a W, as mm when W is a transpose."""
        e = W.expr
        if isinstance(e, Call) and len(W.shape) == 2:
            turned = e.operator == "aten.t.default" or (
                e.operator in ("aten.transpose.int", "aten.permute.default")
                and e.args[1:] in ((0, 1), (1, 0), (-1, -2), (-2, -1), ((1, 0),))
            )
            if turned and isinstance(e.args[0], (Call, Parameter)):
                return self.graph("mm", a, self.graph.static(e.args[0], W.shape[::-1]))
        return self.graph("mmt", a, W)

    def _weights_only(
        self, func: Any, name: str, args: Any, values: list[Any], spec: Any, outs: list[Any]
    ) -> list[Value]:
        g = self.graph
        nodes = [v for v in values if isinstance(v, Value)]
        if any(self.batch in o.shape for o in outs):
            return [self._batched(name, nodes, args, o) for o in outs]
        if (
            len(nodes) == 1
            and nodes[0].op == "const"
            and name in ("lift_fresh", "detach", "clone", "alias", "_to_copy")
        ):
            return [nodes[0]]
        vargs, vkw = tree_unflatten(values, spec)
        made = []
        for k, o in enumerate(outs):
            try:
                call = statics.record(func, vargs, vkw, self.dtype, k if len(outs) > 1 else None)
            except CellError as error:
                return [self._poison(str(error))] * len(outs)
            made.append(g.static(call, o.shape))
        return made

    def _batched(self, name: str, nodes: list[Value], args: Any, out: Tensor) -> Value:
        """A batch that the step makes itself: one number everywhere, or one vector in every row."""
        g = self.graph
        if out.dim() == 2 and out.shape[0] == self.batch:
            if name in FILLED:
                return g("broadcast", FILLED[name](args), out.shape[1])
            if name in ("expand", "repeat") and (name == "expand" or list(args[1])[1:] == [1]):
                v = self._operand(nodes[0])
                if v.op == "const" or v.shape in ((), (out.shape[1],)):
                    return g("broadcast", v, out.shape[1])
        return self._poison(f"{name} makes a batch of its own, {tuple(out.shape)}")


def _last_axis(name: str, args: Any, kwargs: Mapping[str, Any], t: Tensor) -> bool:
    at = AXIS[name]
    default = -1 if name == "glu" else None if name in ("var", "std", "linalg_vector_norm", "sum", "mean") else 0
    axis = kwargs.get("dim", kwargs.get("dims", args[at] if len(args) > at else default))
    return t.dim() == 2 and axis in (1, -1, [1], [-1], (1,), (-1,))


def _whole(args: Any, t: Tensor) -> bool:
    """h[:] and the first colon of h[:, a:b]."""
    lo = args[2] if len(args) > 2 else None
    hi = args[3] if len(args) > 3 else None
    return lo in (None, 0) and (hi is None or hi >= t.shape[args[1] if len(args) > 1 else 0]) and args[4:] in ((), (1,))


class _Watch:
    """A profile function: takes the variables of the functions that return, and notices attributes being written."""

    def __init__(self, cell: Cell, recorder: Recorder) -> None:
        self.modules = {id(m) for m in cell.modules()}
        self.recorder = recorder
        self.named: dict[str, Value] = {}
        self.written: tuple[str, str] | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code is _MODULE_SETATTR and id(frame.f_locals.get("self")) in self.modules:
            self.written = self.written or (frame.f_locals["name"], _line(frame))
        elif event == "return" and not code.co_filename.startswith((_TORCH, _HERE, "<")):
            for name, t in frame.f_locals.items():
                v = self.recorder.known(_unwrapped(t)) if isinstance(t, Tensor) else None
                if v is not None:
                    self.named[name] = v


def _unwrapped(t: Tensor) -> Tensor:
    """The recorded tensor inside functionalize's wrapper."""
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        if torch._is_functional_tensor(t):
            _sync(t)
        t = torch._C._functorch.get_unwrapped(t)
    return t


def _line(frame: FrameType | None) -> str:
    """The user's line: the innermost frame outside PyTorch and this package's program folder."""
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, _HERE)):
        frame = frame.f_back
    if frame is None:
        return ""
    return _place(frame.f_code.co_filename, frame.f_lineno)


def _place(file: str, number: int) -> str:
    text = linecache.getline(file, number).strip()
    return f"{os.path.basename(file)}, line {number}" + (f": {text}" if text else "")


def definition(cell: Cell) -> str:
    """Where the cell's step begins, in the user's file."""
    code = type(cell).step.__code__
    return _place(code.co_filename, code.co_firstlineno)


def _raised_at(error: BaseException) -> str:
    place, entry = "", error.__traceback__
    while entry is not None:
        if not entry.tb_frame.f_code.co_filename.startswith((_TORCH, _HERE)):
            place = _place(entry.tb_frame.f_code.co_filename, entry.tb_lineno)
        entry = entry.tb_next
    return place


def _copy(cell: Cell, weights: Mapping[str, Tensor]) -> tuple[Cell, dict[str, Tensor]]:
    """A copy of the cell to trace, with the weights in the places of its own, without gradients; and these by name.

    A copy, so that a trial step leaves nothing behind, and other threads can use the cell meanwhile. Without gradients,
    because PyTorch would then detach what it saves, and a detach of the user's could not be told apart.
    """
    memo: dict[int, Any] = {}
    standing: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}
    for name, own in [*cell.named_parameters(), *cell.named_buffers()]:
        t = weights.get(name, own)
        memo[id(own)] = standing[name] = made.setdefault(id(t), _detached(t))
    try:
        return copy.deepcopy(cell, memo), standing
    except Exception as error:
        raise Untraceable(f"the cell cannot be copied ({error})", definition(cell)) from error


def _detached(t: Tensor) -> Tensor:
    """The numbers of a weight; of a weight that a transform has wrapped, numbers like them."""
    if torch._C._functorch.is_functorch_wrapped_tensor(t):
        return torch.randn(t.shape, generator=torch.Generator().manual_seed(1)).to(t.device, t.dtype)
    return t.detach()


@contextlib.contextmanager
def outside_transforms() -> Iterator[None]:
    """Tracing inside vmap or grad must not see their wrappers, nor a surrounding autocast, nor others who record."""
    with contextlib.ExitStack() as stack:
        if torch._C._functorch.peek_interpreter_stack() is not None:
            from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

            stack.enter_context(temporarily_clear_interpreter_stack())
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        yield

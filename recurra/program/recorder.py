"""The recorder: a dispatch mode that sees every ATen operation of a step and turns it into values of a graph."""

import linecache
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from recurra.cell import has_lines, machinery
from recurra.errors import CellError
from recurra.program import statics
from recurra.program.graph import Graph
from recurra.program.lowering import AXIS, FILLED, LOWERINGS, VIEWS
from recurra.program.values import Call, Parameter, Value

machinery(__file__)
_LOOKS = frozenset("_local_scalar_dense is_nonzero equal nonzero item allclose".split())

# What to write for an operation that is there for some arguments only.
_INSTEAD = {
    "pow": "; write torch.exp(p * torch.log(h)), which is h ** p for h above 0, or h * h for a whole power",
}


class Untraceable(Exception):
    """The step cannot be a program. `reason`: a sentence with the operation; `line`: the user's line, or ""."""

    def __init__(self, reason: str, line: str = "") -> None:
        super().__init__(f"{reason} ({line})" if line else reason)
        self.reason, self.line = reason, line


class Changing(Untraceable):
    """The step changes the cell it belongs to, so that no call is like the one before."""


class BrokenContract(Untraceable):
    """The step breaks the contract of a cell: scan says so, in its own words."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Turns each operation that arrives into values of `graph`; every tensor seen has a value."""

    def __init__(self, batch: int, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch, self.dtype = batch, dtype
        self.graph = Graph()
        self.names: dict[int, str] = {}  # id of a parameter or buffer -> its name
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []  # ids stay meaningful while the tensors live
        self._operands_of: dict[int, set[int]] = {}  # of each result, by their ids
        self._foreign: set[Value] = set()  # statics of another dtype than the rows
        self.refused: Untraceable | None = None  # the first refusal: a step's own `except` may swallow it

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

    def around(self, t: Tensor, ends: Iterable[Tensor]) -> bool:
        """Whether what `t` holds comes to `ends` by another tensor of that value, not made of it, too."""
        v = self.known(t)
        others = {k for k in self._behind({id(e) for e in ends}, stop=id(t)) if self._values.get(k) is v} - {id(t)}
        return any(id(t) not in self._behind({k}) for k in others)

    def _behind(self, ids: set[int], stop: int | None = None) -> set[int]:
        """These tensors and all that they were computed from; not what lies behind `stop`."""
        found, rest = set(ids), [*ids]
        while rest:
            k = rest.pop()
            new = self._operands_of.get(k, set()) - found if k != stop else set()
            found |= new
            rest += new
        return found

    def row(self, v: Value, width: int) -> Value:
        """The value as rows of that width: what a step returns."""
        return self.graph("broadcast", self._operand(v), width)

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
        self.graph.line = line_of(sys._getframe(1))
        try:
            self._refuse(func, name, args)
        except Untraceable as refused:
            self.refused = self.refused or refused
            raise
        if name.endswith("_") and func._schema.is_mutable:
            name = name[:-1]  # inside a composite operation: the tensor gets a new value
        leaves, spec = tree_flatten((args, kwargs or {}))
        if name == "lift_fresh" and id(leaves[0]) not in self._values and id(leaves[0]) not in self.names:
            self._literal(leaves[0])
        values = [self.value(a) if isinstance(a, Tensor) else a for a in leaves]
        out = func(*args, **(kwargs or {}))
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        operands = {id(a) for a in leaves if isinstance(a, Tensor)}
        for o, v in zip(outs, self._lowered(func, name, args, leaves, values, spec, outs), strict=True):
            if isinstance(o, Tensor):
                self.bind(o, v)
                self._operands_of.setdefault(id(o), set()).update(operands - {id(o)})
        return out

    def _refuse(self, func: Any, name: str, args: Any) -> None:
        line = self.graph.line
        if name in _LOOKS:
            raise Untraceable("the step looks at a tensor's value; torch.where chooses without looking", line)
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Untraceable(
                f"the step draws random numbers ({name}); wrappers such as recurra.RecurrentDropout draw them",
                line,
            )
        stopped = name == "detach" and (v := self.known(args[0])) is not None and _varies(v)
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
            return self._poison(f"{name} has no operation, or not with these arguments{_INSTEAD.get(name, '')}")
        if [k for k in out.shape if k > 1] != [k for k in (self.batch, v.width) if k > 1]:
            if out.dim() > 2 and out.shape[0] == self.batch:
                return self._poison(
                    f"{name} makes {tuple(out.shape)} of {self.batch} rows, and a program's values are rows (B, n); "
                    "take heads as slices of a row, h[:, :n]"
                )
            return self._poison(f"{name} works across the rows of the batch: its result is {tuple(out.shape)}")
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
        gap: tuple[Any, ...] = args[4:5] if name == "slice" else args[5:6] if name == "slice_scatter" else ()
        if gap not in ((), (1,)):
            raise Untraceable(
                f"{name} takes one column in {gap[0]}, and a program's slices have no gaps; order the columns by "
                "ordering the rows of the weight that makes them, and take them as h[:, :n]"
            )
        rule = LOWERINGS.get(name)
        if rule is None:
            raise Untraceable(
                f"{name} is not among a program's operations; write it with operations on elements, sums and maxima "
                "over a row, slices, cat, and products with weights"
            )
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


_OF_AUTOGRAD = {
    getattr(Tensor, name).__get__: name
    for name in ("requires_grad", "grad_fn", "is_leaf", "grad", "data", "_version", "_backward_hooks")
}
_OF_AUTOGRAD |= {
    getattr(Tensor, name): name
    for name in (
        "register_hook register_post_accumulate_grad_hook retain_grad requires_grad_ backward is_inference".split()
    )
}


class AutogradWatch(TorchFunctionMode):
    """Refuses what no operation shows: hooks on gradients, `.data`, and questions about the graph of gradients."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _OF_AUTOGRAD.get(func)
        if name is not None:
            refused = Untraceable(f"the step deals with gradients itself (.{name})", line_of(sys._getframe(1)))
            self.recorder.refused = self.recorder.refused or refused
            raise refused
        return func(*args, **(kwargs or {}))


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


def _varies(v: Value) -> bool:
    """Whether a row depends on an input, a state or a weight, and is not numbers written out alone."""
    return v.is_row and (v.is_leaf or any(_varies(a) or a.op == "static" for a in v.args))


def line_of(frame: FrameType | None) -> str:
    """The user's line: the innermost frame that has lines."""
    while frame is not None and not has_lines(frame.f_code):
        frame = frame.f_back
    if frame is None:
        return ""
    return place(frame.f_code.co_filename, frame.f_lineno)


def place(file: str, number: int) -> str:
    text = linecache.getline(file, number).strip()
    return f"{os.path.basename(file)}, line {number}" + (f": {text}" if text else "")

"""Operations on weights alone: they stay PyTorch, run once a call under autograd, and their results are operands.

They are data (`values.Call`): an operator of the list below and its arguments, so that a program's text can hold them
and loading a text runs nothing that is not listed here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.errors import CellError, ProgramError
from recurra.program.ops import OPS
from recurra.program.values import Argument, Call, Expression, Parameter, Value

# Functional operators of ATen without side effects, random numbers or access to anything but their operands.
ATEN = frozenset(
    """abs add addmm alias amax amin arange atan bitwise_and bitwise_not bitwise_or block_diag bmm cat ceil clamp
    clamp_max clamp_min clone copy cos cosh cumprod cumsum detach diag_embed diagonal diagonal_copy div dot elu eq
    erf erfc exp expand expm1 eye fill flip floor full full_like ge gelu gt index_select le leaky_relu lerp
    lift_fresh linalg_matrix_exp linalg_vector_norm linspace log log1p log_sigmoid_forward logaddexp logical_and
    logical_not logical_or logsumexp lt masked_fill maximum mean minimum mm mul mv native_layer_norm ne neg new_full
    new_ones new_zeros norm ones ones_like outer permute pow reciprocal relu repeat reshape roll round rsqrt rsub
    scalar_tensor select select_scatter sigmoid sign silu sin sinh slice slice_scatter softplus split
    split_with_sizes sqrt square squeeze stack std sub sum t tan tanh transpose tril triu unbind unsqueeze var view
    where zeros zeros_like _log_softmax _softmax _to_copy _unsafe_view _weight_norm_interface""".split()
)

FACTORIES = frozenset("arange eye full linspace ones scalar_tensor zeros".split())
_DROPPED = ("device", "layout", "pin_memory", "memory_format", "non_blocking")


def record(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dtype: torch.dtype, result: int | None) -> Call:
    """The call as data. Tensors must already be values; a `dtype` that is the rows' own is noted as such."""
    name = func.overloadpacket.__name__
    if name not in ATEN:
        raise CellError(f"{name} on weights is not an operation that a program may hold")
    kept = tuple((k, _argument(v, dtype)) for k, v in kwargs.items() if k not in _DROPPED)
    return Call(str(func), tuple(_argument(a, dtype) for a in args), kept, result)


def _argument(a: Any, dtype: torch.dtype) -> Argument:
    if isinstance(a, Value):
        return Call("literal", ((float(a.attr[0]),), (), "dtype:row")) if a.op == "const" else a.expr
    if isinstance(a, (list, tuple)):
        return tuple(_argument(v, dtype) for v in a)
    if isinstance(a, torch.dtype):
        return "dtype:row" if a == dtype else f"dtype:{str(a).removeprefix('torch.')}"
    if a is None or isinstance(a, (bool, int, float, str)):
        return a
    raise CellError(
        f"an argument of kind {type(a).__name__} of an operation on weights is not one that a program may hold"
    )


def literal(t: Tensor) -> Call:
    """A tensor written out in the step, as torch.tensor([1., 2.])."""
    kind = str(t.dtype).removeprefix("torch.")
    return Call("literal", (tuple(t.flatten().tolist()), tuple(t.shape), f"dtype:{kind}"))


def operator(name: str) -> Callable[..., Any]:
    """The function behind an operator's name; ProgramError for one that is not listed."""
    if name in OPS:
        return OPS[name].value
    parts = name.split(".")
    if len(parts) == 3 and parts[0] == "aten" and parts[1] in ATEN:
        overloads = getattr(torch.ops.aten, parts[1]).overloads()
        if parts[2] in overloads:
            return _of_aten(name)
    raise ProgramError(f"the program applies {name!r} to weights, which is not an operation that a program may hold")


def _of_aten(name: str) -> Callable[..., Any]:
    _, packet, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    return found


# What an expression is made of, as plain data: ("parameter", name), ("made", (which call, which of its results or
# None)), ("list", operands), ("dtype", "row" or a name), ("literal", a number, a string, ...).
Operand = tuple[str, Any]


class Listing(NamedTuple):
    """Expressions as calls one after the other, (operator, arguments, keyword arguments) each, and what they come to.

    Nothing but tuples, strings and numbers: torch.compile follows it call by call.
    """

    calls: tuple[tuple[str, tuple[Operand, ...], tuple[tuple[str, Operand], ...]], ...]
    results: tuple[Operand, ...]


def listed(expressions: Sequence[Expression]) -> Listing:
    """The expressions, each call once."""
    calls: list[Any] = []
    done: dict[int, int] = {}

    def operand(e: Argument) -> Operand:
        if isinstance(e, Parameter):
            return "parameter", e.name
        if isinstance(e, tuple):
            return "list", tuple(operand(a) for a in e)
        if isinstance(e, str) and e.startswith("dtype:"):
            return "dtype", e.removeprefix("dtype:")
        if not isinstance(e, Call):
            return "literal", e
        if id(e) not in done:
            if e.operator != "literal":
                operator(e.operator)  # or ProgramError
            call = e.operator, tuple(operand(a) for a in e.args), tuple((k, operand(a)) for k, a in e.kwargs)
            done[id(e)] = len(calls)
            calls.append(call)
        return "made", (done[id(e)], e.result)

    results = tuple(operand(e) for e in expressions)
    return Listing(tuple(calls), results)


def evaluated(listing: Listing, lookup: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """What the expressions come to; lookup: a parameter's tensor by its name; dtype and device are the rows'."""
    made: list[Any] = []

    def value(operand: Operand) -> Any:
        kind, what = operand
        if kind == "parameter":
            return lookup[what]
        if kind == "made":
            k, result = what
            return made[k] if result is None else made[k][result]
        if kind == "list":
            return [value(o) for o in what]
        if kind == "dtype":
            return dtype if what == "row" else getattr(torch, what)
        return what

    for name, args, kwargs in listing.calls:
        made.append(_run(name, [value(a) for a in args], {k: value(a) for k, a in kwargs}, dtype, device))
    return [value(r) for r in listing.results]


class Evaluator:
    """Computes the statics of a plan from the weights: parameters are handed on, each call is run once.

    evaluate(lookup, dtype, device) as in `evaluated`.
    """

    def __init__(self, statics: Sequence[Value]) -> None:
        expressions = [s.expr for s in statics]
        self.parameters = tuple(e.name for e in expressions if isinstance(e, Parameter))
        self.trivial = len(self.parameters) == len(expressions)
        self.listing = listed([e for e in expressions if e is not None])

    def __call__(self, lookup: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        if self.trivial:
            return [lookup[name] for name in self.parameters]
        return evaluated(self.listing, lookup, dtype, device)


def _run(name: str, args: list[Any], kwargs: dict[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    if name == "literal":
        numbers, shape, kind = args
        return torch.tensor(numbers, dtype=dtype if kind.is_floating_point else kind, device=device).reshape(shape)
    if name in OPS:
        tensors = OPS[name].kind != "shape"
        return OPS[name].value(
            *[torch.tensor(a, dtype=dtype, device=device) if tensors and isinstance(a, float) else a for a in args]
        )
    if name.split(".")[1] in FACTORIES:
        kwargs["device"] = device
    return _of_aten(name)(*args, **kwargs)

"""What x, states and lengths of a call must be, checked once a call. Cells are known here by names and sizes alone."""

from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor
from torch.compiler import is_compiling

from recurra.errors import CellError, InputError, kind_of


def check_input(name: str, x: Tensor, input_size: int, axes: str = "T, B") -> None:
    """x, a tensor, is (T, B, input_size), or has other `axes` before the last. Raises InputError."""
    number = 2 + axes.count(",")
    if x.dim() == number and x.shape[-1] == input_size:
        return
    if x.dim() != number:
        remedy = f"Give x {number} axes, not {x.dim()}"
    else:
        remedy = f"Give x a last axis of {input_size}"
        remedy += f", or make the cell with input_size={x.shape[-1]}" if x.shape[-1] else ""
    raise InputError(f"x has the shape {tuple(x.shape)}, but {name} takes ({axes}, {input_size}). {remedy}.")


def check_tensor(name: str, x: object, called: str = "x") -> None:
    """x, which the user knows as `called`, is a tensor whose numbers lie in memory one by one. Raises InputError."""
    if not isinstance(x, Tensor):
        raise InputError(f"{called} is {kind_of(x)}, but {name} takes a tensor. Pass torch.as_tensor({called}).")
    if x.is_nested:
        remedy = f"Pass {called}.to_padded_tensor(0.0) and the lengths"
        raise InputError(f"{called} is a nested tensor, but {name} takes rows of one length. {remedy}.")
    if x.layout is not torch.strided:
        raise InputError(
            f"{called} has the layout {x.layout}, but {name} takes a dense tensor. Pass {called}.to_dense()."
        )


def no_truth(name: str, value: object) -> InputError:
    """An argument that is True or False is neither."""
    given = repr(value) if isinstance(value, (str, int, float)) else kind_of(value)
    return InputError(f"{name} is {given}, but answers yes or no. Pass {name}=True or {name}=False.")


def truth(name: str, value: object) -> bool:
    """A truth value, or what torch.onnx's tracer makes of one, a tensor. Raises InputError."""
    if isinstance(value, Tensor) and value.dtype is torch.bool and torch._C._get_tracing_state() is not None:
        return bool(value)
    if value is not False and value is not True:
        raise no_truth(name, value)
    return value


def autocast_is_on(x: Tensor) -> bool:
    """Whether autocast is on for the device of x. Of a device that has none, as meta, PyTorch refuses to answer."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def check_dtypes(name: str, dtype: torch.dtype, device: torch.device, x: Tensor, states: Mapping[str, Tensor]) -> None:
    """x and the states have the weights' dtype and are where they are. Raises InputError."""
    for argument, t in {"x": x, **{f"state {k}": s for k, s in states.items()}}.items():
        if told := _unlike(name, dtype, device, argument, argument.split()[-1], t):
            raise InputError(told)


def check_made_states(name: str, dtype: torch.dtype, device: torch.device, states: Mapping[str, Tensor]) -> None:
    """The same of the states that `initial` makes. Raises CellError."""
    for state, t in states.items():
        if told := _unlike(name, dtype, device, f"initial(batch) of {name} returns {state}, which", state, t):
            raise CellError(told)


def _unlike(name: str, dtype: torch.dtype, device: torch.device, who: str, variable: str, t: Tensor) -> str:
    """What a tensor has otherwise than the weights, and the remedy; "" where it has nothing."""
    if t.dtype is not dtype:
        remedy = f"Convert one of them: {variable}.to({dtype})."
        return f"{who} has the dtype {t.dtype}, but the weights of {name} are {dtype}. {remedy}"
    if t.device != device:
        remedy = f"Move one of them: {variable}.to('{device}')."
        return f"{who} is on {t.device}, but the weights of {name} are on {device}. {remedy}"
    return ""


def check_states(
    name: str, sizes: Mapping[str, int], states: object, batch: int, origin: str = ""
) -> tuple[Tensor, ...]:
    """The states as a tuple, one (batch, width) for each name. Raises InputError; CellError when `origin` made them."""
    error = CellError if origin else InputError
    source = origin or "the given state"
    given = (states,) if isinstance(states, Tensor) else tuple(states) if isinstance(states, (tuple, list)) else None
    if given is None or len(given) != len(sizes) or not all(isinstance(s, Tensor) for s in given):
        count = kind_of(states) if given is None else f"{len(given)} value{'' if len(given) == 1 else 's'}"
        raise error(f"{source} of {name} is {count}, but its states are {', '.join(sizes)}: give one tensor for each.")
    for tensor, (state, width) in zip(given, sizes.items(), strict=True):
        if tensor.shape != (batch, width):
            raise error(
                f"{source} of {name} has {state} of shape {tuple(tensor.shape)}, but a batch of {batch} needs "
                f"({batch}, {width}). A state has one row for each sequence of the batch."
            )
        if tensor.layout is not torch.strided:
            raise error(
                f"{source} of {name} has {state} in the layout {tensor.layout}, but a state is a dense tensor. "
                f"Make it one: {state}.to_dense()."
            )
    return given


def check_sides(name: str, sizes: Mapping[str, int], sides: object, x: Tensor, origin: str = "") -> tuple[Tensor, ...]:
    """The rows beside x as a tuple, one (T, B, width) for each name, or (N, width) where x is (N, D).

    Raises InputError; CellError when `origin` made them.
    """
    error = CellError if origin else InputError
    source, wanted = origin or "the given sides", ", ".join(sizes) or "nothing"
    given = tuple(sides) if isinstance(sides, (tuple, list)) else (sides,)
    if len(given) != len(sizes) or not all(isinstance(s, Tensor) for s in given):
        count = f"{len(given)} value{'' if len(given) == 1 else 's'}"
        raise error(f"{source} of {name} is {count}, but beside x it reads {wanted}: give one tensor for each.")
    for rows, (side, width) in zip(given, sizes.items(), strict=True):
        needed = (*x.shape[:-1], width)
        if rows.shape != needed:
            raise error(
                f"{source} of {name} has {side} of shape {tuple(rows.shape)}, but x of shape {tuple(x.shape)} needs "
                f"{needed}. A side has one row for each row of x."
            )
    return given


def check_lengths(lengths: Tensor | Sequence[int], steps: int, batch: int) -> Tensor:
    """The lengths as whole numbers (batch,) on the CPU, each from 0 to `steps`. Raises InputError."""
    if isinstance(lengths, Tensor):
        _check_numbers("lengths", lengths, "how many steps run depends on them")
    given = _as_numbers(lengths, steps)
    if not given.numel():
        given = given.long()  # torch makes an empty list a tensor of floats
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise InputError(f"lengths has the dtype {given.dtype}, but counts steps. Pass whole numbers: lengths.long().")
    if given.shape != (batch,):
        raise InputError(
            f"lengths has the shape {tuple(given.shape)}, but x holds {batch} sequences. Pass one length for each."
        )
    given = given.long()
    if batch and not is_compiling():  # whose operator looks at the numbers when it runs
        low, high = torch.aminmax(given)
        if low < 0 or high > steps:
            raise _impossible_length(given, steps)
    return given


def one_length(lengths: Tensor | Sequence[int] | int, steps: int) -> Tensor:
    """The length of the only sequence, as n or (n,), as (1,), not yet checked. Raises InputError for what is none."""
    return (lengths if isinstance(lengths, Tensor) else _as_numbers(lengths, steps)).reshape(-1)


def _as_numbers(lengths: object, steps: int) -> Tensor:
    try:
        return torch.as_tensor(lengths, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise _no_lengths(lengths, steps) from None


def _no_lengths(lengths: object, steps: int) -> InputError:
    """Which of them torch cannot make a number of."""
    for k, n in enumerate(lengths if isinstance(lengths, (list, tuple)) else ()):
        if isinstance(n, Integral) and abs(int(n)) >= 2**63:
            return InputError(f"lengths[{k}] is {n}, but x has {steps} steps. Give lengths from 0 to {steps}.")
        if not isinstance(n, Integral) and not (isinstance(n, Tensor) and n.dim() == 0):
            return InputError(
                f"lengths[{k}] is {kind_of(n)}, but counts steps. Pass one whole number for each sequence."
            )
    return InputError(f"lengths is {kind_of(lengths)}, but counts steps. Pass one whole number for each sequence.")


_MARK = {"T, B": "resets[{n}:, {b}]", "B, T": "resets[{b}, {n}:]", "T": "resets[{n}:]"}  # past a row's end


def check_resets(resets: object, steps: int, batch: int, lengths: Tensor | None = None, axes: str = "T, B") -> Tensor:
    """The marks as truth values (T, B), given as (T, B), (B, T) or, for one sequence, (T,): `axes`.

    lengths: checked ones; no mark may lie at or past a row's. Raises InputError.
    """
    if lengths is not None and isinstance(resets, Tensor):
        _check_numbers("resets", resets, "no mark may lie past a row's length")
    try:
        given = torch.as_tensor(resets)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"resets is {kind_of(resets)}, but marks steps. Pass a tensor ({axes}) of truth values."
        ) from None
    wanted = {"T, B": (steps, batch), "B, T": (batch, steps), "T": (steps,)}[axes]
    if given.shape != wanted:
        raise InputError(
            f"resets has the shape {tuple(given.shape)}, but x has {steps} steps of {batch} "
            f"sequence{'' if batch == 1 else 's'}. Give one mark for each: ({axes}) = {wanted}."
        )
    if given.dtype is not torch.bool:
        raise InputError(f"resets has the dtype {given.dtype}, but marks steps by yes and no. Pass resets.bool().")
    marks = given.t() if axes == "B, T" else given.unsqueeze(1) if axes == "T" else given
    if lengths is not None:
        past = marks.cpu() & (torch.arange(steps)[:, None] >= lengths)
        if past.any():
            t, b = (int(k) for k in past.nonzero()[0])
            n = int(lengths[b])
            raise InputError(
                f"resets begins a sequence at step {t} of row {b}, but lengths[{b}] is {n}, where the row has ended. "
                f"Clear what lies past it: {_MARK[axes].format(n=n, b=b)} = False."
            )
    return marks


def _check_numbers(name: str, t: Tensor, why: str) -> None:
    """The numbers of t can be read one by one. Raises InputError."""
    if t.is_meta:
        raise InputError(f"{name} is on the meta device and has no numbers, but {why}. Pass {name} on the CPU.")
    if t.layout is not torch.strided:
        raise InputError(f"{name} has the layout {t.layout}, but {why}. Pass {name}.to_dense().")
    if torch._C._functorch.is_batchedtensor(t):
        remedy = "Make the mapped axis a part of the batch"
        raise InputError(f"{name} differs from call to call of torch.func.vmap, but {why}. {remedy}.")


def _impossible_length(lengths: Tensor, steps: int) -> InputError:
    k = int(((lengths > steps) | (lengths < 0)).nonzero()[0])
    if lengths[k] < 0:
        return InputError(f"lengths[{k}] is {int(lengths[k])}. A length is at least 0.")
    return InputError(
        f"lengths[{k}] is {int(lengths[k])}, but x has {steps} steps. "
        f"Pad x to {int(lengths.max())} steps, or give lengths of at most {steps}."
    )

"""What a call's precision makes of its tensors: cast before it, and what it gave cast back after it.

Under torch.autocast("cpu", dtype=torch.bfloat16) a call without a precision of its own runs in bf16 on the native
machine, and gives the dtypes that scan gives there.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from recurra.cell import autocast_is_on, check_lengths
from recurra.errors import RecurraError
from recurra.machine.precision import DTYPES, lacking
from recurra.passes import own_weights
from recurra.program.trace import rows_of
from recurra.unroll.call import Call, States
from recurra.unroll.compiled import Compiled
from recurra.unroll.fallback import by_scan
from recurra.unroll.notes import constant_to_compilers, is_recording, precisions_are_off
from recurra.unroll.precision import NARROW, checked, not_here, refusal
from recurra.unroll.running import TENSORS, in_pytorch

constant_to_compilers(refusal)


class Cast(NamedTuple):
    """A call as it is run, and the dtypes of what it is to give: of y, then of the last states; None: as they come."""

    call: Call
    dtypes: tuple[torch.dtype, ...] | None = None

    def back(self, y: Tensor, last: States) -> tuple[Tensor, States]:
        """What the call gave, in these dtypes; what was recorded in that of x."""
        if self.dtypes is None:
            return y, last
        if self.call.record is not None:
            self.call.record.cast(self.dtypes[0])
        return y.to(self.dtypes[0]), tuple(s.to(d) for s, d in zip(last, self.dtypes[1:], strict=True))


def cast(call: Call) -> Cast | None:
    """The call as its precision, or autocast, asks for it; None where it runs as it came. Raises InputError."""
    name, x = checked(call.precision), call.x
    if name is None:
        return _under_autocast(call)
    plain = call if name in NARROW else call._replace(precision=None)
    if precisions_are_off():
        return Cast(call._replace(precision=None))
    if not isinstance(x, Tensor):
        return Cast(plain)  # the door says what x must be
    if is_compiling() and (told := refusal(name)):  # before it is written down; elsewhere, when executors are made
        raise not_here(name, told)
    dtype, autocast = DTYPES[name], autocast_is_on(x)
    if x.dtype is dtype and not autocast:
        return Cast(plain)
    weights = {**own_weights(call.cell), **(call.weights or {})}
    own, _ = rows_of(weights)
    if x.dtype is not own and not (autocast and x.is_floating_point()):
        return Cast(plain)  # the door says that they differ
    ready = _in(dtype, plain)
    if own is not dtype:
        ready = ready._replace(weights=weights_in(dtype, weights))
    return Cast(ready, (x.dtype,) * (1 + len(call.cell.state_sizes)))


def _in(dtype: torch.dtype, call: Call) -> Call:
    """The call with x, states and sides in a dtype."""
    states, sides = (_each(lambda t: t.to(dtype), given) for given in (call.states, call.sides))
    return call._replace(x=call.x.to(dtype), states=states, sides=sides)


def _each(function: Callable[[Tensor], Tensor], given: Any) -> Any:
    """The function of each tensor; of what is none, nothing: the door says what must be there."""
    if isinstance(given, Tensor):
        given = (given,)
    if not isinstance(given, (tuple, list)):
        return given
    return tuple(function(t) if isinstance(t, Tensor) else t for t in given)


def weights_in(dtype: torch.dtype, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a dtype, but for those that are no numbers of this kind."""
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}


def _as_it_is(t: Tensor) -> Tensor:
    return t


def without_autocast() -> AbstractContextManager[object]:
    """Inside, autocast is off."""
    return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext()


# ---- autocast


def autocast_to_bf16() -> bool:
    """Whether autocast is on, and the native machine has what it asks for."""
    if is_recording() or not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") is not torch.bfloat16:
        return False
    return not (in_pytorch() or lacking("bf16"))


def _under_autocast(call: Call) -> Cast | None:
    axes = 3 if call.batch_sizes is None else 2
    if not (autocast_to_bf16() and is_plain(call.x) and call.x.dim() == axes):
        return None
    others = [*(_each(_as_it_is, call.states) or ()), *(_each(_as_it_is, call.sides) or ())]
    compiled, _ = call.find()
    if not all(map(is_plain, others)) or compiled.executor is None or compiled.dtype is not torch.float32:
        return None
    return Cast(_in(torch.float32, call)._replace(precision="bf16"), _dtypes_of_scan(call, compiled))


def is_plain(t: object) -> bool:
    """Whether it is a tensor that can be cast and go to the machine under autocast."""
    if not isinstance(t, Tensor) or t.__class__ not in TENSORS or t.layout is not torch.strided:
        return False
    return t.device.type == "cpu" and t.dtype in (torch.float32, torch.bfloat16)


def _dtypes_of_scan(call: Call, compiled: Compiled) -> tuple[torch.dtype, ...]:
    """The dtypes of what scan gives for such a call under autocast: those of x where it cannot run there.

    Found once a trace from a few steps of two rows: after two of both, no dtype changes any more; then one row ends.
    """
    small = _in_small(call)
    key = (
        small.x.shape,
        small.lengths is not None,
        call.reverse,
        call.resets is not None,
        *[None if ts is None else tuple(t.dtype for t in ts) for ts in ((small.x,), small.states, small.sides)],
    )
    found = compiled.dtypes.get(key)
    if found is None:
        # its own cache: autocast would keep what it casts without a gradient for calls that want one
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _fresh_autocast():
            try:
                y, last = by_scan(small)
                found = (y.dtype, *(s.dtype for s in last))
            except (RuntimeError, RecurraError):  # as lerp of two dtypes
                found = (call.x.dtype,) * (1 + len(call.cell.state_sizes))
        compiled.dtypes[key] = found
    return found


def _fresh_autocast() -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


def _in_small(call: Call) -> Call:
    """Zeros in place of the call's rows, of two sequences: one as long as all are, one as long as the longest."""
    every, longest = _extent(call)
    T = min(every, 2) + (longest > every)
    lengths = torch.tensor([min(every, 2), T]) if longest > every else None

    def rows(t: Tensor) -> Tensor:
        return t.new_zeros(T, 2, t.shape[-1])

    resets = None if call.resets is None else torch.zeros(T, 2, dtype=torch.bool)
    return call._replace(
        x=rows(call.x),
        states=_each(lambda s: s.new_zeros(2, s.shape[-1]), call.states),
        sides=_each(rows, call.sides),
        lengths=lengths,
        resets=resets,
        batch_sizes=None,
        order=None,
        record=None,
        thrifty=False,
    )


def _extent(call: Call) -> tuple[int, int]:
    """How many steps all sequences have, and how many the longest has."""
    if call.batch_sizes is not None:
        sizes = call.batch_sizes
        return int((sizes == sizes[:1]).sum()), len(sizes)
    T = len(call.x)
    if call.lengths is None or not call.x.shape[1]:
        return T, T
    lengths = check_lengths(call.lengths, T, call.x.shape[1])
    return int(lengths.min()), int(lengths.max())

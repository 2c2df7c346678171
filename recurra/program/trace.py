"""A cell's step, run once on a few rows and recorded as a program.

The recorder is a dispatch mode below `torch.func.functionalize`: it sees the ATen operations a step runs, whatever
idiom they were written in, with the user's line on the stack. Rows are real numbers, not fake tensors: meta kernels
import sympy (a second), and numbers can be checked. A step is traced with two batch sizes and must give equal text.
"""

import contextlib
import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes

from recurra.cell import Cell, has_lines, has_variables, innermost, split, telling_batches
from recurra.errors import CellError
from recurra.program.fingerprint import Fingerprint
from recurra.program.plan import Step
from recurra.program.recorder import (
    AutogradWatch,
    BrokenContract,
    Changing,
    Recorder,
    Untraceable,
    line_of,
    place,
)
from recurra.program.surroundings import Surroundings, hidden_input
from recurra.program.text import step_text
from recurra.program.values import Value

_sync: Callable[[Tensor], None] = getattr(torch, "_sync")  # noqa: B009 (not in torch's own list of names)
_MODULE_SETATTR: CodeType = nn.Module.__setattr__.__code__


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows a step was traced with, and what it gave: the program must give the same."""

    inputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    output: Tensor
    nexts: tuple[Tensor, ...]
    weights: dict[str, Tensor]
    watched: tuple[Tensor, ...]


def trace(
    cell: Cell, weights: Mapping[str, Tensor], watch: Sequence[str] = (), tapped: bool = False
) -> tuple[Step, Sample]:
    """The cell's step as a program, and the sample to check it with.

    weights: every parameter and buffer by name (those that stand in for the cell's own included). watch: names, as
    `cell.recordable` has them, of what becomes `Step.watched`. tapped: the gradients of the next states are wanted, so
    that each must be one value with what it is in the step. Raises Untraceable for a step that cannot be a program.
    Call it inside `outside_transforms`.
    """
    _refuse_hidden_inputs(cell)
    first, second = islice(telling_batches(cell, weights.values()), 2)
    trial, standing = _copy(cell, weights)
    before = Fingerprint(trial)
    step, sample = _record(trial, standing, first, watch, tapped)
    again, _ = _record(trial, standing, second, watch)
    if not before.holds():
        raise Changing("the step changes an attribute of the cell, or a variable outside it", definition(cell))
    if _text(step) != _text(again):
        raise Untraceable(
            f"{cell.full_name}.step does not give the same program twice: it depends on the batch size, "
            "or on something that changes from call to call",
            definition(cell),
        )
    _check_one_row(trial, sample)
    return step, sample


def _check_one_row(cell: Cell, sample: Sample) -> None:
    """A row alone must give what it gives among others: `if len(x) == 1` and `squeeze()` are in no program."""
    rows = [t[:1] for t in (*sample.inputs, *sample.states)]
    expected = [t[:1] for t in (sample.output, *sample.nexts)]
    tolerance = 1e-9 if rows[0].dtype == torch.float64 else 1e-3
    try:
        with torch.no_grad():
            y, nexts = split(cell.step, cell.state_names, tuple(rows[len(sample.inputs) :]), cell.step(*rows))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise Untraceable(f"the step fails on one row ({type(error).__name__}: {first})", definition(cell)) from error
    for got, wanted in zip((y, *nexts), expected, strict=True):
        if got.shape != wanted.shape or not torch.allclose(got, wanted, tolerance, tolerance, equal_nan=True):
            reason = "the step treats one row otherwise than several: it depends on the batch size"
            raise Untraceable(reason, definition(cell))


def _text(step: Step) -> str:
    if not step.watched:
        return step_text(step)
    whole = Value("cat", (step.output, *step.watched), (), sum(v.width for v in (step.output, *step.watched)))
    return step_text(replace(step, output=whole))


def _refuse_hidden_inputs(cell: Cell) -> None:
    for f in Surroundings(cell).functions:
        if (found := hidden_input(f)) is not None:
            what, file, line = found
            raise Untraceable(f"the step {what}", place(file, line))


def rows_of(weights: Mapping[str, Tensor]) -> tuple[torch.dtype, torch.device]:
    """The dtype and device of a step's rows: those of the cell's first floating parameter, else of a complex one."""
    for kind in (torch.Tensor.is_floating_point, torch.Tensor.is_complex):
        for t in weights.values():
            if kind(t):
                return t.dtype, t.device
    return torch.get_default_dtype(), torch.device("cpu")


def _record(
    cell: Cell, weights: Mapping[str, Tensor], batch: int, watch: Sequence[str], tapped: bool = False
) -> tuple[Step, Sample]:
    dtype, device = rows_of(weights)
    recorder = Recorder(batch, dtype)
    numbers = torch.Generator().manual_seed(batch)  # rows of our own: the user's random numbers stay where they are

    def row(n: int) -> Tensor:
        return torch.randn(batch, n, dtype=dtype, generator=numbers).to(device)

    sizes = {_input_name(cell): cell.input_size, **cell.side_sizes}
    inputs = {k: recorder.graph.leaf("input", k, n) for k, n in sizes.items()}
    leaves = {k: recorder.graph.leaf("state", k, n) for k, n in cell.state_sizes.items()}
    rows = [row(n) for n in (*sizes.values(), *cell.state_sizes.values())]
    kept = tuple(t.clone() for t in rows)
    for t, v in zip(rows, (*inputs.values(), *leaves.values()), strict=True):
        recorder.bind(t, v)
    out, variables = _run(cell, weights, recorder, rows)
    for t in out:
        if t.dtype != dtype:
            raise Untraceable(f"the step returns {t.dtype}, and its rows are {dtype}", definition(cell))
    values = [recorder.value(t) for t in out]
    for v in values:
        if v.op == "poison":
            raise Untraceable(str(v.attr[0]), v.line)
    for name, v in zip([*leaves, "y"], [*values[-len(leaves) :], values[0]], strict=True):
        recorder.call(v, name)
    for v in values:
        if not _moves(v):
            reason = "the step returns rows that depend neither on x nor on a state"
            raise Untraceable(reason, v.line or definition(cell))
    nexts = dict(zip(leaves, out[-len(leaves) :], strict=True))
    if tapped:
        _refuse_doubles(recorder, nexts, out)
    ends = [recorder.row(v, t.shape[1]) for v, t in zip(values, out, strict=True)]
    variables |= nexts | {"output": out[0]}
    watched = tuple(_watched(recorder, name, variables.get(name), definition(cell)) for name in watch)
    step = Step(cell.full_name, inputs, leaves, tuple(ends[-len(leaves) :]), ends[0], watched)
    seen = tuple(variables[name].reshape(batch, -1) for name in watch)
    n = len(inputs)
    return step, Sample(kept[:n], kept[n:], out[0], tuple(nexts.values()), dict(weights), seen)


def _refuse_doubles(recorder: Recorder, nexts: Mapping[str, Tensor], out: Sequence[Tensor]) -> None:
    """Equal values are one value of a program, and it has one gradient; in PyTorch each tensor has its own."""
    for name, t in nexts.items():
        v = recorder.known(t)
        if v is not None and not v.is_leaf and recorder.around(t, out):
            reason = f"the step computes {name} twice, and the gradient of a state is that of the one it returns"
            raise Untraceable(reason, v.line)


def _input_name(cell: Cell) -> str:
    """What the user's step calls its input."""
    code = inspect.unwrap(type(innermost(cell)).step).__code__
    return code.co_varnames[1] if code.co_argcount > 1 else "x"


def _moves(v: Value) -> bool:
    """Whether a value depends on what comes in."""
    seen, rest = {v}, [v]
    while rest:
        v = rest.pop()
        if v.op in ("input", "state"):
            return True
        rest += (new := {a for a in v.args if a not in seen})
        seen |= new
    return False


def _watched(recorder: Recorder, name: str, t: Tensor | None, line: str) -> Value:
    """The rows that a variable of the step holds."""
    v = None if t is None else recorder.known(t)
    if t is None or v is None or v.op == "static" or t.dim() == 0 or t.shape[0] != recorder.batch:
        raise Untraceable(f"the variable {name} is not among the values of the program", line)
    if v.op == "poison":
        raise Untraceable(str(v.attr[0]), v.line)
    return recorder.row(v, t.numel() // recorder.batch)


def _run(
    cell: Cell, weights: Mapping[str, Tensor], recorder: Recorder, rows: Sequence[Tensor]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The output and next states, recorded, and the step's variables, which have named the values."""
    watch = _Watch(cell)
    before = sys.getprofile()
    watching = before is None or callable(before)  # cProfile could not be put back: then variables give no names
    returned = False

    def step(*rows: Tensor) -> Any:
        nonlocal returned
        out = cell.step(*rows)
        returned = True
        return out

    with torch.inference_mode(False), torch.enable_grad():
        recorder.names.update({id(t): name for name, t in reversed([*weights.items()])})
        try:
            if watching:
                sys.setprofile(watch)
            with AutogradWatch(recorder), recorder:
                out = torch.func.functionalize(step)(*rows)
        except Untraceable as refused:
            if returned:  # functionalize writes to the arguments only now, with none of the user's lines on the stack
                raise Untraceable("the step changes x or a state in place", definition(cell)) from refused
            raise
        except CellError:
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            raise Untraceable(f"{type(error).__name__}: {first}", _raised_at(error) or definition(cell)) from error
        finally:
            if watching:
                sys.setprofile(before)
    if recorder.refused is not None:
        raise recorder.refused
    if watch.written:
        name, line = watch.written
        raise Changing(f"the step writes the attribute {name!r}", line)
    for name, t in watch.variables.items():
        if (v := recorder.known(t)) is not None:
            recorder.call(v, name)
    try:
        y, nexts = split(cell.step, cell.state_names, tuple(rows[-len(cell.state_sizes) :]), out)
    except CellError as error:
        raise BrokenContract(str(error)) from error
    return ([y, *nexts] if y is not nexts[0] else list(nexts)), watch.variables


class _Watch:
    """A profile function: takes the variables of the functions that return, and notices attributes being written."""

    def __init__(self, cell: Cell) -> None:
        self.modules = {id(m) for m in cell.modules()}
        self.variables: dict[str, Tensor] = {}  # as the recorder has seen them
        self.written: tuple[str, str] | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code is _MODULE_SETATTR and id(frame.f_locals.get("self")) in self.modules:
            self.written = self.written or (frame.f_locals["name"], line_of(frame))
        elif event == "return" and has_variables(code):
            for name, t in frame.f_locals.items():
                if isinstance(t, Tensor):
                    self.variables[name] = _unwrapped(t)


def _unwrapped(t: Tensor) -> Tensor:
    """The recorded tensor inside functionalize's wrapper."""
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        if torch._is_functional_tensor(t):
            _sync(t)
        t = torch._C._functorch.get_unwrapped(t)
    return t


def definition(cell: Cell) -> str:
    """Where the cell's step begins, in the user's file; of a wrapper, that of the cell inside."""
    code = type(innermost(cell)).step.__code__
    return place(code.co_filename, code.co_firstlineno)


def _raised_at(error: BaseException) -> str:
    found, entry = "", error.__traceback__
    while entry is not None:
        if has_lines(entry.tb_frame.f_code):
            found = place(entry.tb_frame.f_code.co_filename, entry.tb_lineno)
        entry = entry.tb_next
    return found


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
        for _ in range(torch._C._len_torch_function_stack()):
            stack.enter_context(_pop_mode_temporarily())
        if torch.is_autocast_enabled("cpu"):  # torch.export would write down that it was entered
            stack.enter_context(torch.autocast("cpu", enabled=False))
        yield

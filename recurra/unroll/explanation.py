"""explain: who ran a layer and why, asked of the door itself; describe: what a cell is, in words and program."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch

from recurra.cell import Cell, no_truth
from recurra.errors import InputError, kind_of
from recurra.machine import native
from recurra.machine.caches import caches
from recurra.machine.segments import Segments
from recurra.program.summary import part_lines
from recurra.program.text import plan_text
from recurra.unroll.account import Account, account_of, lines_of
from recurra.unroll.compiled import Compiled, find
from recurra.unroll.door import unroll
from recurra.unroll.notes import Visit, visits
from recurra.unroll.wording import in_bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened in one call of a layer: one `Visit` for each time a cell went through the door, in order.

    `executors` names who ran, and `str()` tells everything.
    """

    visits: tuple[Visit, ...]
    accounts: tuple[Account, ...]  # what each cost
    threads: int
    alone: str = ""  # why the machine runs one thread where PyTorch has more

    @property
    def executors(self) -> tuple[str, ...]:
        """ "native machine", "PyTorch" or "scan", for each visit."""
        return tuple(v.executor for v in self.visits)

    @property
    def native(self) -> bool:
        """Whether the native machine ran every cell."""
        return bool(self.visits) and all(v.executor == "native machine" for v in self.visits)

    def __str__(self) -> str:
        if not self.visits:
            return (
                "None of Recurra's layers ran a cell: the model holds none, or torch.nn ran it (as under autocast). "
                "recurra.LSTM takes the place of torch.nn.LSTM."
            )
        return "\n".join(self._told(v, a) for v, a in zip(self.visits, self.accounts, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and text, ready for `json.dumps`."""
        visits = [_visit(v) | a.as_dict() for v, a in zip(self.visits, self.accounts, strict=True)]
        return {"visits": visits, "threads": self.threads, "alone": self.alone, "caches": dict(caches())}

    def _told(self, v: Visit, account: Account) -> str:
        sizes = ", ".join(f"{k} {n}" for k, n in v.cell.state_sizes.items())
        head = f"{v.cell.full_name} (input {v.cell.input_size}; states {sizes}), T = {v.T}, B = {v.B}: {v.executor}"
        if v.precision is not None and v.executor == "native machine":
            head += f" in {v.precision}"
            head += "" if v.error is None else f" ({v.error:.2g} of the largest output away from fp32)"
        if v.executor == "native machine":
            few = f", {self.threads} thread{'' if self.threads == 1 else 's'} at most"
            head += ", 1 thread, beside the other direction" if v.beside else few
            head += f" ({self.alone})" if self.alone else ""
        lines = [head]
        if v.reason:
            lines.append(f"  because {v.reason}")
        if v.line:
            lines.append(f"  see {v.line}")
        cost = [f"  {line}" for line in lines_of(v, account)]
        if v.compiled is None or v.executor == "scan":  # the program, if there is one, did not run
            return "\n".join(lines + cost)
        if v.compiled.plan is not None:
            lines += [f"  {line}" for line in part_lines(v.compiled.plan, v.compiled.backward)]
        if laid_out := getattr(v.compiled.executor, "laid_out", None):
            lines.append(f"  the loop:                  {laid_out(v.B, v.compiled.dtype, v.compiled.device)}")
        if v.compiled.executor is not None:
            lines.append(f"  kept for the backward pass: {_kept(v)}")
        if v.compiled.second is not None:
            why = v.compiled.second.reason
            lines.append(f"  second derivatives:        {f'PyTorch, because {why}' if why else 'native machine'}")
        return "\n".join(lines + cost)

    def __repr__(self) -> str:
        return f"Explanation({', '.join(self.executors) or 'nothing ran'})"


def _kept(v: Visit) -> str:
    """The bytes of both ways, where all sequences are as long as the longest."""
    compiled = v.compiled
    assert compiled is not None and compiled.executor is not None
    size, (alone, parts) = compiled.dtype.itemsize, Segments(compiled.executor).kept_sizes(v.T, v.B)
    whole, root = (in_bytes(n * size) for n in (compiled.executor.kept_size(False, v.T * v.B), alone + parts))
    return f'{root} (memory="all": {whole})' if v.thrifty else f'{whole} (memory="sqrt": {root})'


def _visit(v: Visit) -> dict[str, Any]:
    return {
        "cell": v.cell.full_name,
        "input_size": v.cell.input_size,
        "states": dict(v.cell.state_sizes),
        "T": v.T,
        "B": v.B,
        "executor": v.executor,
        "because": v.reason,
        "line": v.line,
        "beside": v.beside,
        "thrifty": v.thrifty,
        "error": v.error,
    }


def explain(layer: torch.nn.Module, x: Any, *args: Any, measure: bool = False, **kwargs: Any) -> Explanation:
    """Runs `layer(x, ...)` (or a cell over x (T, B, D)) once and says who ran it.

    Also what was hoisted, sunk and fused; and, where the native machine could not run a step, which operation on which
    line is why.

    The call is a real one, in the gradient mode it is made in; random numbers drawn in it are drawn again later.

    measure: each cell's call is then made some more times, backward too where a gradient is wanted (`.grad` stays as it
    is), and compared with what this machine can do, which is measured once a process.
    """
    if measure is not True and measure is not False:
        raise no_truth("measure", measure)
    if not isinstance(layer, torch.nn.Module):
        raise InputError(f"explain takes a torch.nn.Module and its x, and got {kind_of(layer)}. Pass the layer first.")
    with visits() as seen, torch.random.fork_rng():
        if isinstance(layer, Cell):
            unroll(layer, x, *args, **kwargs)
        else:
            layer(x, *args, **kwargs)
    threads, alone = native.threads()
    with torch.random.fork_rng():
        accounts = tuple(account_of(v, threads, measure) for v in seen)
    return Explanation(tuple(replace(v, replay=None) for v in seen), accounts, threads, alone)


@dataclass(frozen=True, slots=True)
class Description:
    """A cell in words: its equation (the first lines of its docstring), parameters, operations, and program."""

    name: str
    equation: str
    parameters: int
    states: dict[str, int]
    operations: tuple[str, ...]
    program: str
    reason: str

    def __str__(self) -> str:
        states = ", ".join(f"{k} {n}" for k, n in self.states.items())
        head = f"{self.name}\n\n{self.equation}\n\nparameters: {self.parameters:,}; states: {states}"
        body = "\n".join(self.operations)
        return f"{head}\n{body}\n\n{self.program or f'It runs on scan: {self.reason}.'}"


def describe(cell: Cell) -> Description:
    """What a cell computes: equation, program before, in and after the loop, parameters and operations a step."""
    compiled, _ = find(cell, None)
    return Description(
        name=cell.full_name,
        equation=inspect.getdoc(type(cell)) or "",
        parameters=sum(p.numel() for p in cell.parameters()),
        states=dict(cell.state_sizes),
        operations=() if compiled.plan is None else tuple(part_lines(compiled.plan, compiled.backward)),
        program="" if compiled.plan is None else plan_text(compiled.plan),
        reason=_why(compiled),
    )


def _why(compiled: Compiled) -> str:
    return compiled.reason + (f" ({compiled.line})" if compiled.line else "")

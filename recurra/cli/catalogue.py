"""`recurra cells`: each cell's equation, and what the passes made of its step."""

import difflib
import inspect
import json
from collections import Counter
from math import prod
from typing import Any

from rich.console import Console
from rich.table import Table

from recurra import cells
from recurra.cell import Cell
from recurra.errors import InputError
from recurra.passes import compile_step
from recurra.program.ops import OPS
from recurra.program.plan import Backward, Plan
from recurra.program.text import plan_text
from recurra.program.values import Value

PARTS = {"before": "before the loop", "loop": "in the loop", "after": "after the loop"}


def show_all(as_json: bool) -> None:
    """One line a cell: its name and the first line of its equation."""
    lines = {name: equation(getattr(cells, name)).splitlines()[0] for name in cells.__all__}
    if as_json:
        print(json.dumps(lines, ensure_ascii=False))
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
    print("\nrecurra cells NAME shows one of them whole.")


def show_one(name: str, input_size: int, hidden_size: int, as_json: bool) -> None:
    """Equation, parameters, program and operations of one cell."""
    cell = make(name, input_size, hidden_size)
    plan, backward = compile_step(cell)
    facts = described(cell, plan, backward)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False)
    print(f"{name}({cell.extra_repr()})\n\n{facts['equation']}\n")
    console.print(_parameters(facts), "", _operations(facts), "")
    print(f"For the backward pass {facts['saved']} numbers a row and step are kept, besides inputs, states, outputs.\n")
    if console.is_terminal:  # the source line at the right of each operation is cut where the terminal ends
        console.print(facts["program"], no_wrap=True, overflow="ellipsis")
    else:
        print(facts["program"])


def make(name: str, input_size: int, hidden_size: int) -> Cell:
    """The cell of that name. What else it must be given (proj_size, output_size) is half the hidden size."""
    if name not in cells.__all__:
        near = difflib.get_close_matches(name, cells.__all__, 1)
        hint = f"did you mean {near[0]}?" if near else "there are " + ", ".join(cells.__all__) + "."
        raise InputError(f"There is no cell {name}; {hint}")
    for flag, size in (("--input-size", input_size), ("--hidden-size", hidden_size)):
        if size < 1:
            raise InputError(f"{flag} is {size}; give 1 or more.")
    kind = getattr(cells, name)
    more = {
        p.name: max(1, hidden_size // 2)
        for p in list(inspect.signature(kind).parameters.values())[2:]
        if p.default is inspect.Parameter.empty
    }
    cell: Cell = kind(input_size, hidden_size, **more)
    return cell


def equation(kind: type[Cell]) -> str:
    """The cell's page: its docstring."""
    return inspect.getdoc(kind) or ""


def described(cell: Cell, plan: Plan, backward: Backward) -> dict[str, Any]:
    """All that is shown of a cell, as plain data."""
    parts = {"before": plan.before, "loop": plan.body, "after": plan.after}
    return {
        "name": type(cell).__name__,
        "equation": equation(type(cell)),
        "states": dict(cell.state_sizes),
        "parameters": {name: list(p.shape) for name, p in cell.named_parameters()},
        "operations": {name: operations(part) for name, part in parts.items()},
        "saved": sum(v.width for v in backward.saved),
        "linear": plan.linear,
        "program": plan_text(plan),
    }


def operations(part: tuple[Value, ...]) -> dict[str, int]:
    """What one row of one step costs in this part: how many operations of a kind, and how much they compute."""
    kinds = Counter(OPS[v.op].kind for v in part)
    return {
        "products": kinds["product"],
        "multiply_adds": sum(v.width * v.args[0].width for v in part if OPS[v.op].kind == "product"),
        "pointwise": kinds["pointwise"] + kinds["reduction"],
        "numbers": sum(v.width for v in part if OPS[v.op].kind == "pointwise")
        + sum(v.args[0].width for v in part if OPS[v.op].kind == "reduction"),
    }


def _parameters(facts: dict[str, Any]) -> Table:
    table = Table("parameter", "shape", "numbers", box=None, padding=(0, 3, 0, 0))
    for name, shape in facts["parameters"].items():
        table.add_row(name, " x ".join(map(str, shape)), f"{prod(shape):,}")
    table.add_row("in all", "", f"{sum(prod(shape) for shape in facts['parameters'].values()):,}")
    return table


def _operations(facts: dict[str, Any]) -> Table:
    table = Table("a row and step", "products", "multiply-adds", "pointwise", "numbers", box=None, padding=(0, 3, 0, 0))
    for name, counts in facts["operations"].items():
        table.add_row(PARTS[name], *(f"{n:,}" for n in counts.values()))
    return table

"""The rules of docs/architecture.md, read from the sources and, for what is loaded when, from a process of its own."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "recurra"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "matplotlib", "PIL", "onnx", "onnxruntime", "triton", "starlette", "uvicorn", "websockets", "prometheus_client",
    "tokenizers", "rjieba", "soundfile", "sacrebleu", "jiwer", "tensorboard", "pyarrow", "pandas",
)  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {"torch.load", "torch.save", "torch.package", "np.load", "numpy.load", "os.system"}
ENGINE = {"program", "passes", "machine", "unroll"}


def rows() -> dict[str, int]:
    """Unit (a folder or file of the package) -> row, from the first block of docs/architecture.md."""
    block = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    table = {}
    for line in block.strip().splitlines():
        number, rest = line.split(maxsplit=1)
        for unit in re.split(r"\s{2,}", rest):
            if re.fullmatch(r"\w+", unit):  # the rest of the line is a comment
                table[unit] = int(number)
    return table


ROWS = rows()


def unit_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Every module that the source imports, anywhere in it, with its line; relative imports start at `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "recurra":
                yield from ((f"recurra.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def broken_rule(unit: str, module: str) -> str | None:
    """Why `unit` may not import `module`; None when it may."""
    parts = module.split(".")
    if parts[0] != "recurra":
        return None
    if len(parts) == 1 or parts[1] == "_native":
        home = "cli" if len(parts) == 1 else "machine"
        return None if unit == home else f"only {home} imports {module}"
    target = parts[1]
    if target not in ROWS:
        return f"{target} has no row; import a public name from its home"
    if target == unit or ROWS[target] < ROWS[unit]:
        return None
    return f"row {ROWS[unit]} ({unit}) imports row {ROWS[target]} ({target})"


def forbidden(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for module, line in imports(tree, "recurra"):
        if module.split(".")[0] in FORBIDDEN_MODULES:
            yield module, line
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            yield node.func.id, node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_ATTRIBUTES:
            yield ast.unparse(node), node.lineno


def parse(file: Path) -> ast.AST:
    return ast.parse(file.read_text(), str(file))


def in_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_unit_has_a_row_and_every_row_its_units() -> None:
    units = {unit_of(file) for file in FILES} - {"__init__", "__main__"}
    assert units == set(ROWS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    if file.parent == PACKAGE and file.stem in ("__init__", "__main__"):
        return
    package = ".".join(file.relative_to(ROOT).parent.parts)
    found = [(line, broken_rule(unit_of(file), name)) for name, line in imports(parse(file), package)]
    assert not [(line, why) for line, why in found if why]


@pytest.mark.parametrize(
    ("unit", "module", "allowed"),
    [
        ("layers", "recurra.unroll", True),
        ("passes", "recurra.passes.hoist", True),
        ("passes", "recurra.machine.plain", False),
        ("scan", "recurra.cells", False),
        ("program", "recurra.unroll", False),
        ("training", "recurra", False),
        ("training", "recurra.Cell", False),
        ("machine", "recurra._native", True),
        ("unroll", "recurra._native", False),
        ("cli", "recurra", True),
    ],
)
def test_the_rule_itself(unit: str, module: str, allowed: bool) -> None:
    assert (broken_rule(unit, module) is None) == allowed


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_model_file_is_data(file: Path) -> None:
    assert not list(forbidden(parse(file)))


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "def f(): eval('1')", "exec('1')", "torch.load(p)", "f = torch.save"],
)
def test_what_a_model_file_must_not_meet_is_found(source: str) -> None:
    assert list(forbidden(ast.parse(source)))


def test_the_engine_and_the_layers_know_no_cell_by_name() -> None:
    knowing = [
        str(file.relative_to(PACKAGE))
        for file in FILES
        if unit_of(file) in {*ENGINE, "layers"}
        and file.name != "drop_in.py"
        and any(name.startswith("recurra.cells") for name, _ in imports(parse(file), "recurra." + unit_of(file)))
    ]
    assert not knowing


def test_tasks_draw_masks_by_place() -> None:
    """So that a run in several processes drops what a run in one does: by `recurra.regularise`, not by PyTorch."""
    drawing = ("F.dropout", "nn.Dropout", "torch.rand(", "bernoulli")
    assert not [
        (str(file.relative_to(PACKAGE)), name)
        for file in FILES
        if unit_of(file) == "tasks"
        for name in drawing
        if name in file.read_text()
    ]


def test_private_names_stay_in_their_file() -> None:
    taken = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(parse(file))
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("recurra"))
        if any(alias.name.startswith("_") and alias.name != "_native" for alias in node.names)
    ]
    assert not taken


def test_a_heavy_package_has_one_home() -> None:
    homes: dict[str, set[str]] = {}
    for file in FILES:
        for name, _ in imports(parse(file), "recurra"):
            if name.split(".")[0] in HEAVY:
                homes.setdefault(name.split(".")[0], set()).add(str(file.relative_to(PACKAGE)))
    assert all(len(files) == 1 for files in homes.values()), homes


def test_importing_recurra_loads_no_heavy_package_and_no_torch() -> None:
    code = f"""
import sys, recurra
assert not [name for name in {(*HEAVY, "torch", "numpy")!r} if name in sys.modules], sorted(sys.modules)
for name in recurra.__all__:
    getattr(recurra, name)
before = set(sys.modules)
print([name for name in {HEAVY!r} if name in before])
"""
    assert in_process(code).strip() == "[]"


def test_tracing_leaves_the_compiler_and_sympy_alone() -> None:
    code = """
import sys, torch, recurra
x = torch.randn(3, 2, 4, requires_grad=True)
for layer in (recurra.LSTM(4, 5), recurra.Recurrent(recurra.cells.GRU(4, 5))):
    layer(x)[0].sum().backward()
print("torch._dynamo" in sys.modules, "sympy" in sys.modules, "torch._inductor" in sys.modules)
"""
    assert in_process(code).split() == ["False", "False", "False"]

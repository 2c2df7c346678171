"""What `import recurra` gives, and what each of its modules needs."""

import subprocess
import sys
from pathlib import Path

import pytest

import recurra

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "recurra").rglob("*.py")
    if file.name != "__main__.py"
)


@pytest.mark.parametrize("name", recurra.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(recurra, name) is getattr(recurra, name)
    assert name in dir(recurra)


def test_every_public_class_and_function_says_what_it_is() -> None:
    for name in recurra.__all__:
        assert (getattr(recurra, name).__doc__ or "").strip(), name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'recurra' has no attribute 'LSTN'"):
        _ = recurra.LSTN  # type: ignore[attr-defined]


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from recurra import *", names)  # noqa: S102 (the statement under test)
    assert set(recurra.__all__) == set(names) - {"__builtins__"}


def test_each_module_can_be_imported_first() -> None:
    """No module counts on another having been imported before it: a cycle would show here."""
    code = f"""
import importlib, sys, torch
failed = []
for name in {MODULES!r}:
    for loaded in [m for m in sys.modules if m.split(".")[0] == "recurra" and m != "recurra._native"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append((name, repr(error)))
print(failed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr


def test_the_package_is_typed() -> None:
    assert (ROOT / "recurra/py.typed").is_file()

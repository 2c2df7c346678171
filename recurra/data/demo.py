"""The demonstration text, which every CPython carries: its language reference in `pydoc_data.topics`."""

import ast
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from recurra.data.text import Text

DEMO = "demo"
_ENOUGH = 400_000  # characters


def demo_text() -> Text:
    """The text `demo`: about 375,000 characters of the Python language reference.

    A paragraph that occurs in several topics is kept once: a copy on both sides of the split would let a model be
    judged on what it has learned by heart. Where the topics are missing, docstrings of the standard library stand in.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return Text(DEMO, _once(_docstrings())[:_ENOUGH])
    return Text(DEMO, _once(topics.values()))


def _once(documents: Iterable[str]) -> str:
    """All paragraphs in their order, each the first time it occurs."""
    paragraphs = (part.strip("\n") for document in documents for part in document.split("\n\n"))
    return "\n\n".join(dict.fromkeys(part for part in paragraphs if part.strip())) + "\n"


def _docstrings() -> Iterator[str]:
    """Docstrings of the standard library, read from its sources; nothing is imported."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if text := ast.get_docstring(node):
                yield text

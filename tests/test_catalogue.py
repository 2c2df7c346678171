"""docs/cells-catalogue.md is the docstrings of all cells, family by family. RECURRA_WRITE=1 writes it anew."""

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from recurra import cells

PAGE = Path(__file__).parent.parent / "docs" / "cells-catalogue.md"
HEAD = """# Catalogue of cells

Equation, source, gate order, states, parameters and deviations of every cell that comes with Recurra, as they stand in
`recurra/cells/`; `recurra cells NAME` prints one of them with its program. [Which to choose](cells.md) is another page.
This page is written by `RECURRA_WRITE=1 python -m pytest tests/test_catalogue.py`.
"""


def catalogue() -> Iterator[str]:
    """The page, piece by piece: a heading for each file of recurra/cells, a block for each class."""
    yield HEAD
    families: dict[str, list[type]] = {}
    for name in cells.__all__:
        cell = getattr(cells, name)
        families.setdefault(cell.__module__, []).append(cell)
    for family in sorted(families):
        title = (sys.modules[family].__doc__ or "").strip().partition("\n")[0].removesuffix(".")
        yield f"\n## {title}\n"
        for cell in families[family]:
            yield f"\n### {cell.__name__}\n\n```text\n{inspect.getdoc(cell)}\n```\n"


def test_the_page_is_the_docstrings() -> None:
    page = "".join(catalogue())
    if os.environ.get("RECURRA_WRITE"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page

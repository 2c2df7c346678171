"""What commands print: text for people, or one JSON object."""

import dataclasses
import json
import sys
from collections.abc import Iterable
from typing import Any


def show(result: Any, as_json: bool, **computed: Any) -> None:
    """Prints a result: its own text, or its fields (and what is `computed` from them) as JSON."""
    if not as_json:
        print(result)
    else:
        fields = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else dict(result)  # type: ignore[arg-type]
        print(json.dumps({**fields, **computed}, ensure_ascii=False, default=str), flush=True)


def write(prompt: str, pieces: Iterable[str]) -> None:
    """Writes text as it is made. Ctrl-C ends the line it is in."""
    try:
        sys.stdout.write(prompt)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")

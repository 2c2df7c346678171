"""The command `recurra`: a thin layer over the Python calls of the same names. Nothing here imports torch."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from cyclopts import CycloptsError

from recurra.cli.app import app
from recurra.cli.typed import typeable
from recurra.errors import RecurraError

WRONG_INPUT = 2  # the person can mend it: the message says how
FAILED = 1  # the machine, or Recurra, failed
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and leaves with its exit code; a failure is one line on standard error, never a traceback."""
    if sys.stdout is None:  # closed by the shell, `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and gives its exit code."""
    try:
        code = app(arguments)
        sys.stdout.flush()
    except (RecurraError, CycloptsError) as error:
        say(typeable(one_line(error)))
        return WRONG_INPUT
    except KeyboardInterrupt as error:
        say(typeable(str(error) or "stopped"))
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe (`| head`) has left: nothing more to say, and nowhere to say it
        _write_no_more()
        return 0
    except Exception as error:  # the outermost frame: whatever happened becomes one line
        if os.environ.get("RECURRA_TRACEBACK"):
            raise
        if isinstance(error, OSError) and _came_from_printing(error):
            _write_no_more()
            say(f"the output cannot be written: {error.strerror}. Send it where there is room.")
        else:
            say(f"{type(error).__name__}: {one_line(error)} (RECURRA_TRACEBACK=1 shows where)")
        return FAILED
    return code if isinstance(code, int) else 0


def _came_from_printing(error: OSError) -> bool:
    """Whether a write to standard output or standard error failed: whoever prints is here or in these packages."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module: str = frame.f_globals["__name__"]
    return module.startswith(("recurra.cli", "rich.", "cyclopts."))


def _write_no_more() -> None:
    """What standard output still holds goes nowhere, or Python would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def say(line: str) -> None:
    print(f"recurra: {line}", file=sys.stderr, flush=True)

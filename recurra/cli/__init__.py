"""The command `recurra`: a thin layer over the Python calls of the same names. Nothing here imports torch."""

import os
import sys
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
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and gives its exit code."""
    try:
        app(arguments)
        sys.stdout.flush()
    except (RecurraError, CycloptsError) as error:
        say(typeable(one_line(error)))
        return WRONG_INPUT
    except KeyboardInterrupt as error:
        say(typeable(str(error) or "stopped"))
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe (`| head`) has left: nothing more to say, and nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the outermost frame: whatever happened becomes one line
        if os.environ.get("RECURRA_TRACEBACK"):
            raise
        say(f"{type(error).__name__}: {one_line(error)} (RECURRA_TRACEBACK=1 shows where)")
        return FAILED
    return 0


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def say(line: str) -> None:
    print(f"recurra: {line}", file=sys.stderr, flush=True)

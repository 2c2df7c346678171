"""`recurra compare`: where it is on standard error, the table on standard output."""

import sys
import time

_EVERY = 10.0  # seconds between two lines that are no terminal's


class Ticker:
    """One line that is written over in a terminal; elsewhere a line now and then, and one for each model."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last, self._model = 0.0, ""

    def __call__(self, line: str) -> None:
        model = line.partition(":")[0]
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        elif model != self._model or time.monotonic() - self._last > _EVERY:
            print(line, file=sys.stderr, flush=True)
            self._last, self._model = time.monotonic(), model

    def end(self) -> None:
        """Takes the line away."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")

"""Ctrl-C between two steps rather than inside one."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """While active, the first Ctrl-C sets `wanted` and the second raises KeyboardInterrupt at once.

    Outside the main thread Python takes no signal handlers, and Ctrl-C stays as it is.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Interrupt":
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

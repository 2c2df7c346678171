"""How much memory this process holds, and the most that it has held since somebody asked."""

import resource
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held() -> int:
    """Bytes in memory now; where the system does not say, the most so far."""
    return _field("VmRSS") or most_held()


def most_held() -> int:
    """The most bytes since `begin_anew()`, or since the process began where the system counts from there."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _field("VmHWM") or (used if sys.platform == "darwin" else used * 1024)


def begin_anew() -> None:
    """The most bytes are counted from now, where the system can (Linux: proc(5), clear_refs)."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _field(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)

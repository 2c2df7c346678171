"""What a ratio was measured on."""

import importlib.metadata
import platform
import subprocess
import tomllib
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent


class Machine(msgspec.Struct, frozen=True):
    processor: str
    cores: int
    system: str
    python: str
    torch: str
    recurra: str
    commit: str
    rivals: dict[str, str] = {}

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores; {self.system}; Python {self.python}; PyTorch {self.torch}; "
            + "".join(f"{name} {number}; " for name, number in self.rivals.items())
            + f"Recurra {self.recurra} ({self.commit})"
        )


def rivals() -> dict[str, str]:
    """The versions of those that are installed and not of this project."""
    found = {}
    for name in ("jax", "onnxruntime", "torchrecurrent"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name, and those of its vector extensions that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX"}
    found = [name for flag, name in known.items() if flag in flags]
    return " ".join([facts.get("model name", platform.machine()), *([f"({', '.join(found)})"] if found else [])])


def version() -> str:
    """The version of the checkout, whether installed or not."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def commit() -> str:
    """The commit that is checked out, with a + when files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit known"

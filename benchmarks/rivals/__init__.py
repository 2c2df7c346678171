"""Rivals that run in a process of their own, one a file; here what is known of them without loading any."""

import os
from dataclasses import dataclass

TASK, GIVEN, FOUND = "task.json", "given.safetensors", "found {}.safetensors"  # in the folder of one rival


@dataclass(frozen=True)
class Facts:
    """labels: its variants, the fastest counts. packages: what must be installed, by remedy; compiler: needs g++."""

    labels: tuple[str, ...]
    packages: tuple[str, ...] = ()
    remedy: str = ""
    compiler: bool = False

    def environment(self, threads: int) -> dict[str, str]:
        """A compiler's cache for each number of threads: what was compiled for one must not make the other ready."""
        found = {"NPROC": str(threads)}  # of XLA's pool
        if threads == 1:
            found["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        if cache := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
            found["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(cache, str(threads))
        return found


RIVALS = {
    "jax": Facts(("lax.scan", "lax.scan after one input product"), ("jax",), "make rivals"),
    "onnxruntime": Facts(("spinning", "not spinning"), ("onnx", "onnxruntime"), "make rivals"),
    "compile": Facts(("torch.compile",), compiler=True),
}

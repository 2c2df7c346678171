"""Compiles generated kernels for an H100 or H200 by Triton's own compiler, which needs no GPU: see test_triton.py."""

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from examples import CELLS
from recurra.machine.triton import TritonExecutor
from recurra.machine.triton_functions import REALS
from recurra.machine.triton_program import TritonProgram, cut_for, function_of, meta_of
from recurra.machine.triton_source import Kernel
from recurra.unroll.compiled import Compiled

HOPPER = GPUTarget("cuda", 90, 32)
REAL = REALS[torch.float32]
WHOLE = {"T": "i32", "B": "i32", "begin": "i32", "end": "i32", "N": "i32", "offsets": "*i64", "meetings": "*i64"}


def compiled(kernel: Kernel, constants: dict[str, object], together: bool = False) -> str:
    """The kernel's PTX, from which ptxas has made machine code."""
    function = function_of(kernel)
    signature = {name: "constexpr" if name in constants else WHOLE.get(name, "*fp32") for name in function.arg_names}
    source = ASTSource(function, signature, constexprs=constants)
    made = triton.compile(source, target=HOPPER, options={"launch_cooperative_grid": together})
    assert len(made.asm["cubin"]) > 1000
    assert made.metadata.shared <= 227 << 10, "what an H100 has for one instance"
    return str(made.asm["ptx"])


def compile_all(program: TritonProgram, across: int, **sizes: int) -> None:
    """sizes: numbers that the kernel is compiled for, as Triton does for those that are 1."""
    for n, stage in enumerate(program.procedure.stages):
        if not stage.loop:
            for step in program.wide(n, frozenset()):
                if step.kernel is not None:
                    tiles = {f"TILE{p}": 128 for p in range(len(step.kernel.tiles))}
                    compiled(step.kernel, {**tiles, "ROWS": 8, "REAL": REAL})
            continue
        kernel = program.loop(n, frozenset())
        cut = cut_for(kernel, 16, 0, torch.float32, torch.device("cpu"))
        constants = meta_of(cut, torch.zeros(())) | {"ACROSS": across, "WIDER": across, "PART": -1}
        constants |= sizes
        ptx = compiled(kernel, constants, across > 1)
        assert "mma." in ptx, "products on the matrix units"
        assert ("atom" in ptx) == (across > 1), "instances meet where they share columns"


def main() -> None:
    torch.set_float32_matmul_precision("high")
    cell = next(example for example in CELLS if example.name == "user's Concatenated").make(96, 130)
    found = Compiled(cell, None)
    assert found.plan is not None and found.backward is not None
    forward, backward = TritonExecutor(found.plan, found.backward).programs()
    compile_all(forward, across=8)
    compile_all(backward, across=1, T=1, B=1, end=1)
    print("compiled")


if __name__ == "__main__":
    main()

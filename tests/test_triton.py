"""Generated Triton kernels: the laws of triton_laws.py in Triton's interpreter; what its compiler says for Hopper."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import recurra
from recurra.machine import devices, triton
from recurra.machine.operands import Unsupported
from recurra.passes import compile_step

ROOT = Path(__file__).parent.parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: recurra[cuda]")


def in_process(*command: str, **environment: str) -> str:
    """What Python prints in a process of its own: TRITON_INTERPRET is read when Triton is imported."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=400,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


@needs_triton
def test_the_laws_hold_in_the_interpreter() -> None:
    pytest_quietly = "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:warnings"
    assert " passed" in in_process(*pytest_quietly, "tests/triton_laws.py", TRITON_INTERPRET="1")


@needs_triton
def test_kernels_compile_for_hopper_without_a_gpu(tmp_path: Path) -> None:
    """The interpreter takes what Triton's compiler may refuse; this is its own word, down to machine code."""
    assert "compiled" in in_process("tests/triton_compiled.py", TRITON_CACHE_DIR=str(tmp_path))


def test_without_triton_a_program_on_a_gpu_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "missing", "Triton cannot be imported (no such module); pip install 'recurra[cuda]'")
    plan, backward = compile_step(recurra.cells.GRU(3, 4))
    with pytest.raises(Unsupported, match=r"pip install 'recurra\[cuda\]'"):
        devices.prepare(plan, backward, torch.device("cuda"))


@needs_triton
def test_kernels_do_not_run_on_the_cpu() -> None:
    assert triton.available(torch.device("cpu")) == "Triton's kernels run on CUDA, not on cpu"
    assert triton.available(torch.device("cuda")) == ""


def test_a_device_that_runs_no_programs_is_named() -> None:
    plan, backward = compile_step(recurra.cells.GRU(3, 4))
    with pytest.raises(Unsupported, match="the weights are on xpu, and programs run on the CPU and on CUDA"):
        devices.prepare(plan, backward, torch.device("xpu"))


def test_what_is_generated_holds_no_word_of_the_users_step() -> None:
    """Names of variables, states and files stay outside; only numbers and the table's texts are in it."""

    class Words(recurra.Cell):
        def __init__(self) -> None:
            super().__init__(2, 3)
            self.wombat = torch.nn.Linear(5, 3)

        def step(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            quokka = self.wombat(torch.cat([x, h], -1))
            return torch.tanh(quokka)

    plan, backward = compile_step(Words())
    texts = [
        program.loop(n, frozenset()).text
        for program in triton.TritonExecutor(plan, backward).programs()
        for n, stage in enumerate(program.procedure.stages)
        if stage.loop
    ]
    assert len(texts) == 2 and all("tl.dot" in text for text in texts)
    assert not any(word in text for text in texts for word in ("quokka", "wombat", "test_triton", "Words"))

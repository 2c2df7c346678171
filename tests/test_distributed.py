"""DistributedDataParallel over gloo: two processes, each with half of the batch, for every layer and every cell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checks import needs_machine

pytestmark = needs_machine

SECONDS = 120
RANK = """
import copy, sys, torch, torch.distributed as group
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves
from examples import CELLS, LAYERS
import recurra

rank, store = int(sys.argv[1]), sys.argv[2]
group.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)

def gradients(layer, x):
    with recurra.strict():
        y, state = layer(x)
    (y.square().sum() + sum(s.sum() for s in tree_leaves(state))).backward()
    found, _ = [p.grad for p in layer.parameters()], layer.zero_grad(set_to_none=True)
    return found

def make(example):
    return example.make(3, False) if example in LAYERS else recurra.Recurrent(example.make(3, 5))

for example in (*LAYERS, *CELLS):
    torch.manual_seed(0)
    layer = make(example).double()
    halves = torch.randn(7, 4, 3, dtype=torch.double).chunk(2, 1)
    expected = [(a + b) / 2 for a, b in zip(*[gradients(copy.deepcopy(layer), half) for half in halves])]
    if rank:
        torch.nn.init.zeros_(next(layer.parameters()))  # the first process's weights are everybody's
    parallel = DistributedDataParallel(layer)
    for _ in range(2):  # the second pass finds the buckets of the first
        for found, mean in zip(gradients(parallel, halves[rank]), expected, strict=True):
            torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-12, msg=str(example))
group.destroy_process_group()
print("same")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback device is Linux's")
def test_gradients_are_the_mean_of_both_processes(tmp_path: Path) -> None:
    root = Path(__file__).parent
    path = os.pathsep.join([str(root.parent), str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in ranks:
            out, err = process.communicate(timeout=SECONDS)
            assert (process.returncode, out) == (0, "same\n"), err
    finally:
        for process in ranks:
            process.kill()
            process.wait()

"""Random calls, right and wrong ones: the result is scan's (or torch.nn's), or a clear error of ours."""

import os
import warnings

import pytest
import torch
from checks import needs_machine
from random_calls import drawn, verdict

pytestmark = needs_machine

CALLS = int(os.environ.get("RECURRA_CALLS", "1000"))  # `make soak` asks for ten thousand
GROUPS = 20


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_calls_are_right_or_refused(group: int) -> None:
    torch.set_num_threads(2 if group % 10 == 0 else 1)  # sizes are small
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of what a mistaken argument is
        for seed in range(group, CALLS, GROUPS):
            call = drawn(seed)
            if told := verdict(call):
                wrong.append(f"{call}: {told}")
    assert not wrong, "\n".join(wrong[:20])

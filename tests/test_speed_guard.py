"""Half of the goal of four rows of the speed table, so that a loss of speed is seen before anybody benchmarks.

Least times of interleaved rounds at one thread, a few attempts: noise makes a time longer, never shorter.
"""

import pytest
import torch

import recurra
from benchmarks.cases import CASES
from benchmarks.goals import GOALS, Goal
from benchmarks.race import Race
from benchmarks.timing import Effort, measure

GUARDED = {
    ("train", "gru", (1, 128, 128)),
    ("train", "gru", (8, 128, 128)),
    ("own", "peephole", (1, 128, 128)),
    ("own", "peephole", (8, 128, 128)),
}
RIVALS = ("torch", "loop")  # those that are always here
ATTEMPTS = 4
EFFORT = Effort(seconds=0.3, fewest=4, repeats=0)


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)  # conftest.py sets it back


def test_the_guarded_rows_are_in_the_table():
    assert {goal.case for goal in GOALS} >= GUARDED


@pytest.mark.speed
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize(
    "goal",
    [each for each in GOALS if each.case in GUARDED and each.who == "ours" and each.against in RIVALS],
    ids=lambda goal: goal.id,
)
def test_half_of_the_goal(goal: Goal, one_thread):
    torch.manual_seed(0)
    race = CASES[goal.kind](goal.cell, goal.shape).only({goal.who, goal.against})
    assert isinstance(race, Race)
    race.differences()
    wanted, seen = goal.one / 2, []
    with recurra.strict():
        for _ in range(ATTEMPTS):
            times = measure(race.contestants, EFFORT).times
            seen.append(times[goal.against].least / times[goal.who].least)
            if seen[-1] >= wanted:
                return
    ratios = ", ".join(f"{ratio:.2f}" for ratio in seen)
    pytest.fail(f"{goal.id}: {ratios} times as fast as its rival, half of the goal is {wanted}")

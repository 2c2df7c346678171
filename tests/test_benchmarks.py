"""The benchmark itself: a wrong contestant is refused, the fastest variant is the rival, medians decide."""

import pytest
import torch

from benchmarks import report
from benchmarks.cases import CASES, Check, Mismatch
from benchmarks.goals import GOALS, LAYERS, Goal, goal
from benchmarks.records import Result, Run, Time
from benchmarks.timing import Contestant, Effort, measure

GRU = goal("train", "gru", (8, 128, 128), 3.2, 4.5)
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")


def run(ours: float, theirs: float, malloc: str = "default", other: float = 0.0, error: str = "") -> Run:
    times = {} if error else {"ours": Time(ours, ours), "torch": Time(theirs, theirs, "mkldnn off")}
    return Run(1, malloc, 0, Result(*GRU.case, times=times, other=other, error=error))


def test_goals_have_names_of_their_own_and_a_case():
    assert len({each.id for each in GOALS}) == len(GOALS)
    assert {each.kind for each in GOALS} == set(CASES)


def test_every_layer_row_is_raced_again_by_a_copy():
    assert {each.case for each in LAYERS} == {each.case for each in GOALS if each.who == "copy"}


@pytest.mark.parametrize("wrong", [1e-4, float("nan"), float("inf")])
def test_a_wrong_value_is_refused_by_name(wrong):
    right = torch.ones(3)
    assert Check("ours", lambda: {"outputs": right + 5e-6}, lambda: {"outputs": right}).run() < 1e-5
    with pytest.raises(Mismatch, match=r"ours: outputs differs from the reference by (1.0e-04|nan|inf)"):
        Check("ours", lambda: {"outputs": right + wrong}, lambda: {"outputs": right}).run()


def test_the_fastest_variant_counts_and_time_is_per_unit_of_work():
    def spend(times: int) -> None:
        for _ in range(times):
            torch.ones(2000).sum()

    slow = Contestant("torch", lambda: spend(260), "slow")
    fast = Contestant("torch", lambda: spend(200), "fast")
    halves = Contestant("ours", lambda: spend(200), work=2.0)
    times = measure([slow, fast, halves], Effort(seconds=0.0, fewest=7, repeats=0)).times
    assert times["torch"].label == "fast"
    assert 1.4 < times["torch"].least / times["ours"].least < 2.8


def test_contestants_run_in_their_modes():
    seen = []
    Contestant("ours", lambda: seen.append((torch.is_grad_enabled(), torch.backends.mkldnn.enabled))).seconds(1)
    for mkldnn in (True, False):
        race = Contestant(
            "torch",
            lambda: seen.append((torch.is_grad_enabled(), torch.backends.mkldnn.enabled)),
            "",
            1.0,
            mkldnn,
            False,
        )
        race.seconds(1)
    assert seen == [(True, True), (False, True), (False, False)]


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [((3.3, 3.2, 9.0), "reached"), ((3.1, 3.0, 9.0), "reached (0.97 of it)"), ((2.9, 2.8, 9.0), "no (0.91 of it)")],
)
def test_the_median_decides(theirs, verdict):
    line = report.line(GRU, 1, [*(run(1.0, each) for each in theirs), run(1.0, 1.0, "keeping")])
    assert (line.median, line.verdict, line.kept) == (sorted(theirs)[1], verdict, [1.0])
    assert line.rivals == ["mkldnn off"]


def test_an_error_is_never_reached():
    line = report.line(GRU, 1, [run(1.0, 9.0), run(1.0, 9.0, error="Mismatch: ours: outputs differs")])
    assert line.verdict == "WRONG: Mismatch: ours: outputs differs"
    assert report.summary([line]) == "0 of 1 reached, 1 WRONG"


def test_runs_disturbed_by_others_are_marked():
    assert "**9.00***" in report.table([report.line(GRU, 1, [run(1.0, 9.0, other=0.5)])])
    assert "**9.00** " in report.table([report.line(GRU, 1, [run(1.0, 9.0, other=0.05)])])


def test_the_table_is_written_between_its_marks_only(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    report.write(page, "new")
    report.write(page, "newer")
    assert page.read_text() == f"above\n{report.BEGIN}\n\nnewer\n\n{report.END}\nbelow\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no place for the table"):
        report.write(page, "new")


def test_every_goal_has_a_title():
    assert all(isinstance(each, Goal) and report.title(each) for each in GOALS)

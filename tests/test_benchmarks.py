"""The benchmark itself: a wrong contestant is refused, the fastest variant is the rival, medians decide."""

import time

import pytest
import torch

from benchmarks import equations, goals, package, report
from benchmarks.cases import CASES
from benchmarks.goals import GOALS, LAYERS, TOLD, Goal, goal
from benchmarks.machine import Machine
from benchmarks.race import Check, Mismatch
from benchmarks.records import Result, Run, Time
from benchmarks.timing import Contestant, Effort, Measured, measure

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
    slow = Contestant("torch", lambda: time.sleep(0.0055), "slow")
    fast = Contestant("torch", lambda: time.sleep(0.0045), "fast")
    halves = Contestant("ours", lambda: time.sleep(0.0045), work=2.0)
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
    assert line.rivals == ["torch (mkldnn off)"]


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


MACHINE = Machine("processor", 2, "system", "3.11", "2.13", "0.1", "abc", {"jax": "0.10"})


def test_the_page_says_where_rivals_win_worst_first():
    lines = [report.line(GRU, 1, [run(1.0, theirs)]) for theirs in (0.9, 0.5, 4.0)]
    odd = goal("width", "gru", (8, 128, 250), 0.9, against="torch")
    ours = [report.line(odd, 1, [])]
    page = report.page([MACHINE], "2026-01-01", 3, [*lines, *ours])
    assert "In 2 rows somebody else is faster" in page
    first, second = [each for each in page.splitlines() if each.startswith("- GRU")]
    assert first == "- GRU (8, 128, 128), training step, 1 thread: torch (mkldnn off) takes 0.50 of our time."
    assert "0.90 of our time" in second
    assert "In none of the rows" in report.defeats(lines[2:])
    assert "PyTorch 2.13; jax 0.10; Recurra 0.1 (abc)" in page


def test_a_bound_is_no_rival():
    part = goal("product", "gru", (8, 128, 128), 0.85, against="FMA rate")
    times = {"ours": Time(1.0, 1.0), "FMA rate": Time(0.9, 0.9)}
    line = report.line(part, 1, [Run(1, "default", 0, Result(*part.case, times=times))])
    assert line.median == 0.9
    assert "In none of the rows" in report.defeats([line])


def test_a_checkout_that_changed_meanwhile_is_told():
    other = Machine("processor", 2, "system", "3.11", "2.13", "0.1", "def")
    assert "Then, because it changed meanwhile, on processor" in report.page([MACHINE, other], "", 3, [])


def test_a_missing_rival_leaves_its_row_and_no_other():
    jax = goal("train", "gru", (8, 128, 128), 1.4, against="jax")
    times = {"ours": Time(1.0, 1.0), "torch": Time(9.0, 9.0)}
    runs = [Run(1, "default", 0, Result(*GRU.case, times=times, missing={"jax": "jax not installed (make rivals)"}))]
    assert report.line(jax, 1, runs).verdict == "not run: jax not installed (make rivals)"
    assert report.line(GRU, 1, runs).verdict == "reached"
    assert report.summary([report.line(each, 1, runs) for each in (GRU, jax)]) == "1 of 1 reached"


def test_a_lost_run_is_told_and_the_others_count():
    lost = Run(1, "keeping", 0, Result(*GRU.case, lost="the measuring process ended with status 1, see its messages"))
    line = report.line(GRU, 1, [run(1.0, 9.0), lost])
    assert (line.median, line.kept) == (9.0, [])
    assert line.verdict.startswith("reached; a run was lost: the measuring process ended with status 1")
    assert report.line(GRU, 1, [lost]).verdict == f"not run: {lost.result.lost}"
    assert report.summary([line]) == "1 of 1 reached, 1 lost a run"


def test_a_row_without_a_goal_is_told_and_not_counted():
    told = goal("train", "gru", (8, 128, 128), TOLD, 4.5)
    line = report.line(told, 1, [run(1.0, 0.5)])
    assert (line.verdict, report.summary([line])) == ("no goal", "0 of 0 reached")
    assert report.line(told, 2, [Run(2, "default", 0, run(1.0, 9.0).result)]).verdict == "reached"


def test_both_times_to_get_ready_are_told():
    race = goal("own", "gru", (8, 128, 128), 2.5, against="compile")
    times = {"ours": Time(1.0, 1.0), "compile": Time(3.0, 3.0, "torch.compile")}
    found = Result(*race.case, times=times, ready={"ours": 0.05, "compile": 61.0})
    assert "; ready in 61.0 s, we in 0.05 s |" in report.table([report.line(race, 1, [Run(1, "default", 0, found)])])


def test_the_published_cells_are_all_raced():
    assert [each.name for each in equations.PUBLISHED] == goals.PUBLISHED


def test_the_median_row_is_of_the_measurements_of_the_rows(monkeypatch):
    ratios = dict(zip(goals.PUBLISHED, [9, 1, 2, 3, 4, 6, 7, 8, 5, 10], strict=True))

    def measured(published, shape, effort, threads):
        times = {"ours": Time(2.0, 2.0), package.RIVAL: Time(2.0 * ratios[published.name], 1.0)}
        return Measured(times, differences={"ours": ratios[published.name] / 1e9})

    pytest.importorskip("torchrecurrent", reason="the package torchrecurrent is not installed")
    monkeypatch.setattr(package, "measured", measured)
    found = package.Package("ten cells", (1, 2, 3)).run(Effort())
    assert found.times[package.RIVAL].median / found.times["ours"].median == 5.5
    assert found.differences == {"ours": 1e-8}
    assert package.Package("NAS", (1, 2, 3)).run(Effort()).times[package.RIVAL].median == 16


def test_a_package_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    found = package.Package("ten cells", (1, 2, 3)).run(Effort())
    told = "torchrecurrent not installed (pip install -c constraints.txt torchrecurrent)"
    assert (found.times, found.missing) == ({}, {"torchrecurrent": told})


@pytest.mark.parametrize("published", equations.PUBLISHED, ids=str)
def test_a_published_cell_is_raced_with_equal_weights(published):
    pytest.importorskip("torchrecurrent", reason="the package torchrecurrent is not installed")
    race = package.race(published, (2, 3, 4))
    assert race.differences()["ours"] < 1e-6
    assert {each.name for each in race.contestants} == {"ours", package.RIVAL}

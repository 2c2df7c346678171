"""Rivals in processes of their own: right or refused, lost without losing others; measuring processes that fail."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks import children, remote
from benchmarks.cases import CASES
from benchmarks.children import measured
from benchmarks.goals import GOALS
from benchmarks.linear import log_space_scan
from benchmarks.precision import LOST
from benchmarks.race import Check, Mismatch, Race, abroad
from benchmarks.records import Result, Setting, Task
from benchmarks.remote import Rival
from benchmarks.rivals import Facts
from benchmarks.timing import Absent, Contestant, Effort

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")
SHORT = Effort(seconds=0.0, fewest=3, repeats=0)
HOME = Path(__file__).parent.parent
FAKE = """
import os, sys, time, types
sys.path.insert(0, {home!r})
from benchmarks.rivals import __main__ as rival
fake = sys.modules["benchmarks.rivals.fake"] = types.ModuleType("fake")

class Variant:
    def __init__(self, given, pause):
        self.given, self.pause = given, pause
    def values(self):
        print("what a package prints is no answer")
        return {{"outputs": 2 * self.given["input"]}}
    def call(self):
        time.sleep(self.pause)
        {call}

def variants(task, given):
    {start}
    return {{"slow": lambda: Variant(given, 0.02), "fast": lambda: Variant(given, 0.015)}}

fake.variants = variants
rival.MODULES["fake"] = "fake"
rival.main()
"""


def race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str = "", start: str = "", wanted: float = 2.0) -> Race:
    """Ours against a rival that doubles its input; call and start are lines in its process."""
    script = tmp_path / "rival.py"
    script.write_text(FAKE.format(home=str(HOME), call=call or "pass", start=start or "pass"))
    monkeypatch.setattr(remote, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setitem(remote.RIVALS, "fake", Facts(("slow", "fast")))
    rival = Rival(Task("fake", "lstm", (1, 1, 3), 1), lambda: {"input": torch.ones(3)})
    runners, checks = abroad("fake", rival, lambda: {"outputs": torch.full((3,), wanted)})
    return Race([Contestant("ours", lambda: None), *runners], checks)


def test_a_rival_has_its_turns_and_its_fastest_variant_counts(tmp_path, monkeypatch):
    found = race(tmp_path, monkeypatch).run(SHORT)
    assert found.times["fake"].label == "fast"
    assert 0.015 <= found.times["fake"].least < 0.1
    assert found.ready["fake"] >= 0.015 and "ours" in found.ready
    assert found.differences == {"slow": 0.0, "fast": 0.0} and not found.missing


def test_a_rival_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Mismatch, match=r"fake: outputs differs from the reference by 3.3e-01"):
        race(tmp_path, monkeypatch, wanted=3.0).run(SHORT)


@pytest.mark.parametrize(
    ("call", "start", "why"),
    [
        ("", "raise ImportError('no such thing')", "fake: ImportError: no such thing"),
        ("", "os._exit(3)", "fake ended with status 3, see its messages"),
        ("os._exit(4) if os.path.exists(sys.argv[1] + '/found fast.safetensors') else None", "", "ended with status 4"),
    ],
)
def test_a_rival_that_is_lost_loses_nobody_else(call, start, why, tmp_path, monkeypatch):
    found = race(tmp_path, monkeypatch, call, start).run(SHORT)
    assert why in found.missing["fake"]
    assert "ours" in found.times and "fake" not in found.times


def test_a_rival_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    found = race(tmp_path, monkeypatch, start="time.sleep(60)").run(SHORT)
    assert found.missing == {"fake": "fake gave no answer in 0 s"}


def test_a_package_that_is_not_installed_is_named_with_its_remedy(tmp_path, monkeypatch):
    contest = race(tmp_path, monkeypatch)
    monkeypatch.setitem(remote.RIVALS, "fake", Facts(("slow", "fast"), ("no_such_package",), "make rivals"))
    assert contest.run(SHORT).missing == {"fake": "no_such_package not installed (make rivals)"}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("kind", "rival"), [("train", "jax"), ("infer", "onnxruntime")])
def test_the_real_rivals_agree(kind, rival, cell):
    if not all(find_spec(package) for package in remote.RIVALS[rival].packages):
        pytest.skip(f"{rival} is not installed ({remote.RIVALS[rival].remedy})")
    contest = CASES[kind](cell, (3, 5, 4)).only({"ours", rival})
    assert isinstance(contest, Race)
    found = contest.run(SHORT)
    assert not found.missing
    assert len(found.differences) == 3 and max(found.differences.values()) < 1e-5


NO_RACE = ("prepare", "package", "memory", "thrift memory", "reading")  # ours alone is measured
RACED = {(goal.kind, goal.cell) for goal in GOALS if goal.kind not in NO_RACE}


@pytest.mark.parametrize(("kind", "cell"), sorted(RACED - {(k, c) for k, c in RACED if k in ("product", "pointwise")}))
def test_every_race_is_fair(kind, cell):
    """At a small size everybody in this process computes the same."""
    torch.manual_seed(0)
    try:
        contest = CASES[kind](cell, (2, 30, 6))
    except Absent as reason:
        pytest.skip(str(reason))
    contest = contest.only({"ours", "copy", "torch", "loop", "packed", "padded", "cell"})
    assert isinstance(contest, Race)
    found = contest.differences()  # raises Mismatch above what a precision may lose
    if kind.partition(" ")[2] not in LOST:
        assert all(size < 1e-5 for label, size in found.items() if label != "log-space scan")


def test_the_log_space_scan_is_the_recurrence():
    a, b = torch.rand(2, 20, 3, dtype=torch.float64)
    h, hs = torch.zeros(3, dtype=torch.float64), []
    for t in range(20):
        h = a[t] * h + b[t]
        hs.append(h)
    torch.testing.assert_close(log_space_scan(a.log(), b.log()), torch.stack(hs))


CHILD = """
import os, sys
sys.path.insert(0, {home!r})
import msgspec
from benchmarks.goals import GOALS
from benchmarks.machine import Machine
from benchmarks.records import Result, Setting
setting = msgspec.json.decode(sys.argv[1], type=Setting)
{early}
out = sys.stdout.buffer
out.write(msgspec.json.encode(Machine("", 1, os.environ.get("MALLOC_MMAP_MAX_", ""), "", "", "", "")) + b"\\n")
for goal in GOALS:
    if goal.id in setting.ids:
        if goal.cell == "elman":
            out.flush()
            os._exit(7)
        out.write(msgspec.json.encode(Result(*goal.case)) + b"\\n")
"""
IDS = [f"train/{cell}/1,128,128/ours:torch" for cell in ("gru", "elman", "lstm")]


def ran(tmp_path: Path, malloc: str = "default", early: str = "") -> tuple[list[Result], list[str]]:
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(home=str(HOME), early=early))
    found = list(measured(Setting(IDS, 1), malloc, (sys.executable, str(script))))
    results = [each for each in found if isinstance(each, Result)]
    return results, [each.system for each in found if not isinstance(each, Result)]


def test_a_measuring_process_that_ends_loses_only_its_case(tmp_path):
    results, _ = ran(tmp_path)
    lost = {result.cell: result.lost for result in results}
    assert lost == {"gru": "", "elman": "the measuring process ended with status 7, see its messages", "lstm": ""}


def test_a_measuring_process_that_cannot_begin_loses_its_rows_and_says_so(tmp_path):
    results, machines = ran(tmp_path, early="sys.exit(1)")
    assert [result.lost for result in results] == ["the measuring process ended with status 1, see its messages"] * 3
    assert not machines


@pytest.mark.parametrize("malloc", ["default", "keeping"])
def test_the_allocator_is_that_of_the_process(malloc, tmp_path):
    _, machines = ran(tmp_path, malloc)
    assert set(machines) == {children.KEEPING["MALLOC_MMAP_MAX_"] if malloc == "keeping" else ""}


def test_a_difference_that_is_only_told_refuses_nobody():
    far = Check("torch", lambda: {"outputs": torch.ones(2)}, lambda: {"outputs": torch.zeros(2)}, float("inf"), "scan")
    assert Race([], [far]).differences() == {"scan": 1.0}

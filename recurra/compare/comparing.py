"""compare(): every model trained on the same data with the same settings, one after another, and one table of them.

What is finished is written to `compare.json` in the folder of the comparison; the same call goes on from there.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from recurra import files
from recurra.compare.names import DEFAULT, SIMPLE, parsed, possible
from recurra.compare.page import page
from recurra.compare.result import Comparison, Entry, entry_of, ordered, simple_entries
from recurra.errors import FileError, InputError, TrainingError
from recurra.tasks.measure import Measure
from recurra.training.settings import check_task, settings
from recurra.training.setup import Setup
from recurra.training.start import SETUPS, guessed

RECORD = "compare.json"
PAGE = "compare.html"
_MOST_SEEDS = 100

Progress = Callable[[str], None]


class _Record(msgspec.Struct):
    """What a comparison has reached."""

    task: str
    data: dict[str, Any]
    settings: dict[str, Any]
    results: dict[str, dict[str, Any]] = {}  # by run: "lstm/seed-0"


def compare(
    data: Any,
    models: str | Sequence[str] | None = None,
    task: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seeds: int = 1,
    progress: Progress | None = None,
    **given: Any,
) -> Comparison:
    """Trains each model as train() would, in a process of its own, and puts them beside one another.

    models: names of cells, of encoders, of simple models; None takes a choice of them. out: the folder, in which each
    model has a run folder; by default `runs/compare-NAME-DATE-TIME`. seeds: runs of each model, with the seeds from
    `seed` on. progress: is told where it is. The settings hold for all models; what is left open is found for each.

    Figures are of the validation data. After Ctrl-C or a kill the same call with the same `out` goes on. Raises
    InputError before anything is trained for a model or a setting that cannot be; one that fails later is a row.
    """
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 1 <= seeds <= _MOST_SEEDS:
        raise InputError(f"seeds={seeds!r} cannot be used; give a whole number from 1 to {_MOST_SEEDS}.")
    if task is not None and task not in SETUPS:
        raise InputError(f"task={task!r} is unknown; this release has {', '.join(SETUPS)}.")
    kind = task or guessed(data)
    wanted = settings(**given)
    check_task(kind, wanted)
    setup = SETUPS[kind].of(data, wanted)
    names = list(DEFAULT) if models is None else parsed(models)
    chosen = _chosen(names, models is not None, kind, setup, given)
    folder = _folder(out, setup.name)
    place, record = _begun(folder, setup, kind, given)
    text = _text(setup, wanted)
    jobs = [
        (name, seed, {**given, **own, "seed": wanted.seed + seed})
        for name, own in chosen.items()
        for seed in range(seeds)
    ]
    _run_all(folder, record, jobs, {"data": place, "task": kind, "text": text}, progress or (lambda line: None))
    return _told(folder, record, setup.name, names, wanted.seed, seeds)


def _chosen(
    models: list[str], named: bool, kind: str, setup: Setup, given: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The models to train, and what makes each of them; of a choice that nobody named those that the task can have."""
    chosen = {}
    for name in models:
        if name in SIMPLE:
            continue
        try:
            chosen[name] = possible(name, kind, setup, given)
        except InputError:
            if named:
                raise
    if not chosen and not named:
        raise InputError(f"None of {', '.join(models)} can have these settings; name models that can, by models=…")
    return chosen


def _folder(out: str | os.PathLike[str] | None, name: str) -> Path:
    stem = re.sub(r"\W+", "-", Path(name).stem).strip("-") or "data"
    folder = Path(out) if out else Path("runs") / f"compare-{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.is_file():
        raise FileError(f"{folder} is a file; choose another out.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).exists():
        raise FileError(f"{folder} is not empty and holds no comparison (it has no {RECORD}); choose another out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {folder} cannot be made: {files.reason(error)}; choose another out.") from None
    return folder


def _begun(folder: Path, setup: Setup, kind: str, given: dict[str, Any]) -> tuple[str, _Record]:
    """Where the runs find the data, and what there is of the comparison already. InputError when that is another."""
    data = setup.record(folder)
    told = {"path": data.path, "sha256": data.sha256}
    new = _Record(kind, told, {name: value for name, value in given.items() if value is not None})
    path = folder / RECORD
    record = new
    if path.exists():
        try:
            record = msgspec.json.decode(files.read_file(path), type=_Record)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise FileError(f"{path}: a field is not as it must be: {error}; choose another out.") from None
        for what in ("task", "data", "settings"):
            now, then = getattr(new, what), getattr(record, what)
            if now != then:
                raise InputError(
                    f"{folder} holds a comparison whose {what} {'are' if what == 'settings' else 'is'} {_short(then)}, "
                    f"and here it is {_short(now)}; give the same, or choose another out."
                )
    copied = folder / data.path
    return str(copied.absolute()) if not Path(data.path).is_absolute() and copied.exists() else data.path, record


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]


def _text(setup: Setup, wanted: Any) -> str:
    """A text of median length, to time predictions with."""
    parts = setup.parts(wanted)
    texts = parts["validation"].texts if "validation" in parts else []
    return sorted(texts, key=len)[len(texts) // 2] if texts else ""


def _run_all(
    folder: Path,
    record: _Record,
    jobs: list[tuple[str, int, dict[str, Any]]],
    common: dict[str, Any],
    progress: Progress,
) -> None:
    """Each job that is not finished, in a process of its own; what it gave is written at once."""
    if not jobs and "simple" not in record.results:
        result = asked({**common, "given": record.settings, "out": None}, lambda line: progress(f"baselines: {line}"))
        record.results["simple"] = result
        files.replace_file(folder / RECORD, msgspec.json.encode(record))
    took: list[float] = []
    for number, (name, seed, given) in enumerate(jobs, 1):
        run = f"{name}/seed-{given['seed']}"
        if "value" in record.results.get(run, {}):
            continue
        left = sum(f"{n}/seed-{g['seed']}" not in record.results for n, _, g in jobs[number:])

        def told(line: str, number: int = number, name: str = name, seed: int = seed, left: int = left) -> None:
            more = (
                f", then {left} more" + (f" of about {sum(took) / len(took):.0f} s each" if took else "")
                if left
                else ""
            )
            progress(f"{name}, seed {seed} ({number} of {len(jobs)}): {line}{more}")

        begun = time.monotonic()
        try:
            result = asked({**common, "given": given, "out": str(folder / run)}, told)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Interrupted at {name}; the same command with `--out {folder}` goes on from there."
            ) from None
        took.append(time.monotonic() - begun)
        record.results[run] = {**result, "run": str(folder / run)}
        files.replace_file(folder / RECORD, msgspec.json.encode(record))


def asked(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """What a process gave; {"failed": why} when it gave nothing."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "recurra.compare.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C reaches this process alone, which hands it on once
        )
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            progress("beginning")
            for line in process.stdout:
                result = _heard(json.loads(line), progress) or result
            code = process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise
        if code == 130:
            raise KeyboardInterrupt
        complaints.seek(0)
        return result or {"failed": _why(code, complaints.read().strip())}


def _heard(event: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """What a line of a process says: where it is, or its result."""
    match event.pop("event"):
        case "step":
            progress(f"step {event['step']} of {event['steps']}, {event['left']:.0f} s left")
            return {}
        case "error":
            return {"failed": event["message"]}
    return event


def _stop(process: "subprocess.Popen[str]") -> None:
    """A process that is interrupted saves where it is; a second Ctrl-C does not wait for that."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate()
    except KeyboardInterrupt:
        process.kill()
        process.wait()


def _why(code: int, complaint: str) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed by signal 9, as the system does when memory runs out; give a smaller batch."
    said = complaint.splitlines()[-1] if complaint else "it said nothing"
    return f"its process ended with code {code}: {said}"


def _told(folder: Path, record: _Record, name: str, names: list[str], seed: int, seeds: int) -> Comparison:
    """The table and its page."""
    keys = {model: [f"{model}/seed-{seed + n}" for n in range(seeds)] for model in names}
    runs = {model: [record.results[key] for key in each] for model, each in keys.items() if each[0] in record.results}
    every = [run for each in runs.values() for run in each] + [record.results.get("simple", {})]
    done = [run for run in every if "measure" in run]
    if not done:
        why = next(run["failed"] for run in every if "failed" in run)
        raise TrainingError(f"None of {', '.join(names)} could be trained: {why}")
    measure = Measure(**done[0]["measure"])
    whole = next((each for each in runs.values() if all("measure" in run for run in each)), done[:1])
    entries = [entry_of(model, each) for model, each in runs.items()]
    entries += simple_entries([run["baselines"] for run in whole])
    for model in names:
        if model in SIMPLE and not any(SIMPLE[model] in entry.name for entry in entries):
            there = ", ".join(whole[0]["baselines"])
            entries.append(Entry(model, None, failed=f"the task {record.task} has no such model; it has {there}."))
    comparison = Comparison(name, record.task, measure, ordered(entries, measure), seeds, folder, record.settings)
    files.replace_file(folder / PAGE, page(comparison).encode())
    return comparison

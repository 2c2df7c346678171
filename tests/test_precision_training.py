"""recurra train --precision: the run, its folder, its model and the commands keep it."""

from pathlib import Path

import msgspec
import pytest
import torch
from checks import needs_machine

import recurra
from recurra import InputError, cli
from recurra.tasks.model import Model
from recurra.training.config import read_config
from recurra.training.settings import Settings
from recurra.unroll import precision, visits

pytestmark = needs_machine

SMALL = {"hidden": 8, "embedding": 4, "window": 8, "batch": 2, "steps": 4, "eval_interval": 4, "threads": 1}


def without(name: str) -> str:
    """What a processor without AMX says."""
    return "fp32-fast needs AMX, which this processor lacks; it has fp32, bf16" if name == "fp32-fast" else ""


def precisions(model: Model) -> set[str | None]:
    """What the recurrent layers of a model compute in."""
    with visits() as seen, torch.no_grad():
        model.network(torch.zeros(1, 1, dtype=torch.long))
    return {v.precision for v in seen}


def test_a_run_keeps_its_precision(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "run", precision="bf16", **SMALL)
    assert read_config(run.path).settings.precision == "bf16"
    assert precisions(run.model) == precisions(recurra.load(run.path)) == {"bf16"}
    assert "compute in bf16; the weights are kept in fp32" in (run.path / "last" / "README.md").read_text()
    longer = recurra.resume(run.path, steps=6)
    assert longer.settings.precision == "bf16" and precisions(longer.model) == {"bf16"}
    with pytest.raises(InputError, match=r"precision='fp32' cannot be changed in a run that has begun with 'bf16'"):
        recurra.resume(run.path, precision="fp32")
    assert precisions(recurra.load(run.path, precision="fp32")) == {None}  # as the weights are
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        recurra.load(run.path, precision="bf15")
    plain = recurra.train(text, out=tmp_path / "plain", **SMALL)
    assert precisions(plain.model) == {None} and "compute in" not in (plain.path / "last" / "README.md").read_text()
    twin = recurra.train(text, out=tmp_path / "fp64", precision="fp64", **SMALL)
    a, b, c = (r.history[-1].loss for r in (plain, twin, run))
    assert a is not None and b is not None and c is not None
    assert abs(a - b) < 1e-4 and 0 < abs(a - c) < 1e-2


def test_the_commands(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recurra.train(text, out=tmp_path / "run", precision="bf16", **SMALL)
    monkeypatch.setattr(precision, "lacking", without)
    told = (
        "recurra: precision is 'fp32-fast', but fp32-fast needs AMX, which this processor lacks; it has fp32, bf16. "
        "Choose one of these.\n"
    )
    for command in (
        ["train", str(text), "--out", str(tmp_path / "other"), "--precision", "fp32-fast"],
        ["eval", str(run.path), str(text), "--precision", "fp32-fast"],
        ["generate", str(run.path), "--precision", "fp32-fast"],
    ):
        assert cli.run(command) == 2
        assert capsys.readouterr().err.endswith(told)
    assert not (tmp_path / "other").exists()
    assert cli.run(["train", str(text), "--precision", "bf15"]) == 2
    assert 'Did you mean "bf16"' in capsys.readouterr().err
    assert cli.run(["train", str(text), "--precision", "int8"]) == 2
    assert 'Choose from: "fp32", "fp64", "fp32-fast", "bf16"' in capsys.readouterr().err


@pytest.mark.skipif(bool(precision.lacking("int8")), reason=precision.lacking("int8"))
def test_the_commands_print_the_error_of_int8(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = recurra.train(text, out=tmp_path / "run", **SMALL)
    sentence = "The recurrent layers compute in int8: their outputs are up to 0.0"
    assert cli.run(["eval", str(run.path), str(text), "--precision", "int8"]) == 0
    assert sentence in capsys.readouterr().out
    assert cli.run(["generate", str(run.path), "--precision", "int8", "--length", "5"]) == 0
    assert sentence in capsys.readouterr().err


def test_folders_of_earlier_releases_were_trained_in_fp32(trained: "recurra.Run", tmp_path: Path) -> None:
    model = recurra.load(trained.path)
    settings = dict(model.settings)  # type: ignore[attr-defined]
    settings.pop("precision")
    model.settings = settings  # type: ignore[attr-defined]
    model.save(tmp_path / "old")
    assert precisions(recurra.load(tmp_path / "old")) == {None}
    model.settings = {**settings, "precision": "half"}  # type: ignore[attr-defined]
    model.save(tmp_path / "odd")
    with pytest.raises(recurra.FileError, match=r"field 'settings\.precision' is 'half', and there are fp32"):
        recurra.load(tmp_path / "odd")
    assert msgspec.to_builtins(Settings())["precision"] == "fp32"

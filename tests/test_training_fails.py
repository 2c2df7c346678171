"""What training refuses, and what it keeps when something goes wrong."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import TINY, Recorder, contents, log

import recurra
from recurra.errors import DataError, FileError, InputError, TrainingError
from recurra.tasks.language_model import LanguageModel
from recurra.training.run import Run


def spoil(name: str) -> Callable[[Run], None]:
    def do(run: Run) -> None:
        with torch.no_grad():
            run.model.network.get_parameter(name).fill_(torch.nan)

    return do


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("embedding.weight", r"layer 'embedding' \(Embedding\)"),
        ("recurrent.weight_hh_l0", r"layer 'recurrent' \(LSTM\)"),
        ("output.bias", r"layer 'output' \(Linear\)"),
    ],
)
def test_nan_stops_within_one_step_and_names_the_layer(text: Path, tmp_path: Path, weight: str, layer: str) -> None:
    seen = Recorder(6, spoil(weight))
    with pytest.raises(TrainingError, match=f"The loss became nan at step 7: .*{layer}") as caught:
        recurra.train(text, out=tmp_path / "run", observer=seen, **TINY)
    assert seen.events[-1] == "step 6"
    message = str(caught.value)
    assert f"The checkpoint of step 4 in {tmp_path / 'run' / 'last'} is whole" in message and "\n" not in message
    assert recurra.resume(tmp_path / "run").step == 12  # the last good checkpoint


def test_a_step_that_is_too_long_stops_it(text: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"(loss|gradient|Validation) .* learning_rate below 1e\+35 or with a clip below 1"
    ):
        recurra.train(text, out=tmp_path / "run", **{**TINY, "learning_rate": 1e35, "warmup": 0})
    assert math.isfinite(recurra.load(tmp_path / "run").evaluate(text).loss)


def test_a_weight_spoiled_at_a_validation_is_not_saved(text: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Validation gave nan bits per character at step 8: weight 'output\.bias'"):
        recurra.train(text, out=tmp_path / "run", observer=Recorder(8, spoil("output.bias")), **TINY)
    assert recurra.resume(tmp_path / "run").step == 12


def test_a_full_disk_keeps_the_checkpoint_and_gives_one_line(text: Path, tmp_path: Path, small_disk: Path) -> None:
    def fill(run: Run) -> None:
        with open(small_disk / "ballast", "wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
                file.flush()

    recurra.train(text, out=tmp_path / "whole", **TINY)
    folder = small_disk / "run"
    with pytest.raises(FileError, match="No space left on device") as caught:
        recurra.train(text, out=folder, observer=Recorder(6, fill), **TINY)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and "whole" in message
    assert isinstance(recurra.load(folder), LanguageModel)
    (small_disk / "ballast").unlink()
    recurra.resume(folder)
    assert contents(folder) == contents(tmp_path / "whole") and log(folder) == log(tmp_path / "whole")


@pytest.mark.parametrize("operation", ["fsync", "rename"])
def test_an_io_error_while_saving(text: Path, tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recurra.train(text, out=tmp_path / "whole", **TINY)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(5, "Input/output error")

    observer = Recorder(7, lambda run: monkeypatch.setattr(os, operation, refuse))
    with pytest.raises(FileError, match="Input/output error") as caught:
        recurra.train(text, out=tmp_path / "run", observer=observer, **TINY)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    recurra.resume(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole") and log(tmp_path / "run") == log(
        tmp_path / "whole"
    )


def test_an_out_folder_that_is_taken(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    with pytest.raises(FileError, match="already holds a run; `recurra resume"):
        recurra.train(text, out=run.path, **TINY)
    with pytest.raises(FileError, match="exists and is not empty"):
        recurra.train(text, out=tmp_path, **TINY)


def test_an_out_that_is_a_file(text: Path) -> None:
    with pytest.raises(FileError, match=r"text\.txt is a file; choose another out\.$"):
        recurra.train(text, out=text, **TINY)


def test_resume_refuses_what_is_not_the_run_any_more(text: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a run folder: it has no config"):
        recurra.resume(tmp_path)
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    with pytest.raises(InputError, match=r"hidden=9 cannot be changed in a run that has begun with 8"):
        recurra.resume(run.path, hidden=9)
    with pytest.raises(InputError, match="no setting hiden; did you mean hidden"):
        recurra.resume(run.path, hiden=9)
    config = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text(config.replace("hidden = 8", "hidden = 9"))
    with pytest.raises(FileError, match=r"config\.toml: field 'hidden' is 9 but the checkpoint was trained with 8"):
        recurra.resume(run.path)
    (run.path / "config.toml").write_text(config.replace("hidden = 8", "hidden = 'many'"))
    with pytest.raises(FileError, match=r"config\.toml: a field .*settings\.hidden"):
        recurra.resume(run.path)
    (run.path / "config.toml").write_text(config)
    text.write_text(text.read_text() + "more")
    with pytest.raises(FileError, match=r"has changed since the run began: .* field 'data\.sha256'"):
        recurra.resume(run.path)
    text.unlink()
    with pytest.raises(DataError, match="does not exist"):
        recurra.resume(run.path)


def test_metrics_that_lost_rows_are_refused(text: Path, tmp_path: Path) -> None:
    run = recurra.train(text, out=tmp_path / "run", **TINY)
    (run.path / "metrics.csv").write_text("step\n")
    with pytest.raises(FileError, match=r"metrics\.csv has 5 bytes but field 'metrics_bytes' of the checkpoint says"):
        recurra.resume(run.path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lerning_rate": 1}, "There is no setting lerning_rate; did you mean learning_rate?"),
        ({"hidden": 0}, "hidden=0 cannot be used; give a whole number from 1 to 1000000."),
        ({"hidden": 1.5}, "hidden=1.5 cannot be used; give a whole number from 1 to 1000000."),
        ({"dropout": 1.0}, "dropout=1.0 cannot be used; give a number of at least 0 and below 1."),
        (
            {"variational": True, "dropout": 0.0},
            "variational=True says nothing to dropout=0; give a dropout above 0, or leave it out.",
        ),
        ({"steps": "many"}, "steps='many' cannot be used; give a whole number of at least 1."),
        ({"learning_rate": 0}, "learning_rate=0 cannot be used; give a number above 0."),
        ({"schedule": "linear"}, "schedule='linear' cannot be used; give cosine or constant."),
        ({"seed": -1}, "seed=-1 cannot be used; give a whole number from 0 to 2**64 - 1."),
        ({"seed": 2**64}, f"seed={2**64} cannot be used; give a whole number from 0 to 2**64 - 1."),
        ({"steps": 5, "epochs": 2}, "steps=5 and epochs=2 both say how long to train; give one of them."),
        (
            {"observer": 3},
            "observer is an int, and a run shows itself to a recurra.training.Observer; give one of a class",
        ),
        ({"observer": Recorder}, "observer is a type, and a run shows itself to a recurra.training.Observer; give one"),
        ({"task": "poetry"}, "task='poetry' is unknown; this release has language, classification, tagging."),
    ],
)
def test_wrong_settings(text: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recurra.train(text, out=tmp_path / "run", **given)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_what_is_no_path_and_who_is_no_observer(text: Path) -> None:
    with pytest.raises(InputError, match=r"^data is an int; give the path of a text file, .*, or a Text\.$"):
        recurra.train(3)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"^out is an int; give the path of the run folder to make, or leave out away\."
    ):
        recurra.train(text, out=3, **TINY)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^observer is an int, and a run shows itself to"):
        recurra.resume("no-run", observer=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^The path of the model is an int; give the path of its folder\.$"):
        recurra.resume(3)  # type: ignore[arg-type]


def test_a_text_shorter_than_one_window(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("abcdefghij" * 4)
    with pytest.raises(
        DataError, match=r"has 36 characters but one window needs 65 .* give a longer text or window=35"
    ):
        recurra.train(tmp_path / "short.txt", out=tmp_path / "run", window=64)
    assert not (tmp_path / "run").exists()
    run = recurra.train(tmp_path / "short.txt", out=tmp_path / "run", steps=2, hidden=4)  # found from the text, it fits
    assert run.step == 2

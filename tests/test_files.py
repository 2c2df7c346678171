"""Folders are written whole or not at all, and read only as they were written."""

import errno
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra import files
from recurra.errors import FileError
from recurra.training.config import toml

CONTENTS = {"a.bin": b"\x00\x01\x02", "b.txt": "ä\n".encode()}


def write(path: Path, number: int) -> None:
    files.write_folder(path, {"number": number}, {**CONTENTS, "n.txt": str(number).encode()})


def number_of(path: Path) -> int:
    folder = files.read_folder(path)
    assert folder.files["n.txt"] == str(folder.record["number"]).encode()
    return int(folder.files["n.txt"])


def seal(record: dict[str, Any]) -> bytes:
    """A manifest with a right digest: what a person could make who wants to cheat the reader."""
    head = json.dumps({**record, "digest": ""}, indent=2).encode()
    head = head[: head.rindex(b'"digest"')]
    return head + b'"digest": "' + files.digest(head).encode() + b'"\n}\n'


def refusal(call: Callable[[], Any]) -> str | None:
    """What the FileError of a call says; None when it goes through."""
    try:
        call()
    except FileError as error:
        return str(error)
    return None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    folder = files.read_folder(tmp_path / "m")
    assert folder.record["format"] == files.FORMAT
    assert {name: folder.files[name] for name in CONTENTS} == CONTENTS
    write(tmp_path / "m", 2)
    assert number_of(tmp_path / "m") == 2
    assert os.listdir(tmp_path) == ["m"]  # neither temporary nor former folders stay


def test_every_byte_and_name_is_on_the_disk_before_the_folder_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(handle: int) -> None:
        done.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), tmp_path))
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        done.append(f"{old.name} -> {new.name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    write(tmp_path / "m", 1)
    names = [*CONTENTS, "n.txt", files.MANIFEST]
    assert done == [*(f".m.new/{name}" for name in names), ".m.new", ".m.new -> m", "."]


def test_seal_makes_what_files_writes(tmp_path: Path) -> None:
    """The tests of sealed manifests stand on this: an unchanged record, sealed again, is accepted."""
    write(tmp_path / "m", 1)
    manifest = tmp_path / "m" / files.MANIFEST
    record = json.loads(manifest.read_bytes())
    del record["digest"]
    manifest.write_bytes(seal(record))
    assert number_of(tmp_path / "m") == 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], list[str]]]:
    """Makes the n-th call of the operations that change a disk fail as on a full one; lists all calls."""

    def arm(fail_at: int | None) -> list[str]:
        calls: list[str] = []

        def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                if len(calls) - 1 == fail_at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **kwargs)

            return call

        for name in ("fsync", "rename", "mkdir", "open"):
            monkeypatch.setattr(os, name, wrapped(name, real[name]))
        return calls

    real = {name: getattr(os, name) for name in ("fsync", "rename", "mkdir", "open")}
    yield arm
    for name, function in real.items():
        monkeypatch.setattr(os, name, function)


def test_a_failure_at_any_operation_leaves_one_whole_folder(
    tmp_path: Path, failing: Callable[[int | None], list[str]]
) -> None:
    write(tmp_path / "m", 1)
    calls = failing(None)
    write(tmp_path / "m", 2)
    total = len(calls)
    assert {"fsync", "rename", "mkdir"} <= set(calls)
    for n in range(total):
        failing(None)
        write(tmp_path / "m", 1)
        failing(n)
        message = refusal(lambda: write(tmp_path / "m", 2))
        failing(None)
        if message is None:  # only clearing away the former folder failed
            assert number_of(tmp_path / "m") == 2
        else:
            assert re.search(r"could not be saved: No space left on device.*\.$", message)
            assert number_of(tmp_path / "m") == 1 or n > calls.index("rename") + 1
        write(tmp_path / "m", 3)
        assert number_of(tmp_path / "m") == 3


def test_a_kill_between_the_renames_is_made_good(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    write(tmp_path / ".m.new", 2)
    os.rename(tmp_path / "m", tmp_path / ".m.old")
    assert number_of(tmp_path / "m") == 1  # readers know the folder under its other name
    assert files.is_folder(tmp_path / "m")
    write(tmp_path / "m", 3)
    assert number_of(tmp_path / "m") == 3
    assert os.listdir(tmp_path) == ["m"]


def test_a_folder_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileError, match="is not a model folder"):
        write(tmp_path, 1)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_keeps_the_folder_of_before(small_disk: Path) -> None:
    write(small_disk / "m", 1)
    with pytest.raises(FileError, match="No space left on device; the one saved before is still whole") as caught:
        files.write_folder(small_disk / "m", {"number": 2}, {"big": bytes(600_000)})
    assert "\n" not in str(caught.value)
    assert number_of(small_disk / "m") == 1
    assert os.listdir(small_disk) == ["m"]  # the half-written folder is gone, so that there is room again


def test_a_later_format_is_one_sentence_with_both_values_and_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    manifest = tmp_path / "m" / files.MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"format": 1', b'"format": 7'))
    with pytest.raises(FileError) as caught:
        files.read_folder(tmp_path / "m")
    assert str(caught.value) == (
        f"{manifest}: field 'format' is 7 but this release reads formats up to 1; upgrade Recurra "
        "(pip install --upgrade recurra) or save the model again with this release."
    )


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", None, True])
def test_a_wrong_format_number(tmp_path: Path, number: Any) -> None:
    write(tmp_path / "m", 1)
    manifest = tmp_path / "m" / files.MANIFEST
    record = json.loads(manifest.read_bytes())
    del record["digest"]
    manifest.write_bytes(seal({**record, "format": number}))
    with pytest.raises(FileError, match="field 'format'"):
        files.read_folder(tmp_path / "m")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/x", "", ".", "..", "model.json", "a\\b", "a\0b"])
def test_names_that_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "m", 1)
    (tmp_path / "secret").write_text("x")
    manifest = tmp_path / "m" / files.MANIFEST
    record = json.loads(manifest.read_bytes())
    del record["digest"]
    record["files"][name] = {"bytes": 1, "sha256": files.digest(b"x")}
    manifest.write_bytes(seal(record))
    with pytest.raises(FileError, match="field 'files'"):
        files.read_folder(tmp_path / "m")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    (tmp_path / "m" / "a.bin").unlink()
    with pytest.raises(FileError, match=r"a\.bin is missing but field files\['a\.bin'\]"):
        files.read_folder(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(FileError, match="does not exist"):
        files.read_folder(tmp_path / "m")


def test_tensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(3, 5).t(), "i": torch.arange(4), "nan": torch.tensor([float("nan"), -0.0])}
    files.write_folder(tmp_path / "m", {}, {"t.safetensors": files.pack(tensors)})
    back = files.unpack(files.read_folder(tmp_path / "m"), "t.safetensors")
    assert back.keys() == tensors.keys()
    assert all(files.pack({"": back[n]}) == files.pack({"": tensors[n]}) for n in tensors)


SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
)
NAMES = st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True)


@given(st.dictionaries(NAMES, SCALARS | st.none() | st.dictionaries(NAMES, SCALARS | st.none())))
def test_toml_reads_back(record: dict[str, Any]) -> None:
    def without_none(table: dict[str, Any]) -> dict[str, Any]:
        return {k: without_none(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None}

    assert tomllib.loads(toml(record)) == without_none(record)

"""Model folders: written whole or not at all, verified byte by byte, and data only (no pickle; reading runs nothing).

A folder holds plain files and `model.json`, its manifest. The manifest carries a format number, the writer's record,
the size and sha256 of every other file, and as its last field the sha256 of all its own bytes before that field, so
that any changed byte of any file is found before anything is built from it.

Writing puts everything into `.name.new`, syncs it, and renames: the folder of before stays until the new one is
complete. Between the two renames a kill leaves `.name.old`; readers and the next writer know it, so one complete
folder always exists.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from recurra.errors import FileError, InputError, kind_of

FORMAT = 1
MANIFEST = "model.json"
_TAIL = re.compile(rb'"digest": "([0-9a-f]{64})"\n\}\n')
_TAIL_BYTES = len(b'"digest": "') + 64 + len(b'"\n}\n')

_CHANGED = "it was cut or changed after it was saved"
_AGAIN = "take the folder again from where it came"

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Folder:
    """What a verified folder holds: the manifest's record and the bytes of every file it lists."""

    path: Path
    record: dict[str, object]
    files: dict[str, bytes]

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST


def folder_path(path: str | os.PathLike[str]) -> Path:
    """The path of a model's or a run's folder. FileError for an empty one, which would mean the working folder."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"The path of the model is {kind_of(path)}; give the path of its folder.")
    if not os.fspath(path):
        raise FileError("The path of the model is empty; give the path of its folder.")
    return Path(path)


def digest(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- write


def write_folder(path: Path, record: Mapping[str, object], files: Mapping[str, bytes]) -> None:
    """Replaces the folder `path` by one that holds `files` and the manifest; all or nothing.

    Raises FileError in one sentence when the disk is full or refuses; the folder of before is then still there.
    """
    new, old = _beside(path, "new"), _beside(path, "old")
    try:
        recover(path)
        _refuse_strangers(path)
        new.mkdir(parents=True)
        for name, data in files.items():
            write_file(new / name, data)
        write_file(new / MANIFEST, _manifest(record, files))
        _sync_folder(new)
        _exchange(new, path, old)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        kept = "; the one saved before is still whole" if path.exists() else ""
        raise FileError(
            f"{path} could not be saved: {reason(error)}{kept}. Make room or choose another place."
        ) from None
    shutil.rmtree(old, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Writes one file and waits until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """The same for a single file outside a folder of its own: temporary name, sync, rename."""
    new = _beside(path, "new")
    try:
        write_file(new, data)
        os.replace(new, path)
        _sync_folder(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise FileError(f"{path} could not be saved: {reason(error)}. Make room or choose another place.") from None


def reason(error: OSError) -> str:
    """The system's own words, without the number."""
    return error.strerror or str(error)


def _manifest(record: Mapping[str, object], files: Mapping[str, bytes]) -> bytes:
    listed = {name: {"bytes": len(data), "sha256": digest(data)} for name, data in files.items()}
    fields = {"format": FORMAT, **record, "files": listed, "digest": ""}
    text = msgspec.json.format(msgspec.json.encode(fields), indent=2)
    head = text[: text.rindex(b'"digest"')]
    return head + b'"digest": "' + digest(head).encode() + b'"\n}\n'


def _exchange(new: Path, path: Path, old: Path) -> None:
    """`new` becomes `path`; a failure in between puts the folder of before back."""
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        recover(path)
        raise
    _sync_folder(path.parent)


def recover(path: Path) -> None:
    """Ends what a kill interrupted: the folder of before comes back when no new one took its place; the rest goes."""
    old = _beside(path, "old")
    if old.exists() and not path.exists():
        os.rename(old, path)
    _remove(old)
    _remove(_beside(path, "new"))


def _refuse_strangers(path: Path) -> None:
    """A folder that is not ours is never replaced."""
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise FileError(f"{path} exists and is not a model folder (it has no {MANIFEST}); choose another place.")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _beside(path: Path, role: str) -> Path:
    return path.parent / f".{path.name}.{role}"


def _sync_folder(path: Path) -> None:
    """Makes the names in a folder durable, not only the bytes behind them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ----------------------------------------------------------------------------------------------------------------- read


def is_folder(path: Path) -> bool:
    """Whether `path` names a model folder (or one that a kill left under its other name)."""
    return (_present(path) / MANIFEST).is_file()


def read_folder(path: Path) -> Folder:
    """Reads and verifies a folder; FileError names file and field when one byte is not as it was written."""
    place = _present(path)
    manifest = place / MANIFEST
    record = _verified(manifest, read_file(manifest))
    listed = _listed(manifest, record)
    return Folder(path, record, {name: _read_listed(place / name, entry) for name, entry in listed.items()})


def _read_listed(path: Path, entry: "_Entry") -> bytes:
    """A file whose bytes are those that the manifest lists."""
    field = f"field files['{path.name}'] of {MANIFEST}"
    if not path.is_file():
        raise FileError(f"{path} is missing but {field} lists it; {_AGAIN}.")
    data = read_file(path)
    if len(data) != entry.bytes:
        raise FileError(f"{path} has {len(data)} bytes but {field} says {entry.bytes}: {_CHANGED}; {_AGAIN}.")
    if digest(data) != entry.sha256:
        found, said = digest(data)[:16], entry.sha256[:16]
        raise FileError(f"{path} has sha256 {found}… but {field} says {said}…: {_CHANGED}; {_AGAIN}.")
    return data


def read_file(path: Path) -> bytes:
    """The bytes of a file, or FileError in one sentence."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(
            f"{path} does not exist; a model is a run folder or a model folder that Recurra wrote."
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.") from None


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    bytes: int
    sha256: str


def _present(path: Path) -> Path:
    old = _beside(path, "old")
    return old if not path.exists() and old.exists() else path


def _verified(manifest: Path, raw: bytes) -> dict[str, object]:
    """The record of a manifest whose bytes are those that were written, in a format this release reads."""
    record = _parsed(raw)
    number = record.get("format") if record else None
    if isinstance(number, int) and number > FORMAT:
        raise FileError(
            f"{manifest}: field 'format' is {number} but this release reads formats up to {FORMAT}; upgrade Recurra "
            "(pip install --upgrade recurra) or save the model again with this release."
        )
    tail = _TAIL.fullmatch(raw[-_TAIL_BYTES:])
    if tail is None:
        raise FileError(f"{manifest}: field 'digest' is missing from its end: {_CHANGED}; {_AGAIN}.")
    said, found = tail[1].decode(), digest(raw[:-_TAIL_BYTES])
    if said != found:
        raise FileError(
            f"{manifest}: field 'digest' is {said[:16]}… but its bytes give {found[:16]}…: {_CHANGED}; {_AGAIN}."
        )
    if record is None or type(number) is not int or number < 1:
        raise FileError(f"{manifest}: field 'format' is {number!r} but a number from 1 to {FORMAT} is needed.")
    return record


def _parsed(raw: bytes) -> dict[str, object] | None:
    try:
        record = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _listed(manifest: Path, record: dict[str, object]) -> dict[str, _Entry]:
    """The files a manifest lists: plain names inside the folder, nothing that leads out of it."""
    try:
        listed = msgspec.convert(record.get("files"), dict[str, _Entry])
    except msgspec.ValidationError as error:
        raise FileError(f"{manifest}: field 'files' is not a list of names with bytes and sha256: {error}.") from None
    for name in listed:
        if name != os.path.basename(name) or name in ("", ".", "..", MANIFEST) or "\\" in name or "\0" in name:
            raise FileError(
                f"{manifest}: field 'files' names '{name}' but only plain names inside the folder are read."
            )
    return listed


def typed(folder: Folder, kind: type[Kind], name: str = MANIFEST) -> Kind:
    """The record of a folder (or another JSON file in it) as a struct; FileError names file, field and types."""
    try:
        return msgspec.convert(folder.record if name == MANIFEST else msgspec.json.decode(folder.files[name]), kind)
    except KeyError:
        raise FileError(f"{folder.manifest}: field 'files' does not list {name}, which is needed here.") from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FileError(f"{folder.path / name}: a field is not as it must be: {error}.") from None


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as the bytes of a safetensors file."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def unpack_bytes(data: bytes) -> dict[str, Tensor]:
    """What `pack` packed, in this run of the program."""
    return safetensors.torch.load(data)


def unpack(folder: Folder, name: str) -> dict[str, Tensor]:
    """The named tensors of a safetensors file in a verified folder."""
    if name not in folder.files:
        raise FileError(f"{folder.manifest}: field 'files' does not list {name}, which is needed here.")
    try:
        return safetensors.torch.load(folder.files[name])
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FileError(f"{folder.path / name}: its header is not that of a safetensors file: {error}.") from None


def check_shapes(folder: Folder, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], fields: str) -> None:
    """Raises FileError when the tensors of a folder are not those, by name, shape and dtype, that its fields need."""
    expected = {name: (tuple(t.shape), t.dtype) for name, t in wanted.items()}
    there = {name: (tuple(t.shape), t.dtype) for name, t in found.items()}
    for name in expected.keys() | there.keys():
        if expected.get(name) != there.get(name):
            raise FileError(
                f"{folder.path / 'model.safetensors'}: tensor '{name}' is {_shape(there.get(name))} but fields "
                f"{fields} of {MANIFEST} need {_shape(expected.get(name))}."
            )


def _shape(entry: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "missing" if entry is None else f"{entry[0]} {str(entry[1]).removeprefix('torch.')}"

"""2,000 damaged model folders: each an error that names file and field, never a crash, never a changed model."""

import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_files import refusal, seal

import recurra
from recurra import files
from recurra.data.symbols import Characters
from recurra.errors import FileError
from recurra.tasks.language import LanguageNetwork, Sizes
from recurra.tasks.language_model import DataCard, LanguageModel, Result

MUTATIONS = 2000
NAMES = ("model.json", "model.safetensors", "README.md")


def tiny_model(seed: int, cell: Any = "lstm") -> LanguageModel:
    torch.manual_seed(seed)
    vocabulary = Characters("\n abcdef\N{SNOWMAN}")
    sizes = Sizes(cell, 1, 5, 3)
    card = DataCard("some.txt", "0" * 64, 1000, 0.1)
    network = LanguageNetwork(sizes, len(vocabulary))
    return LanguageModel(
        network, sizes, vocabulary, {"hidden": 5, "seed": seed}, card, Result(10, 2.5, {"unigram": 3.0})
    )


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[dict[str, bytes], dict[str, bytes]]]:
    """The files of two models of the same shapes."""
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(seed) for seed in (1, 2)]
        for seed, folder in enumerate(folders):
            tiny_model(seed).save(folder)
        first, second = ({name: (folder / name).read_bytes() for name in NAMES} for folder in folders)
        yield first, second


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice([0, len(data) - 1, rng.randrange(len(data))])]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice([b"\0", b" ", b"\n", b"{", rng.randbytes(9), data[:40]]) + data[at:]


def remove(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 30) :]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(min(16, len(data) - at)) + data[at + 16 :]


def edit(data: bytes, rng: random.Random) -> bytes:
    """A field of the manifest changed by hand: another value, another type, gone, renamed."""
    record = json.loads(data)
    place, name = rng.choice(list(leaves(record)))
    change_field(place, name, rng)
    return json.dumps(record, indent=2).encode() + b"\n"


def leaves(record: Any) -> Iterator[tuple[dict[str, Any], str]]:
    for name, value in record.items():
        yield record, name
        if isinstance(value, dict):
            yield from leaves(value)


def change_field(place: dict[str, Any], name: str, rng: random.Random) -> None:
    value = place.pop(name)
    others = [None, [], {}, True, -1, 0, 1.5, 10**9, 2**70, "", "x", "rnn", "gru", {"x": 1}, value]
    if rng.random() < 0.2:
        place[name + "_"] = value
    elif rng.random() < 0.8:
        place[name] = rng.choice(others)


BYTES = (flip, flip, truncate, insert, remove, overwrite)


def damaged(models: tuple[dict[str, bytes], dict[str, bytes]], rng: random.Random) -> dict[str, bytes]:
    """One of the two models with one thing changed."""
    first, second = models
    model = dict(first)
    name = rng.choice(NAMES)
    kind = rng.choice(["bytes", "bytes", "bytes", "edit", "swap", "exchange", "missing"])
    if kind == "bytes":
        model[name] = rng.choice(BYTES)(model[name], rng)
    elif kind == "edit":
        model["model.json"] = edit(model["model.json"], rng)
    elif kind == "swap":  # a file of the other model
        model[name] = second[name]
    elif kind == "exchange":  # files under each other's names
        other = rng.choice([n for n in NAMES if n != name])
        model[name], model[other] = model[other], model[name]
    else:
        del model[name]
    return model


def write(folder: Path, model: dict[str, bytes]) -> None:
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    for name, data in model.items():
        (folder / name).write_bytes(data)


def test_every_damaged_model_is_refused_by_file_and_field(
    models: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    rng = random.Random(2026)
    done = 0
    while done < MUTATIONS:
        model = damaged(models, rng)
        if model == models[0]:
            continue  # a swap of equal files, a flip undone
        write(tmp_path, model)
        with pytest.raises(FileError) as caught:
            recurra.load(tmp_path)
        message = str(caught.value)
        assert str(tmp_path) in message and "\n" not in message
        assert re.search(r"(model\.json|model\.safetensors|README\.md)", message)
        assert "field" in message or "model.json" not in model, message
        done += 1


def test_the_undamaged_model_is_accepted(models: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path) -> None:
    for seed, model in enumerate(models):
        write(tmp_path, model)
        loaded = recurra.load(tmp_path)
        assert files.pack(loaded.network.state_dict()) == files.pack(tiny_model(seed).network.state_dict())


def test_sealed_manifests_with_wrong_fields_are_refused_or_change_nothing(
    models: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    """A manifest that a person edited and sealed anew: no crash, no memory filled, no weights in another network."""
    rng = random.Random(7)
    refused = 0
    for _ in range(300):
        record = json.loads(models[0]["model.json"])
        del record["digest"]
        change_field(*rng.choice(list(leaves(record))), rng)
        write(tmp_path, {**models[0], "model.json": seal(record)})
        message = refusal(lambda: recurra.load(tmp_path))
        if message is not None:
            assert "model.json" in message or "model.safetensors" in message
            refused += 1
        else:
            loaded = recurra.load(tmp_path)
            assert isinstance(loaded, LanguageModel)
            assert files.pack(loaded.network.state_dict()) == models[0]["model.safetensors"]
            assert msgspec_sizes(loaded) == msgspec_sizes(tiny_model(1)) | record["sizes"]
    assert refused > 100


def msgspec_sizes(model: LanguageModel) -> dict[str, Any]:
    return {name: getattr(model.sizes, name) for name in model.sizes.__struct_fields__}


def test_sealed_tensors_that_are_broken_are_refused_or_fit(
    models: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    """Bytes of the tensors changed and listed with their new digest: safetensors' header is all that can be wrong."""
    rng = random.Random(8)
    record = json.loads(models[0]["model.json"])
    del record["digest"]
    whole = models[0]["model.safetensors"]
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(300):
        change = rng.choice(BYTES)
        data = change(whole[:header], rng) + whole[header:] if rng.random() < 0.7 else change(whole, rng)
        record["files"]["model.safetensors"] = {"bytes": len(data), "sha256": files.digest(data)}
        write(tmp_path, {**models[0], "model.safetensors": data, "model.json": seal(record)})
        message = refusal(lambda: recurra.load(tmp_path))
        if message is not None:
            assert "model.safetensors" in message
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_sizes_that_no_memory_holds_are_refused_at_once(cell: str, tmp_path: Path) -> None:
    tiny_model(1, cell).save(tmp_path / "m")
    manifest = tmp_path / "m" / "model.json"
    for field, value in (("hidden", 10**12), ("hidden", 6), ("embedding", 10**15), ("embedding", 0), ("layers", 900)):
        record = json.loads(manifest.read_bytes())
        record["sizes"][field] = value
        shutil.copytree(tmp_path / "m", tmp_path / "x", dirs_exist_ok=True)
        del record["digest"]
        (tmp_path / "x" / "model.json").write_bytes(seal(record))
        with pytest.raises(FileError, match="sizes"):
            recurra.load(tmp_path / "x")

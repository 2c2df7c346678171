"""A precision where others run the step, inside the compilers, and where there is none: what is told."""

import copy
from typing import Any

import pytest
import torch
from checks import needs_machine, weighed
from precisions import BY_NAME, Looking, fused, named, off
from torch.nn.utils.rnn import pack_padded_sequence

import recurra
from recurra import InputError, Recurrent, Session, StrictError, cells, explain, scan, strict
from recurra.unroll import operator
from recurra.unroll import precision as precisions_of_unroll

pytestmark = needs_machine


@pytest.mark.parametrize(
    ("name", "told"),
    [("bf16", "; bf16 is PyTorch's autocast there"), ("fp32-fast", "; fp32-fast is plain fp32 there"), ("fp64", "")],
)
def test_where_the_machine_does_not_run(name: str, told: str) -> None:
    layer = Recurrent(Looking(3, 4), precision=name)
    x = torch.randn(5, 2, 3, requires_grad=True)
    exact = scan(copy.deepcopy(layer.cell).double(), x.double())[0]
    visit = explain(layer, x).visits[0]
    assert visit.executor == "scan" and visit.reason.endswith(told) and (told or ";" not in visit.reason)
    y, h = layer(x)
    (d,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype is h.dtype is d.dtype is torch.float32
    assert off(y, exact) <= BY_NAME[name].output or (name == "fp64" and off(y, exact) < 1e-7)
    packed = layer(pack_padded_sequence(x, [5, 2]))[0].data
    assert packed.dtype is torch.float32
    with strict(), pytest.raises(StrictError, match="would run on scan"):
        layer(x)


# ---- the compilers


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("name", ["bf16", "fp64"])
@pytest.mark.parametrize("make", [lambda: recurra.GRU(3, 4), lambda: Recurrent(cells.LSTM(3, 4))])
def test_compiled_and_exported(make: Any, name: str) -> None:
    layer = named(make(), name)
    x = torch.randn(5, 2, 3, requires_grad=True)
    for one in (x, torch.randn(7, 3, 3, requires_grad=True)):
        y, expected = fused(layer)(one)[0], layer(one)[0]
        assert torch.equal(y, expected)
        wanted = [one, *layer.parameters()]
        for a, b in zip(*(torch.autograd.grad(weighed(t), wanted) for t in (y, expected)), strict=True):
            assert off(a, b) < 1e-6
    with torch.no_grad():
        program = torch.export.export(layer, (x.detach(),))
        assert torch.equal(program.module()(x.detach())[0], layer(x)[0])


def test_an_exported_program_says_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = recurra.GRU(3, 5, precision="bf16"), torch.randn(4, 2, 3)
    with torch.no_grad():
        program = torch.export.export(layer, (x,)).module()
        monkeypatch.setattr(precisions_of_unroll, "lacking", without)
        operator._loaded.cache_clear()
        with pytest.raises(InputError) as told:
            program(x)
    assert str(told.value) == (
        "This program was written for 'bf16', and bf16 needs AMX, which this processor lacks; it has fp32, fp64. "
        "Export it in one of these."
    )
    operator._loaded.cache_clear()


# ---- messages


def without(name: str) -> str:
    """What a processor with nothing but fp32 and fp64 says of the others."""
    return "" if name in ("fp32", "fp64") else f"{name} needs AMX, which this processor lacks; it has fp32, fp64"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bf61", "precision is 'bf61', which there is not; did you mean 'bf16'?"),
        ("BF16", "precision is 'BF16', which there is not; did you mean 'bf16'?"),
        (
            "half",
            "precision is 'half', which there is not; give fp32, fp64, fp32-fast, bf16 or int8, or None for that of "
            "the weights.",
        ),
        (
            torch.bfloat16,
            "precision is a dtype, but is a name; give fp32, fp64, fp32-fast, bf16 or int8, or None for that of the "
            "weights.",
        ),
    ],
)
def test_names_that_there_are_not(name: Any, told: str) -> None:
    cell, x = cells.GRU(3, 4), torch.randn(2, 1, 3)
    layer = recurra.GRU(3, 4)
    layer.precision = name
    for call in (
        lambda: recurra.LSTM(3, 4, precision=name),
        lambda: Recurrent(cell, precision=name),
        lambda: Session(recurra.LSTM(3, 4), precision=name),
        lambda: recurra.unroll(cell, x, precision=name),
        lambda: layer(x),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == told


def test_what_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions_of_unroll, "lacking", without)
    layer, x = recurra.LSTM(3, 6, precision="fp32-fast"), torch.randn(2, 1, 3)
    for call in (
        lambda: layer(x),
        lambda: Session(layer).step(x[0]),
        lambda: recurra.train("demo", precision="fp32-fast"),
        lambda: precisions_of_unroll.check_here("fp32-fast"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == (
            "precision is 'fp32-fast', but fp32-fast needs AMX, which this processor lacks; it has fp32, fp64. "
            "Choose one of these."
        )
    assert Session(layer, precision="fp32").step(x[0]).shape == (1, 6)  # the remedy


def test_tensors_that_do_not_fit_are_told_as_ever() -> None:
    for name in ("fp32", "fp64", "bf16"):
        for x, told in ((torch.randn(2, 1, 3).double(), "x has the dtype torch.float64"), (5, "x is an int")):
            with pytest.raises(InputError, match=told):
                Recurrent(cells.LSTM(3, 4), precision=name)(x)
        with pytest.raises(InputError, match="x has the shape"):
            recurra.unroll(cells.LSTM(3, 4), torch.randn(2, 1, 4), precision=name)

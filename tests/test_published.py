"""accelerate on a model that others published: `python -m benchmarks.published` times it, this holds its numbers."""

import pytest
import torch
from torch import nn

import recurra
from benchmarks import published

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")


@pytest.fixture
def models() -> tuple[nn.Module, nn.Module]:
    theirs, ours = published.encoder(), published.encoder()
    if theirs is None or ours is None:
        pytest.skip(f"the package {published.PACKAGE} is not installed: {published.INSTALL}")
    recurra.accelerate(ours)
    return theirs, ours


@pytest.mark.parametrize("training", [False, True], ids=["embedding", "training step"])
def test_a_published_model_gives_the_same(models: tuple[nn.Module, nn.Module], training: bool) -> None:
    """In strict mode, so ours is an error where it falls back."""
    assert published.race(*models, batch=2, training=training).differences()["ours"] <= 1e-5


def test_its_own_way_of_loading_goes_on(models: tuple[nn.Module, nn.Module]) -> None:
    theirs, ours = models
    assert type(ours.lstm) is recurra.LSTM and type(theirs.lstm) is nn.LSTM
    with torch.no_grad():
        theirs.lstm.weight_hh_l1.mul_(0.9)
    ours.load_state_dict(theirs.state_dict())
    assert published.race(theirs, ours, batch=1, training=False).differences()["ours"] <= 1e-5

"""python -m benchmarks.published: accelerate on a published model, right first, then how fast.

The model is the speaker encoder of Resemblyzer (https://pypi.org/project/Resemblyzer/, Apache-2.0): three LSTM layers
of 256 over mel spectrograms, trained, its weights inside the wheel. `pip install --no-deps resemblyzer` is enough: what
its audio part needs besides (librosa, webrtcvad) is not loaded, for the encoder reads spectrograms.
"""

import importlib
import importlib.util
import sys
from functools import partial
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor, nn

import recurra
from benchmarks.machine import processor
from benchmarks.race import Check, Race, Values, either
from benchmarks.timing import Contestant, Effort

PACKAGE = "resemblyzer"
BATCHES = (1, 8, 32)  # partial utterances of 1.6 seconds each
FRAMES, CHANNELS = 160, 40
INSTALL = "pip install --no-deps resemblyzer"


def encoder() -> nn.Module | None:
    """The encoder with its published weights; None when the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        return None
    package, audio = ModuleType(PACKAGE), ModuleType(f"{PACKAGE}.audio")
    package.__path__ = list(spec.submodule_search_locations or ())
    with patch.dict(sys.modules, {PACKAGE: package, audio.__name__: audio}):
        model: nn.Module = importlib.import_module(f"{PACKAGE}.voice_encoder").VoiceEncoder("cpu", verbose=False)
    return model.eval()


def spectrograms(batch: int) -> Tensor:
    """(B, T, channels) as large as those of speech, which are small and never negative."""
    numbers = torch.Generator().manual_seed(batch)
    return torch.rand(batch, FRAMES, CHANNELS, generator=numbers).pow(4)


def race(theirs: nn.Module, ours: nn.Module, batch: int, training: bool) -> Race:
    """Embeddings of a batch, or also the gradients of all weights."""
    x = spectrograms(batch)

    def run(model: nn.Module) -> Values:
        y = model(x)
        if not training:
            return {"embedding": y}
        gradients = torch.autograd.grad(y[:, ::2].sum(), list(model.parameters()), allow_unused=True)
        named = zip((name for name, _ in model.named_parameters()), gradients, strict=True)
        return {"embedding": y.detach()} | {name: g for name, g in named if g is not None}

    mine, rival = partial(run, ours), partial(run, theirs)
    return Race(
        [Contestant("ours", mine, grad=training), *either("torch", rival, grad=training)],
        [Check("ours", mine, rival)],
    )


def main() -> int:
    theirs, ours = encoder(), encoder()
    if theirs is None or ours is None:
        print(f"The package {PACKAGE} is not installed: {INSTALL}")
        return 2
    recurra.accelerate(ours)
    print(f"{processor()}; PyTorch {torch.__version__}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for training in (False, True):
            for batch in BATCHES:
                measured = race(theirs, ours, batch, training).run(Effort())
                difference = measured.differences["ours"]
                mine, rival = measured.times["ours"], measured.times["torch"]
                what = "training step" if training else "embedding"
                print(
                    f"{threads} thread{'s' if threads > 1 else ' '} {what:13} {batch:2} x {FRAMES} frames: "
                    f"torch {1e3 * rival.median:7.2f} ms ({rival.label}), ours {1e3 * mine.median:7.2f} ms, "
                    f"{rival.median / mine.median:.2f} times as fast, largest difference {difference:.0e}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())

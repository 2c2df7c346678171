"""Encoders by name, from the sizes that a model folder keeps. All have one interface: see `encoder.py`."""

from typing import Annotated, Literal, assert_never

import msgspec
from msgspec import Meta

from recurra.cells.by_name import NAMES
from recurra.tasks.attention import TransformerEncoder
from recurra.tasks.convolution import ConvolutionEncoder
from recurra.tasks.encoder import ActivationName, Encoder, NormalisationName
from recurra.tasks.perceptron import BagEncoder, Perceptron, PerceptronEncoder
from recurra.tasks.recurrent import RecurrentEncoder

ENCODERS = ("recurrent", "bag", "mlp", "cnn", "transformer")
EncoderName = Literal["recurrent", "bag", "mlp", "cnn", "transformer"]

# The settings of an encoder that not every encoder has a use for.
USES: dict[str, tuple[EncoderName, ...]] = {
    "cell": ("recurrent",),
    "bidirectional": ("recurrent",),
    "residual": ("recurrent",),
    "forget_bias": ("recurrent",),
    "activation": ("recurrent", "bag", "mlp", "cnn", "transformer"),  # of recurrent cells those that have a choice
    "normalisation": ("bag", "mlp", "cnn"),
}


class EncoderSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What fixes an encoder and the shapes of its weights. Folders of earlier releases lack what has a default."""

    encoder: EncoderName
    cell: str | None = None  # of a recurrent encoder
    bidirectional: bool = False
    layers: Annotated[int, Meta(ge=1, le=1000)]
    hidden: Annotated[int, Meta(ge=1)]
    residual: bool = False
    activation: ActivationName | None = None  # None: ReLU, of a cell its own
    normalisation: NormalisationName = "none"


def encoder_of(sizes: EncoderSizes, width: int, dropout: float, forget_bias: float = 1.0) -> Encoder:
    """The encoder of these sizes for vectors of a width."""
    activation, normalisation = sizes.activation or "relu", sizes.normalisation
    match sizes.encoder:
        case "recurrent":
            assert sizes.cell is not None
            return RecurrentEncoder(
                sizes.cell, width, sizes.hidden, sizes.layers, sizes.bidirectional, dropout, sizes.residual,
                forget_bias, sizes.activation,
            )  # fmt: skip
        case "bag" | "mlp" as kind:
            made = Perceptron(width, sizes.hidden, sizes.layers, dropout, activation, normalisation)
            return (BagEncoder if kind == "bag" else PerceptronEncoder)(made, sizes.hidden)
        case "cnn":
            return ConvolutionEncoder(width, sizes.hidden, sizes.layers, dropout, activation, normalisation)
        case "transformer":
            return TransformerEncoder(width, sizes.hidden, sizes.layers, dropout, activation)
        case never:
            assert_never(never)


def described(sizes: EncoderSizes) -> str:
    """An encoder in a few words: "2 bidirectional LSTM layers of 128 units"."""
    cell = (sizes.cell or "").upper() if sizes.cell in NAMES else sizes.cell
    kind: dict[EncoderName, str] = {
        "recurrent": f"{'residual ' if sizes.residual else ''}{'bidirectional ' if sizes.bidirectional else ''}{cell}",
        "mlp": "perceptron",
        "cnn": "convolution",
        "transformer": "Transformer",
        "bag": "bag-of-symbols perceptron",
    }
    return f"{sizes.layers} {kind[sizes.encoder]} layer{'s' if sizes.layers > 1 else ''} of {sizes.hidden} units"

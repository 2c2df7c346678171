"""Layers: cells along sequences, layers of layers, and torch.nn's three by their own names."""

from recurra.layers.acceleration import Acceleration, accelerate
from recurra.layers.compose import Bidirectional, Residual, Stack
from recurra.layers.drop_in import GRU, LSTM, RNN
from recurra.layers.layer import Layer
from recurra.layers.recurrent import Recurrent

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Acceleration",
    "Bidirectional",
    "Layer",
    "Recurrent",
    "Residual",
    "Stack",
    "accelerate",
]

"""Cells: one family of equations a file. A class's docstring is a page: equation, gate order, source, deviations."""

from recurra.cells.elman import Elman, ElmanOutput, ElmanOutputBefore
from recurra.cells.gru import GRU, GRUResetBefore
from recurra.cells.indrnn import IndRNN
from recurra.cells.jordan import Jordan
from recurra.cells.layer_norm import GRULayerNorm, LSTMLayerNorm
from recurra.cells.leaky import LeakyIntegrator
from recurra.cells.lstm import LSTM, LSTMProjected
from recurra.cells.lstm_gates import LSTMCoupled, LSTMOriginal, LSTMPeephole
from recurra.cells.mgu import MGU
from recurra.cells.minimal import MinGRU, MinLSTM
from recurra.cells.qrnn import QRNN
from recurra.cells.slstm import SLSTM
from recurra.cells.sru import SRU

__all__ = [
    "GRU",
    "LSTM",
    "MGU",
    "QRNN",
    "SLSTM",
    "SRU",
    "Elman",
    "ElmanOutput",
    "ElmanOutputBefore",
    "GRULayerNorm",
    "GRUResetBefore",
    "IndRNN",
    "Jordan",
    "LSTMCoupled",
    "LSTMLayerNorm",
    "LSTMOriginal",
    "LSTMPeephole",
    "LSTMProjected",
    "LeakyIntegrator",
    "MinGRU",
    "MinLSTM",
]

"""Cells: one family of equations a file. A class's docstring is a page: equation, gate order, source, deviations."""

from recurra.cells.elman import Elman, ElmanOutput
from recurra.cells.gru import GRU, GRUResetBefore
from recurra.cells.jordan import Jordan
from recurra.cells.lstm import LSTM, LSTMProjected

__all__ = ["GRU", "LSTM", "Elman", "ElmanOutput", "GRUResetBefore", "Jordan", "LSTMProjected"]

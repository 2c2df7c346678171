"""Regularisers: cells around cells, whose masks are drawn in training and run on the native machine."""

from recurra.cell import wrapping
from recurra.regularise.dropout import VariationalDropout
from recurra.regularise.recurrent import RecurrentDropout
from recurra.regularise.weights import WeightDrop
from recurra.regularise.zoneout import Zoneout

wrapping(__file__)

__all__ = ["RecurrentDropout", "VariationalDropout", "WeightDrop", "Zoneout"]

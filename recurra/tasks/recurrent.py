"""Layers of a recurrent cell."""

from torch import Tensor, nn

from recurra.cells.by_name import cell_named
from recurra.layers import Bidirectional, Recurrent, Residual
from recurra.layers.layer import Layer
from recurra.regularise.values import dropout
from recurra.tasks.encoder import Encoder
from recurra.unroll.precision import checked


class RecurrentEncoder(Encoder):
    """Layers of any cell, one on top of the other, each in one direction or in both; dropout between them.

    residual: a layer that is as wide as what it reads adds it to what it writes; those above the first are.
    forget_bias: what forget gates start with; 1 keeps them open at first (Jozefowicz et al. 2015, ICML).
    activation: of the cells that have a choice of it, Elman's among them; None leaves them theirs.
    """

    def __init__(
        self, cell: str, input_size: int, hidden: int, layers: int, bidirectional: bool, dropout: float,
        residual: bool = False, forget_bias: float = 1.0, activation: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bidirectional, self.dropout = bidirectional, dropout
        self.layers = nn.ModuleList()
        self.width = input_size
        for _ in range(layers):
            cells = [cell_named(cell, self.width, hidden, forget_bias, activation) for _ in range(1 + bidirectional)]
            sides = [Recurrent(each) for each in cells]
            layer: Layer = Bidirectional(*sides) if bidirectional else sides[0]
            width = sum(each.output_size for each in cells)
            self.layers.append(Residual(layer) if residual and width == self.width else layer)
            self.width = width

    def compute_in(self, precision: str) -> None:
        """What the layers compute in from now on."""
        for layer in self.modules():
            if isinstance(layer, Recurrent):
                layer.precision = None if checked(precision) == "fp32" else precision  # which its weights are

    @property
    def precision(self) -> str:
        """What the layers compute in."""
        return next(layer.precision for layer in self.modules() if isinstance(layer, Recurrent)) or "fp32"

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        dtype = x.dtype
        for number, layer in enumerate(self.layers):
            if number:
                x = dropout(x, self.dropout, self.training)
            x, _ = layer(x, lengths=lengths)
        return x.to(dtype), lengths  # of layers in fp64 too

"""Recurrent dropout: of a value inside the step, by the name of the variable that holds it."""

from collections.abc import Mapping

from torch import Tensor

from recurra.cell import innermost
from recurra.cell.wrapper import InnerStep, States
from recurra.errors import CellError
from recurra.regularise.base import Regulariser
from recurra.regularise.places import Masking, variables


class RecurrentDropout(Regulariser):
    """v_t becomes m_t ∘ v_t inside the step,   m_t ~ Bernoulli(1 - rate) / (1 - rate), anew at every t.

    v is the name of a variable of the step, for the value that it last held; all that read it, read the masked one. In
    eval it is the inner cell.

        RecurrentDropout(recurra.cells.LSTM(128, 256), g=0.25)

    Semeniuta, Severyn and Barth 2016, arXiv:1603.05118: without loss of memory where v is the candidate, g of an LSTM,
    c_t = f_t ∘ c_{t-1} + i_t ∘ (m_t ∘ g_t), and n of a GRU. Deviations: any variable of any cell may be named, and
    nothing keeps one from naming the memory itself; masks are drawn at every t (the paper's "per-step").

    The step runs once when this is made, to find its variables. Raises InputError for a name that is none of them;
    CellError for a step that later runs other operations.
    """

    label, what = "recurrent", "variable"

    def widths(self) -> Mapping[str, int]:
        """The variables that hold rows."""
        self._places = variables(self.inner)
        return {name: place.width for name, place in self._places.items()}

    def around(self, step: InnerStep, x: Tensor, sides: tuple[Tensor, ...], states: States) -> tuple[Tensor, States]:
        if not sides:
            return step(x, states)
        with Masking({self._places[name]: mask for name, mask in self.by_name(sides).items()}) as masking:
            result = step(x, states)
        if masking.left:
            raise CellError(
                f"{type(innermost(self)).__name__}.step does not run the operations that it ran when RecurrentDropout "
                "was put around it. Put it around the cell after changing the cell."
            )
        return result

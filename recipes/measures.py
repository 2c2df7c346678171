"""What recipes measure: how a trained model is measured, and how a figure is taken from what that gave."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.tasks.model import Model


def evaluate(model: Model, data: Path) -> Any:
    """As `recurra eval` does: of the data it was trained on the part that training has not seen."""
    return model.evaluate(data)


HOW: dict[str, Callable[[Model, Path], Any]] = {"evaluate": evaluate}  # the field `by` of a recipe


def _same(value: float) -> float:
    return value


def _percent(share: float) -> float:
    return 100 * share


def _nats(bits: float) -> float:
    return bits * math.log(2)


@dataclass(frozen=True)
class Measure:
    """`field` of what was given, and of each of its `baselines`, as it is written: converted, with so many digits."""

    field: str
    convert: Callable[[float], float] = _same
    digits: int = 2
    lower_is_better: bool = False
    baselines: str | None = "baselines"  # the field of the models to be beaten; None: there are none of this measure

    def of(self, result: Any) -> float:
        return self.convert(float(getattr(result, self.field)))

    def beside(self, result: Any) -> dict[str, float]:
        found = getattr(result, self.baselines) if self.baselines else {}
        return {name: self.convert(value) for name, value in found.items()}

    def reaches(self, value: float, wanted: float) -> bool:
        """Whether a figure is as good as wanted, or better, as both are written."""
        value, wanted = round(value, self.digits), round(wanted, self.digits)
        return value <= wanted if self.lower_is_better else value >= wanted


MEASURES = {
    "accuracy": Measure("accuracy", _percent),
    "nats per character": Measure("bits_per_character", _nats, 3, lower_is_better=True),
    "perplexity": Measure("perplexity", lower_is_better=True),
    "perplexity per character": Measure("bits_per_character", lambda bits: 2**bits, lower_is_better=True),
    "span F1": Measure("f1", _percent),
    "label accuracy": Measure("label_accuracy", _percent, baselines="label_baselines"),
}

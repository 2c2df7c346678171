"""What validation gives: a figure with a name, a unit and a direction, and who is ahead by it."""

from collections.abc import Callable
from dataclasses import dataclass

MODEL = "the model"  # its name among those of the baselines


@dataclass(frozen=True)
class Measure:
    """A measure of how good a model is: its name as it stands after a figure, and which way is better."""

    name: str  # "bits per character"
    short: str  # the same beside a progress bar, "bits/char"
    lower_is_better: bool
    share: bool = False  # of one, and written in percent
    of_loss: Callable[[float], float] | None = None  # the same figure from the loss in training, where there is one

    @property
    def key(self) -> str:
        """The name as a column of metrics.csv and a field of JSON."""
        return self.name.replace(" ", "_")

    def better(self, value: float, other: float) -> bool:
        """Whether `value` is better than `other`; equal is not better."""
        return value < other if self.lower_is_better else value > other

    def of(self, loss: float) -> float | None:
        """The figure that belongs to a loss (nats); None where the loss does not tell."""
        return None if self.of_loss is None else self.of_loss(loss)

    def figure(self, value: float) -> str:
        """A figure without its name: "2.104", "89.30 %"."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.3f}"

    def say(self, value: float) -> str:
        """A figure and its name: "2.104 bits per character"."""
        return f"{self.figure(value)} {self.name}"


def verdict(value: float, baselines: dict[str, float], measure: Measure) -> str:
    """Who is ahead, the model or one of the baselines, with everyone's figure; equal figures are level."""
    if not baselines:
        return f"The model has {measure.say(value)}; there is no baseline to compare it with."
    ordered = standing(value, baselines, measure)
    first = ordered[0][1]
    *more, last = [_the(name) for name, each in ordered if each == first]
    leading = f"{', '.join(more)} and {last}" if more else last
    others = ", ".join(f"{name} {measure.figure(each)}" for name, each in ordered if each != first)
    behind = f"; behind {'them' if more else 'it'} {others}" if others else ""
    ahead = "are level" if more else "is ahead"
    return f"{leading[0].upper()}{leading[1:]} {ahead} with {measure.say(first)}{behind}."


def standing(value: float, baselines: dict[str, float], measure: Measure) -> list[tuple[str, float]]:
    """The model and the baselines with their figures, rounded as they are shown, the best first."""
    digits = 4 if measure.share else 3
    figures = {name: round(each, digits) + 0.0 for name, each in {MODEL: value, **baselines}.items()}  # no -0.000
    return sorted(figures.items(), key=lambda row: row[1], reverse=not measure.lower_is_better)


def _the(name: str) -> str:
    return f"the {name.removeprefix('the ')}"

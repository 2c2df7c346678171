"""What a report is made of. Texts are `Both` (ours, in both languages) or `str` (data, shown as it is, escaped)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from recurra.report.words import Both, Said


@dataclass(frozen=True)
class Measured:
    """A figure of this machine and hour: all else in a report is the same in every rerun."""

    said: Said


Cell: TypeAlias = Said | Measured


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    said: Cell


@dataclass(frozen=True)
class Points:
    """A list under a line of its own."""

    title: Said
    items: Sequence[Said]


@dataclass(frozen=True)
class Table:
    """A table. A column of nothing but figures is set to the right. folded: behind a line that opens it."""

    caption: Both
    head: Sequence[Said]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they are: two columns without a head."""

    caption: Both
    rows: Sequence[tuple[Said, Cell]]


@dataclass(frozen=True)
class Series:
    """A curve: points (x, y), x ascending."""

    name: Said
    points: Sequence[tuple[float, float]]
    guides: bool = True  # whether the y axis must show all of it; else only the part beyond its first fiftieth


@dataclass(frozen=True)
class Lines:
    """Curves over one x, and levels across all of it. `form` is the format of y in the table behind the plot."""

    title: Said
    x: Said
    y: Said
    series: Sequence[Series]
    levels: Sequence[tuple[Said, float]] = ()
    form: str = ".4f"
    small: bool = False


@dataclass(frozen=True)
class Bars:
    """Bars from 0 to `most`: name, length, and further columns. The plot is itself a table."""

    title: Said
    head: Sequence[Said]  # of the names, of the bars' figures, and of the further columns
    rows: Sequence[tuple[Said, float, str, Sequence[Cell]]]  # name, length, figure as it is written, further columns
    most: float = 1.0


@dataclass(frozen=True)
class Matrix:
    """Counts of (row, column): a heat map whose shades are shares of the row. The plot is itself a table."""

    title: Said
    row: Both
    column: Both
    names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Quotes:
    """Pieces of text, each under a line of its own, as they are: white space kept."""

    title: Said
    items: Sequence[tuple[Said, str]]


@dataclass(frozen=True)
class Shades:
    """A text whose pieces are shaded from 0 to `most`; the strongest are underlined too."""

    title: Said
    pieces: Sequence[tuple[str, float]]
    most: float
    unit: Said


@dataclass(frozen=True)
class Commands:
    """Lines to type, each under what it does."""

    items: Sequence[tuple[Said, str]]


Block: TypeAlias = Text | Points | Table | Facts | Lines | Bars | Matrix | Quotes | Shades | Commands


@dataclass(frozen=True)
class Section:
    """A heading and its blocks. `name` is its anchor: a short English word."""

    name: str
    title: Both
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Figure:
    """One of the few numbers at the top."""

    name: Said
    value: Cell


@dataclass(frozen=True)
class Document:
    """A report."""

    title: Said
    subtitle: Said
    lead: Said  # the result in one sentence
    figures: Sequence[Figure]
    sections: Sequence[Section]


@dataclass(frozen=True)
class About:
    """What a model says of itself in a report, without its data."""

    kind: Both  # "Text classifier"
    network: Both  # "2 LSTM layers of 512 units"
    data: Sequence[tuple[Said, Cell]]  # facts of the data card
    limits: Sequence[Both] = ()  # what a reader must know to use it rightly
    uses: Sequence[tuple[Both, str]] = ()  # commands; RUN stands for the run folder
    python: Sequence[str] = ()  # the same in Python, after `model = recurra.load(…)`
    chinese: bool = False  # whether it reads Chinese: then so do its report's readers

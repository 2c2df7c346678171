"""Every setting of a training run in one record: type, limits, default and help, for Python and the command line.

This file imports neither torch nor numpy: the command line builds its flags from it. A setting left at None is found
from the data by `complete`; the run folder's `config.toml` holds the completed record, so that nothing is left to
guess.
"""

import difflib
import types
import typing
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from recurra.errors import InputError

CHANGEABLE = ("time_limit", "steps", "patience")  # what resume() may set anew

Size = Annotated[int, Meta(ge=1)]
Width = Annotated[int, Meta(ge=1, le=1_000_000)]


CellName = Literal[
    "lstm", "gru", "rnn", "elman", "elmanoutput", "elmanoutputbefore", "grulayernorm", "gruresetbefore", "indrnn",
    "jordan", "leakyintegrator", "lstmcoupled", "lstmlayernorm", "lstmoriginal", "lstmpeephole", "lstmprojected", "mgu",
    "mingru", "minlstm", "qrnn", "slstm", "sru",
]  # fmt: skip

# What belongs to one task alone; all else is for every task. In a run of another task these are None.
ONLY = {
    "language": ("window", "sample_length", "temperature"),
    "classification": (
        "encoder", "bidirectional", "pooling", "class_weights", "symbols", "min_count", "text", "label", "test",
    ),
}  # fmt: skip


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a run. `describe()` lists them with their help; `settings(…)` checks what a person gave."""

    cell: Annotated[
        CellName | None,
        Meta(description="The recurrent cell of every layer; language models have lstm, gru or rnn. [lstm]"),
    ] = None
    layers: Annotated[int, Meta(ge=1, le=1000, description="Recurrent layers, one on top of the other.")] = 1
    hidden: Annotated[Width | None, Meta(description="Units of each layer. [found from the data]")] = None
    embedding: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Width of the learned vector of each symbol; 0 feeds one-hot vectors. [found from the data]"),
    ] = None
    dropout: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(
            description="Share of values set to zero in training, before and after every layer. "
            "[of a language model none, unless the text is read many times]"
        ),
    ] = None

    precision: Annotated[
        Literal["fp32", "fp64", "fp32-fast", "bf16"],
        Meta(description="What the recurrent layers compute in; the weights are fp32 in any case."),
    ] = "fp32"

    batch: Annotated[
        Size | None, Meta(description="Places of the text, or rows, read side by side. [found from the data]")
    ] = None
    window: Annotated[
        Size | None,
        Meta(description="Steps through which gradients flow before they are cut. [64, less for a short text]"),
    ] = None
    epochs: Annotated[
        Size | None, Meta(description="Passes over the training data. [found from it unless steps is given]")
    ] = None
    steps: Annotated[Size | None, Meta(description="Updates of the weights, in place of epochs.")] = None
    time_limit: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Seconds after which this command stops; it never enters the schedule. [no limit]"),
    ] = None
    patience: Annotated[
        Size | None,
        Meta(description="Validations without a better result after which training stops. [no early stopping]"),
    ] = None

    learning_rate: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Step size of AdamW at the top of the schedule. [0.004, of a classifier 0.002]"),
    ] = None
    schedule: Annotated[
        Literal["cosine", "constant"],
        Meta(
            description="How the learning rate goes on after the warm-up: down to a fiftieth along a cosine, or level."
        ),
    ] = "cosine"
    warmup: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Steps over which the learning rate rises from zero. [50, less for a short run]"),
    ] = None
    clip: Annotated[
        float, Meta(ge=0, description="Largest norm of the whole gradient; longer ones are scaled down. 0 never clips.")
    ] = 1.0
    weight_decay: Annotated[
        float, Meta(ge=0, description="Decay of weight matrices towards zero, as AdamW does it.")
    ] = 0.01

    validation: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="Share of the data kept for validation and never trained on: the end of a text, drawn rows.",
        ),
    ] = 0.1
    eval_interval: Annotated[Size | None, Meta(description="Steps between validations. [found from the steps]")] = None
    log_interval: Annotated[
        Size | None, Meta(description="Steps between rows of metrics.csv. [found from the steps]")
    ] = None
    sample_length: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Characters of the sample written at each validation. [200]"),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Temperature of the samples; 0 takes the likeliest. [0.8]"),
    ] = None

    text: Annotated[str | None, Meta(description="Column of the text: its name, or its number from 1. [found]")] = None
    label: Annotated[str | None, Meta(description="Column of the label: its name, or its number from 1. [found]")] = (
        None
    )
    test: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="Share of the rows kept for the test, where there is no file for it. [0.1]"),
    ] = None
    symbols: Annotated[
        Literal["characters", "words"] | None,
        Meta(description="What is read one by one. [words where white space divides them, else characters]"),
    ] = None
    min_count: Annotated[
        Size | None, Meta(description="How often training must have a symbol for it to be known. [2]")
    ] = None
    encoder: Annotated[
        Literal["recurrent", "bag", "cnn", "transformer"] | None,
        Meta(description="What reads the symbols: layers of a cell, a perceptron on the bag of them, … [recurrent]"),
    ] = None
    bidirectional: Annotated[
        bool | None, Meta(description="Whether recurrent layers read in both directions. [yes]")
    ] = None
    pooling: Annotated[
        Literal["last", "mean", "max", "attention"] | None, Meta(description="How all steps become one vector. [max]")
    ] = None
    class_weights: Annotated[
        Literal["equal", "balanced"] | None,
        Meta(description="Whether rows weigh the same, or those of rare labels more. [equal]"),
    ] = None

    seed: Annotated[
        int, Meta(ge=0, description="Fixes the weights at the start, the data order, dropout and samples.")
    ] = 0
    threads: Annotated[Size | None, Meta(description="Processor threads. [as PyTorch finds them]")] = None


class Setting(NamedTuple):
    """One row of `describe()`."""

    name: str
    kind: Any  # int, float, bool, str, or a Literal; None is allowed where default is None
    default: Any
    help: str
    task: str | None  # the task that alone has it; None for a setting of every task


def describe(task: str | None = None) -> list[Setting]:
    """Every setting, or those of a task, with its plain type, default and help, in the order of the record."""
    rows = []
    for item in msgspec.structs.fields(Settings):
        owner = _owner(item.name)
        if task is not None and owner not in (None, task):
            continue
        annotated = item.type
        help_text = next(meta.description for meta in annotated.__metadata__ if meta.description)
        rows.append(Setting(item.name, _plain(annotated), item.default, help_text, owner))
    return rows


def _owner(name: str) -> str | None:
    return next((task for task, names in ONLY.items() if name in names), None)


def check_task(task: str, given: Settings) -> None:
    """Raises InputError for a setting that belongs to another task."""
    for name in Settings.__struct_fields__:
        owner, value = _owner(name), getattr(given, name)
        if value is not None and owner not in (None, task):
            raise InputError(
                f"{name}={value!r} is a setting of the task {owner}, and the task here is {task}; leave it out."
            )


def settings(**given: Any) -> Settings:
    """Checks the settings a person gave. InputError names the setting, both values and the remedy."""
    known = Settings.__struct_fields__
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "they are: " + ", ".join(known)
            raise InputError(f"There is no setting {name}; {hint}")
    try:
        made = msgspec.convert(given, Settings)
    except msgspec.ValidationError as error:
        name = str(error).partition(" - at `$.")[2].rstrip("`")
        raise InputError(f"{name}={given[name]!r} cannot be used; give {_allowed(name)}.") from None
    if made.seed >= 2**64:
        raise InputError(f"seed={made.seed} cannot be used; give {_allowed('seed')}.")
    if made.steps is not None and made.epochs is not None:
        raise InputError(f"steps={made.steps} and epochs={made.epochs} both say how long to train; give one of them.")
    return made


def complete(given: Settings, characters: int, symbols: int) -> Settings:
    """Fills what was left open from the training text: its number of characters and of different symbols.

    The number of steps never depends on the speed of the machine, so that a seed means the same run everywhere.
    """
    window = given.window or max(1, min(64, (characters - 1) // 2))
    batch = given.batch or max(1, min(16, characters // (4 * window)))
    per_epoch = max(1, characters // (batch * window))
    steps = given.steps or (per_epoch * given.epochs if given.epochs else _seen(characters) // (batch * window))
    eval_interval = given.eval_interval or max(1, min(2000, -(-steps // 6)))
    found = {
        "cell": "lstm",
        "learning_rate": 0.004,
        "sample_length": 200,
        "temperature": 0.8,
        "hidden": 128 if characters < 50_000 else 256 if characters < 150_000 else 512,
        "embedding": min(64, symbols),
        "dropout": 0.0 if steps < 10 * per_epoch else 0.2,
        "window": window,
        "batch": batch,
        "steps": steps,
        "warmup": min(50, steps // 10),
        "eval_interval": eval_interval,
        "log_interval": max(1, min(eval_interval, steps // 200)),
    }
    open_ones = {name: value for name, value in found.items() if getattr(given, name) is None}
    return msgspec.structs.replace(given, epochs=None, **open_ones)


def _seen(characters: int) -> int:
    """Characters to learn from: about a minute of them, three passes over a longer text, one over a very long one."""
    return max(characters, min(200 * characters, max(_A_MINUTE, 3 * min(characters, 1_000_000))))


_A_MINUTE = 1_050_000  # what an LSTM of 512 units learns from in somewhat less than a minute on two cores


def _allowed(name: str) -> str:
    """What a setting may be, in words: "a whole number from 1 to 1000"."""
    if name == "seed":
        return "a whole number from 0 to 2**64 - 1"  # more than a bound of msgspec's can say
    annotated = next(item.type for item in msgspec.structs.fields(Settings) if item.name == name)
    kind, limits = _plain(annotated), _limits(annotated)
    if choices := typing.get_args(kind):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    if kind in (bool, str):
        return "True or False" if kind is bool else "a string"
    noun = "a whole number" if kind is int else "a number"
    if "ge" in limits and "le" in limits:
        return f"{noun} from {limits['ge']:g} to {limits['le']}"
    return f"{noun} " + " and ".join(f"{_BOUNDS[bound]} {limit:g}" for bound, limit in limits.items())


_BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def _limits(annotated: Any) -> dict[str, float]:
    """The bounds in a type, those under Annotated and Optional too."""
    found: dict[str, float] = {}
    for part in typing.get_args(annotated):
        found |= _limits(part)
        found |= {b: limit for b in _BOUNDS if (limit := getattr(part, b, None)) is not None and type(part) is Meta}
    return found


def _plain(annotated: Any) -> Any:
    """The type under Annotated and Optional: int, float or a Literal."""
    while typing.get_origin(annotated) is Annotated:
        annotated = typing.get_args(annotated)[0]
    if typing.get_origin(annotated) in (types.UnionType, typing.Union):
        return _plain(next(part for part in typing.get_args(annotated) if part is not type(None)))
    return annotated

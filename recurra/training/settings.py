"""Every setting of a training run in one record: type, limits, default and help, for Python and the command line.

This file imports neither torch nor numpy: the command line builds its flags from it. A setting left at None is found
from the data by the task's `Setup`; the run folder's `config.toml` holds the completed record, so that nothing is left
to guess.
"""

import difflib
import types
import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from recurra.errors import InputError

CHANGEABLE = ("time_limit", "steps", "patience", "processes")  # what resume() may set anew

Size = Annotated[int, Meta(ge=1)]
Width = Annotated[int, Meta(ge=1, le=1_000_000)]


CellName = Literal[
    "lstm", "gru", "rnn", "elman", "elmanoutput", "elmanoutputbefore", "grulayernorm", "gruresetbefore", "indrnn",
    "jordan", "leakyintegrator", "lstmcoupled", "lstmlayernorm", "lstmoriginal", "lstmpeephole", "lstmprojected", "mgu",
    "mingru", "minlstm", "qrnn", "slstm", "sru",
]  # fmt: skip

# The tasks of a setting that not every task has. In a run of another task it is None.
TASKS_OF: dict[str, tuple[str, ...]] = {
    "window": ("language",),
    "sample_length": ("language",),
    "temperature": ("language",),
    "tied": ("language",),
    "variational": ("language",),
    "embedding_dropout": ("language",),
    "weight_drop": ("language",),
    "activation_penalty": ("language",),
    "slowness_penalty": ("language",),
    "encoder": ("language", "classification", "tagging"),
    "bidirectional": ("classification", "tagging"),
    "residual": ("classification", "tagging"),
    "activation": ("classification", "tagging"),
    "normalisation": ("classification", "tagging"),
    "initialiser": ("classification",),
    "forget_bias": ("classification", "tagging"),
    "subwords": ("classification",),
    "vectors": ("classification",),
    "word_dropout": ("classification",),
    "pooling": ("classification", "tagging"),
    "class_weights": ("classification",),
    "symbols": ("language", "classification"),
    "min_count": ("language", "classification", "tagging"),
    "vocabulary": ("language",),
    "text": ("language", "classification", "tagging"),
    "label": ("classification", "tagging"),
    "test": ("classification", "tagging"),
    "extra": ("classification",),
    "several": ("classification",),
    "scheme": ("tagging",),
    "output": ("tagging",),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a run. `describe()` lists them with their help; `settings(…)` checks what a person gave."""

    cell: Annotated[
        Annotated[str, Meta(pattern=r"^[^\W\d]\w*$", extra={"choices": CellName})] | None,  # or a class of one's own
        Meta(description="The recurrent cell of every layer, as `recurra cells` lists them. [lstm]"),
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
    variational: Annotated[bool | None, Meta(description="Whether masks hold for a window. [no]")] = None
    embedding_dropout: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(description="Share of the symbols whose vector is zero in a step of training. [0]"),
    ] = None
    weight_drop: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(description="Share of the recurrent weights that are zero in a step of training. [0]"),
    ] = None
    activation_penalty: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="What the mean square of the outputs of the layers adds to the loss, times this. [0]"),
    ] = None
    slowness_penalty: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="What the mean square of their change from step to step adds, times this. [0]"),
    ] = None
    tied: Annotated[bool | None, Meta(description="Whether the output layer has the matrix of the embedding. [no]")] = (
        None
    )

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

    text: Annotated[
        str | None,
        Meta(
            description="Column of the text, or of words: its name or number from 1; of documents their field. [found]"
        ),
    ] = None
    label: Annotated[
        str | None,
        Meta(description="Column of the label, or of tags: its name or number from 1; upos, xpos. [found]"),
    ] = None
    test: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="Share of the rows kept for the test, where there is no file for it. [0.1]"),
    ] = None
    extra: Annotated[
        str | None,
        Meta(description="More rows to train on: a table, or a file or folder of labelled trees. [none]"),
    ] = None
    several: Annotated[
        bool | None, Meta(description="Whether a text may have several labels, or none. [found from the table]")
    ] = None
    symbols: Annotated[
        Literal["characters", "words", "bpe"] | None,
        Meta(
            description="What is read one by one; bpe: pieces of words. [characters; of labelled texts words, where "
            "white space divides them]"
        ),
    ] = None
    min_count: Annotated[
        Size | None,
        Meta(description="How often training must have a symbol for it to be known. [2; of a language model 1]"),
    ] = None
    vocabulary: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="How many symbols are known at most, the most frequent. [100000 words, 8000 pieces of bpe]"),
    ] = None
    encoder: Annotated[
        Literal["recurrent", "bag", "mlp", "cnn", "transformer"] | None,
        Meta(
            description="What reads the symbols: layers of a cell, a perceptron on the bag of them or "
            "on each (not of a language model), … [recurrent]"
        ),
    ] = None
    bidirectional: Annotated[
        bool | None, Meta(description="Whether recurrent layers read in both directions. [yes]")
    ] = None
    residual: Annotated[
        bool | None,
        Meta(description="Whether recurrent layers above the first add what they read to what they write. [no]"),
    ] = None
    activation: Annotated[
        Literal["relu", "leaky_relu", "tanh"] | None,
        Meta(description="The nonlinearity of layers that have a choice of it. [relu; of a cell its own]"),
    ] = None
    normalisation: Annotated[
        Literal["none", "batch"] | None,
        Meta(description="Batch normalisation of the layers of a perceptron or of convolutions. [none]"),
    ] = None
    initialiser: Annotated[
        Literal["default", "xavier", "orthogonal"] | None,
        Meta(description="How matrices are drawn at the start: as PyTorch's layers do, or by this name. [default]"),
    ] = None
    forget_bias: Annotated[
        float | None, Meta(description="What the bias of forget gates is at the start; 1 keeps them open. [1]")
    ] = None
    subwords: Annotated[
        bool | None,
        Meta(
            description="Whether words are read by their n-grams of characters too. [yes, where vectors are not given]"
        ),
    ] = None
    vectors: Annotated[
        str | None,
        Meta(description="Word vectors to begin with: a text file of word2vec or GloVe, .gz too. [none]"),
    ] = None
    word_dropout: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(description="Share of symbols that training reads as the unknown one. [0.1 of words]"),
    ] = None
    pooling: Annotated[
        Literal["last", "mean", "max", "attention"] | None, Meta(description="How all steps become one vector. [max]")
    ] = None
    class_weights: Annotated[
        Literal["equal", "balanced"] | None,
        Meta(description="Whether rows weigh the same, or those of rare labels more. [equal]"),
    ] = None

    scheme: Annotated[
        Literal["BIO", "BIOES", "BMES"] | None,
        Meta(description="The scheme that the tags of spans are learned in; they are written in the data's. [its own]"),
    ] = None
    output: Annotated[
        Literal["crf", "softmax"] | None,
        Meta(description="Whether tags are scored as a whole, by a conditional random field, or each by itself. [crf]"),
    ] = None

    seed: Annotated[
        int, Meta(ge=0, description="Fixes the weights at the start, the data order, dropout and samples.")
    ] = 0
    threads: Annotated[
        Size | None, Meta(description="Processor threads of each process. [as PyTorch finds them, divided among them]")
    ] = None
    processes: Annotated[
        Size | None, Meta(description="Processes that share each batch; torchrun says it itself. [1]")
    ] = None


class Setting(NamedTuple):
    """One row of `describe()`."""

    name: str
    kind: Any  # int, float, bool, str, or a Literal; None is allowed where default is None
    default: Any
    help: str
    tasks: tuple[str, ...]  # those that have it; () for a setting of every task


def describe(task: str | None = None) -> list[Setting]:
    """Every setting, or those of a task, with its plain type, default and help, in the order of the record."""
    rows = []
    for item in msgspec.structs.fields(Settings):
        tasks = TASKS_OF.get(item.name, ())
        if task is not None and tasks and task not in tasks:
            continue
        annotated = item.type
        help_text = next(meta.description for meta in annotated.__metadata__ if meta.description)
        rows.append(Setting(item.name, _plain(annotated), item.default, help_text, tasks))
    return rows


def check_task(task: str, given: Settings) -> None:
    """Raises InputError for a setting that only other tasks have."""
    for name, tasks in TASKS_OF.items():
        value = getattr(given, name)
        if value is not None and task not in tasks:
            whose = f"the task {tasks[0]}" if len(tasks) == 1 else f"the tasks {' and '.join(tasks)}"
            raise InputError(f"{name}={value!r} is a setting of {whose}, and the task here is {task}; leave it out.")


def filled(given: Settings, **found: Any) -> Settings:
    """The settings with those that are open as they were found."""
    return msgspec.structs.replace(given, **{n: value for n, value in found.items() if getattr(given, n) is None})


def settings(**given: Any) -> Settings:
    """Checks the settings a person gave. InputError names the setting, both values and the remedy."""
    return settings_with((), given)


def settings_with(own_cells: Collection[str], given: Mapping[str, Any]) -> Settings:
    """The same, where cells of these names are known too."""
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
    if made.cell is not None and made.cell not in (*typing.get_args(CellName), *own_cells):
        raise InputError(f"cell={made.cell!r} cannot be used; give {_allowed('cell')}, or a class of your own.")
    if made.seed >= 2**64:
        raise InputError(f"seed={made.seed} cannot be used; give {_allowed('seed')}.")
    if made.steps is not None and made.epochs is not None:
        raise InputError(f"steps={made.steps} and epochs={made.epochs} both say how long to train; give one of them.")
    return made


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
        if choices := next((m.extra["choices"] for m in annotated.__metadata__ if m.extra), None):
            return choices
        annotated = typing.get_args(annotated)[0]
    if typing.get_origin(annotated) in (types.UnionType, typing.Union):
        return _plain(next(part for part in typing.get_args(annotated) if part is not type(None)))
    return annotated

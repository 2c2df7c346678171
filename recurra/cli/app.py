"""The commands and their help. Each does one Python call and shows what it gave."""

import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from recurra.cli.flags import Json, given, whole, with_settings
from recurra.cli.typed import beginning, loading
from recurra.training import ranks


def version() -> str:
    """The installed release; a checkout that is not installed has none."""
    try:
        return installed_version("recurra")
    except PackageNotFoundError:
        return "not installed"


app = App(
    name="recurra",
    help="Recurrent networks: train them on your data, measure them, let them write.",
    help_format="plaintext",
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,  # `recurra.cli.run` says what was interrupted
    version=version,
)

Model = Annotated[str, Parameter(help="A run folder or a model folder.")]
Precision = Annotated[
    Literal["fp32", "fp64", "fp32-fast", "bf16", "int8"] | None,
    Parameter(help="What the recurrent layers compute in. [what they were trained in]"),
]


@app.command
@with_settings
def train(
    data: Annotated[str, Parameter(help="A text file, a table, words with tags, a folder of these, or the word demo.")],
    /,
    *,
    task: Annotated[
        Literal["language", "classification", "tagging"] | None,
        Parameter(help="What is learned. [tagging from words with tags, classification from a table, else language]"),
    ] = None,
    out: Annotated[str | None, Parameter(help="The run folder to make. [a new folder under runs/]")] = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Train a model on a file and keep everything about the run in one folder."""
    with loading():
        import torch  # noqa: F401 (recurra loads it when first asked for)

        import recurra
        from recurra.cli.progress import watch

    with beginning(), watch(json) as observer:
        run = recurra.train(data, task=task, out=out, observer=observer, **given(settings))
    if not json and not ranks.rank():
        print(run.path)


@app.command
@with_settings
def check(
    data: Annotated[str, Parameter(help="A text file, a table, a folder of tables, or the word demo.")],
    /,
    *,
    task: Annotated[
        Literal["language", "classification", "tagging"] | None, Parameter(help="What is learned. [guessed]")
    ] = None,
    json: Json = False,
    **settings: Any,
) -> int:
    """Say what data is, what is wrong with it, and how long training will take; takes train's settings."""
    with loading():
        import torch  # noqa: F401 (recurra loads it when first asked for)

        import recurra
        from recurra.cli.output import show

    result = recurra.check(data, task=task, **given(settings))
    show(result, json, usable=result.usable)
    return 0 if result.usable else 2


@app.command
@with_settings
def compare(
    data: Annotated[str, Parameter(help="What train takes: a text file, a table, a folder, or the word demo.")],
    /,
    *,
    models: Annotated[
        str | None, Parameter(help="Cells, encoders, simple models. [elman,lstm,gru,cnn,transformer,bag]")
    ] = None,
    task: Annotated[
        Literal["language", "classification", "tagging"] | None, Parameter(help="What is learned. [guessed]")
    ] = None,
    out: Annotated[str | None, Parameter(help="The folder of the runs; the same one goes on. [a new one]")] = None,
    seeds: Annotated[int, whole(help="Runs of each model, for means and spreads.")] = 1,
    json: Json = False,
    **settings: Any,
) -> None:
    """Train several models on the same data, one after another, and put them into one table."""
    with loading():
        import torch  # noqa: F401 (recurra loads it when first asked for)

        import recurra
        from recurra.cli.comparing import Ticker
        from recurra.cli.output import show

    ticker = Ticker()
    try:
        result = recurra.compare(data, models, task, out, seeds, ticker, **given(settings))
    finally:
        ticker.end()
    show(result, json)


@app.command
def resume(
    model: Model,
    /,
    *,
    time_limit: Annotated[float | None, Parameter(help="Seconds after which this command stops.")] = None,
    steps: Annotated[int | None, whole(help="A new end; a cosine schedule then ends there.")] = None,
    patience: Annotated[int | None, whole(help="Validations without a better result before it stops.")] = None,
    processes: Annotated[int | None, whole(help="Processes that share each batch. [as before]")] = None,
    json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed; the result is the same as if it had not been."""
    with loading():
        import torch  # noqa: F401 (recurra loads it when first asked for)

        import recurra
        from recurra.cli.progress import watch

    changes = given({"time_limit": time_limit, "steps": steps, "patience": patience, "processes": processes})
    with beginning(), watch(json) as observer:
        run = recurra.resume(model, observer=observer, **changes)
    if not json and not ranks.rank():
        print(run.path)


@app.command
def report(
    model: Annotated[str, Parameter(help="A run folder.")],
    /,
    *,
    language: Annotated[
        Literal["en", "zh"] | None,
        Parameter(help="What it is written in. [Chinese of a model that reads Chinese, else English]"),
    ] = None,
    json: Json = False,
) -> None:
    """Write report.html of a run anew: curves, errors, samples, speed, and a card in one file."""
    import recurra

    path = recurra.report(model, language)
    if json:
        from recurra.cli.output import show

        show({"report": str(path)}, json)
    else:
        print(path)


@app.command(name="eval")
def evaluate(
    model: Model,
    data: Annotated[str, Parameter(help="What the model is to be measured on: a text, a table, or the word demo.")],
    /,
    *,
    precision: Precision = None,
    json: Json = False,
) -> None:
    """Measure a model on a file, beside the models it has to beat."""
    import recurra
    from recurra.cli.output import show

    result = recurra.load(model, precision).evaluate(data)
    computed = ("bits_per_character", "perplexity", "verdict")  # properties, which no record of fields has
    show(result, json, **{name: getattr(result, name) for name in computed if hasattr(result, name)})


@app.command
def predict(
    model: Model,
    /,
    *texts: Annotated[str, Parameter(help="Texts to label; without any, the lines of standard input.")],
    file: Annotated[str | None, Parameter(help="A file of texts, one a line, in place of them.")] = None,
    precision: Precision = None,
    json: Json = False,
) -> None:
    """Label texts: one line each, the label and its probability; with --json all probabilities, one object a line.

    A tagger gives a word and its tag a line, and an empty line after each text.
    """
    from recurra.cli import labels

    labels.show(model, texts, file, precision, json)


@app.command
def generate(
    model: Model,
    /,
    *,
    prompt: Annotated[str, Parameter(help="The text to go on from.")] = "",
    length: Annotated[int, whole(help="Characters to write.")] = 500,
    temperature: Annotated[float, Parameter(help="0 takes the likeliest, 1 draws as the model predicts.")] = 0.8,
    top_k: Annotated[int | None, whole(help="Draw from the k likeliest characters only.")] = None,
    top_p: Annotated[float | None, Parameter(help="Draw from the likeliest that hold this probability.")] = None,
    seed: Annotated[int | None, whole(help="The same seed writes the same text.")] = None,
    precision: Precision = None,
    json: Json = False,
) -> None:
    """Let a model write; the text streams out as it is made."""
    import recurra
    from recurra.cli.output import show, write

    writer: Any = recurra.load(model, precision)
    if writer.rounding:
        print(writer.rounding, file=sys.stderr)
    pieces = writer.stream(prompt, length, temperature, top_k, top_p, seed)
    if json:
        show({"prompt": prompt, "text": "".join(pieces)}, json)
    else:
        write(prompt, pieces)


@app.command
def fill(
    model: Model,
    /,
    *sentences: Annotated[
        str, Parameter(help="Sentences with a blank, written ____; without any, the lines of standard input.")
    ],
    file: Annotated[str | None, Parameter(help="A file of sentences, one a line, in place of them.")] = None,
    top: Annotated[int, whole(help="Candidates to show.")] = 10,
    longest: Annotated[
        int | None, whole(help="Symbols that a candidate may have. [4 characters, 12 where there are blanks; 1 word]")
    ] = None,
    candidates: Annotated[
        str | None, Parameter(help="The only ones, divided by commas: a,b,c. [found]", show_default=False)
    ] = None,
    blank: Annotated[str | None, Parameter(help="How the blank is written. [two underscores or more]")] = None,
    precision: Precision = None,
    json: Json = False,
) -> None:
    """Fill the blank of a sentence: what may stand there, ranked by the probability of the whole sentence."""
    from recurra.cli import blanks

    blanks.show(model, sentences, file, top, longest, candidates, blank, precision, json)


@app.command
def rank(
    model: Model,
    candidates: Annotated[
        str | None,
        Parameter(help="A file of candidates, one a line, a blank line between groups; or .jsonl. [standard input]"),
    ] = None,
    /,
    *,
    weight: Annotated[
        float | None,
        Parameter(help="Weight of the model's ln p beside the scores that the file gives after a tab. [1]"),
    ] = None,
    best: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Print the best of each group alone, one line a group.")
    ] = False,
    precision: Precision = None,
    json: Json = False,
) -> None:
    """Rank the candidates of a recogniser by the probability of the whole sentence, group by group."""
    from recurra.cli import rankings

    rankings.show(model, candidates, weight, best, precision, json)


@app.command
def cells(
    name: Annotated[str | None, Parameter(help="One cell; without it, all are listed.")] = None,
    /,
    *,
    input_size: Annotated[int, whole(help="Width of the input the program is made for, at most 4096.")] = 64,
    hidden_size: Annotated[int, whole(help="Width of the states the program is made for, at most 4096.")] = 128,
    json: Json = False,
) -> None:
    """Show a cell: its equation, and its program before, in and after the loop over time."""
    from recurra.cli import catalogue

    if name is None:
        catalogue.show_all(json)
    else:
        catalogue.show_one(name, input_size, hidden_size, json)


@app.command
def demo(
    *,
    out: Annotated[str | None, Parameter(help="The run folder to make. [a new folder under runs/]")] = None,
    seconds: Annotated[float, Parameter(help="How long to train.")] = 60,
    json: Json = False,
) -> None:
    """Train on the Python language reference for about a minute, let the model write, and draw its loss."""
    with loading():
        from recurra.cli.demo import demonstrate

    demonstrate(out, seconds, json)

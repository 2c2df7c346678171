"""`report.html` of a run folder: what its files say, and what the task measures of the best model, put together."""

import math
import os
import resource
import shlex
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast, get_args

import msgspec

from recurra import files
from recurra.errors import FileError, InputError, RecurraError
from recurra.report.blocks import (
    About,
    Bars,
    Block,
    Cell,
    Commands,
    Document,
    Facts,
    Figure,
    Lines,
    Measured,
    Points,
    Quotes,
    Section,
    Series,
    Table,
    Text,
)
from recurra.report.html import html
from recurra.report.words import Both, Language, Said, span
from recurra.tasks.measure import Measure, standing
from recurra.tasks.model import Model
from recurra.tasks.task import Task
from recurra.tasks.terms import term, verdict
from recurra.training.config import Config, read_config
from recurra.training.metrics import METRICS, Row, columns, read_rows
from recurra.training.settings import Settings

REPORT = "report.html"
SAMPLES = "samples"
_POINTS = 300  # of a curve at most: what is left out is in metrics.csv
_SAMPLES = 8  # shown at most, evenly over the run

Item = TypeVar("Item")


def checked_language(language: str | None) -> Language | None:
    """Raises InputError for a language that reports are not written in."""
    if language is not None and language not in get_args(Language):
        known = " or ".join(get_args(Language))
        raise InputError(f"language={language!r} cannot be used; give {known}, or leave it out.")
    return cast(Language | None, language)


def write_or_warn(folder: Path, task: Task, model: Model) -> Path | None:
    """The report of a run that has ended. The run stands as it is: whatever fails here is a warning."""
    again = f"`recurra report {folder}` writes it"
    try:
        return write(folder, task, model, "")
    except KeyboardInterrupt:
        warnings.warn(f"{REPORT} was left out, by Ctrl-C; {again}.", stacklevel=2)
    except RecurraError as error:
        warnings.warn(f"{REPORT} was not written: {error} {again} when that is mended.", stacklevel=2)
    except Exception as error:  # noqa: BLE001 (a fault of ours must not take a finished run down)
        told = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"{REPORT} was not written, for {told}; all else of the run is whole.", stacklevel=2)
    return None


def write(folder: Path, task: Task | None, model: Model, missing: str, language: Language | None = None) -> Path:
    """Writes the report, whole or not at all, and gives its path.

    task: the run's, with its data; None where that cannot be read any more, and `missing` says why.
    """
    began = time.perf_counter()
    about = model.about()
    parts = task.sections(model) if task is not None else [_nothing(missing)]
    made = document(folder, model, about, parts, task.notes if task is not None else (), began)
    path = folder / REPORT
    files.replace_file(path, html(made, language or ("zh" if about.chinese else "en")).encode())
    return path


def document(
    folder: Path, model: Model, about: About, parts: Sequence[Section], notes: Sequence[str], began: float
) -> Document:
    """The report of a run folder. Raises FileError when it has no validation yet."""
    config, rows = read_config(folder), read_rows(folder / METRICS, columns(model))
    result = model.result
    value = next((r.validation for r in rows if result and r.step == result.step and r.validation is not None), None)
    if result is None or value is None:
        raise FileError(
            f"{folder} has no validation yet, and a report is about its best model; `recurra resume {folder}` goes on."
        )
    best = (result.step, value)
    measure, baselines = model.measure, result.baselines
    name = Path(config.data.name).name or config.data.name
    where = Both("{network}. Best at step {best} of {steps}", "{network}。最佳在第 {best} 步，共 {steps} 步")
    return Document(
        title=Both("{kind}: {data}", "{kind}：{data}")(kind=about.kind, data=name),
        subtitle=where(network=about.network, best=best[0], steps=rows[-1].step),
        lead=verdict(value, baselines, measure),
        figures=_figures(value, baselines, measure, model, rows),
        sections=[
            Section("result", Both("Who is ahead", "谁领先"), [_result(value, baselines, measure)]),
            Section("curves", Both("Training", "训练过程"), _curves(rows, baselines, measure, best)),
            *_samples(folder),
            *parts,
            Section("size", Both("Size", "规模"), [_size(model)]),
            Section("use", Both("Use it", "如何使用"), _uses(folder, about)),
            Section("card", Both("Card", "说明卡"), _card(config, about, notes, began)),
        ],
    )


def _nothing(why: str) -> Section:
    said = Both(
        "What is measured on the validation data is left out, because they cannot be read: {why}",
        "验证数据无法读取，因此缺少在其上测量的部分：{why}",
    )
    return Section("missing", Both("Not measured", "未测量"), [Text(said(why=why))])


def _figures(
    value: float, baselines: dict[str, float], measure: Measure, model: Model, rows: Sequence[Row]
) -> list[Figure]:
    name = Both("validation, {name}", "验证集{name}")(name=term(measure.name))
    found = [Figure(name, measure.figure(value))]
    others = [row for row in standing(value, baselines, measure) if row[0] in baselines]
    if others:
        first, figure = others[0]
        found.append(
            Figure(Both("best baseline: {name}", "最佳基线：{name}")(name=term(first)), measure.figure(figure))
        )
    found.append(Figure(Both("parameters", "参数量"), model.parameters))
    found.append(Figure(Both("training time", "训练时间"), Measured(span(rows[-1].seconds))))
    return found


def _result(value: float, baselines: dict[str, float], measure: Measure) -> Block:
    ordered = standing(value, baselines, measure)
    most = 1.0 if measure.share else max((v for _, v in ordered if math.isfinite(v)), default=1.0) or 1.0
    better = Both("less is better", "越低越好") if measure.lower_is_better else Both("more is better", "越高越好")
    title = Both("{name} on the validation data; {better}", "验证数据上的{name}，{better}")
    return Bars(
        title(name=term(measure.name), better=better),
        (Both("model", "模型"), term(measure.name)),
        [(term(name), each if math.isfinite(each) else most, measure.figure(each), ()) for name, each in ordered],
        most,
    )


# -------------------------------------------------------------------------------------------------------------- curves


def _curves(rows: Sequence[Row], baselines: dict[str, float], measure: Measure, best: tuple[int, float]) -> list[Block]:
    scale, form = (100.0, ".2f") if measure.share else (1.0, ".4f")
    step = Both("step", "步")
    trained = [(r.step, scale * r.training) for r in rows if r.training is not None]
    validated = [(r.step, scale * r.validation) for r in rows if r.validation is not None]
    series = [Series(Both("validation", "验证"), _thinned(validated))]
    if trained:
        series.append(Series(Both("training", "训练"), _thinned(trained), guides=False))
    name = term(measure.name)
    few = Both("{name} by step; best {value} at step {step}", "各步的{name}；最佳为第 {step} 步的 {value}")
    main = Lines(
        title=few(name=name, value=measure.figure(best[1]), step=best[0]),
        x=step,
        y=Both("{name}, percent", "{name}（百分比）")(name=name) if measure.share else name,
        series=series,
        levels=[(term(each), scale * level) for each, level in baselines.items()],
        form=form,
    )
    small = (
        (Both("training loss", "训练损失"), Both("nats", "奈特"), [(r.step, r.loss) for r in rows], ".4f"),
        (
            Both("learning rate", "学习率"),
            Both("step size of AdamW", "AdamW 步长"),
            [(r.step, r.learning_rate) for r in rows],
            ".3g",
        ),
        (
            Both("gradient norm before clipping", "裁剪前的梯度范数"),
            Both("norm", "范数"),
            [(r.step, r.gradient_norm) for r in rows],
            ".4g",
        ),
    )
    return [
        main,
        *(
            Lines(title, step, y, [Series(title, _thinned(points), guides=False)], form=form, small=True)
            for title, y, points, form in small
        ),
    ]


def _thinned(items: Sequence[Item], most: int = _POINTS) -> list[Item]:
    """At most so many of them, evenly, the last among them."""
    every = -(-len(items) // most)
    return [item for k, item in enumerate(items) if k % every == (len(items) - 1) % every]


def _samples(folder: Path) -> list[Section]:
    """What a language model wrote at its validations."""
    found = sorted((folder / SAMPLES).glob("step-*.txt"))
    if not found:
        return []
    above = Both("step {step}", "第 {step} 步")
    items = [
        (above(step=int(path.stem.removeprefix("step-"))), files.read_file(path).decode().rstrip())
        for path in _thinned(found, _SAMPLES)
    ]
    return [Section("samples", Both("Samples", "样例"), [Quotes(Both("What it wrote", "它写出的文本"), items)])]


# ---------------------------------------------------------------------------------------------------------------- card


def _size(model: Model) -> Block:
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Facts(
        Both("Parameters and memory", "参数与内存"),
        [
            (Both("parameters", "参数量"), model.parameters),
            (Both("memory of the weights", "权重占用内存"), _mebibytes(weights)),
            (
                Both(
                    "largest memory of the process that wrote this report, libraries and data included",
                    "生成本报告的进程所用的最大内存（含程序库与数据）",
                ),
                Measured(_mebibytes(peak)),
            ),
        ],
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _uses(folder: Path, about: About) -> list[Block]:
    run = os.fspath(folder)
    lines = [*about.uses, (Both("Write this report anew", "重新生成本报告"), "recurra report RUN")]
    python = "\n".join(["import recurra", "", f"model = recurra.load({run!r})", *about.python])
    commands = [(what, line.replace("RUN", shlex.quote(run))) for what, line in lines]
    return [Commands([*commands, (Both("From Python", "在 Python 中"), python)])]


def _trained(chosen: Settings) -> Both:
    """The settings that matter most, in a sentence."""
    sentence = Both(
        "{steps} steps, batch {batch}, learning rate {rate}, dropout {dropout}, weight decay {decay}, {precision}",
        "{steps} 步，批大小 {batch}，学习率 {rate}，dropout {dropout}，权重衰减 {decay}，{precision}",
    )
    return sentence(
        steps=chosen.steps or 0,
        batch=chosen.batch or 0,
        rate=f"{chosen.learning_rate or 0:g}",
        dropout=f"{chosen.dropout or 0:g}",
        decay=f"{chosen.weight_decay:g}",
        precision=chosen.precision,
    )


def _card(config: Config, about: About, notes: Sequence[str], began: float) -> list[Block]:
    data = config.data
    facts: list[tuple[Said, Cell]] = [
        (Both("name", "名称"), data.name),
        (Both("path", "路径"), data.path),
        ("sha256", data.sha256),
        *about.data,
        (Both("training", "训练"), _trained(config.settings)),
        (Both("seed", "随机种子"), str(config.settings.seed)),
        (Both("versions", "版本"), f"Recurra {config.recurra}, PyTorch {config.torch}"),
    ]
    chosen = msgspec.to_builtins(config.settings)
    settings = [(name, str(value)) for name, value in chosen.items() if value is not None]
    title = Both("Every setting, complete (config.toml)", "全部设置（config.toml）")
    blocks: list[Block] = [
        Facts(Both("Data and split", "数据与划分"), facts),
        Table(title, (Both("setting", "设置"), Both("value", "值")), settings, folded=True),
        *([Points(Both("Limits", "局限"), about.limits)] if about.limits else []),
    ]
    if notes:
        said = Both("What the run said of the data", "运行时关于数据的提示（英文原文）")
        blocks.append(Quotes(said, [("", "\n".join(notes))]))
    cost = Both("Measuring what is in this report took {time}.", "测量本报告中的内容用时 {time}。")
    return [*blocks, Text(Measured(cost(time=span(time.perf_counter() - began))))]

"""What a report shows of a classifier: its labels and how they are confused, its worst errors, how fast it answers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from recurra.data.columns import Labelled
from recurra.data.words import is_chinese
from recurra.report.blocks import About, Bars, Block, Cell, Matrix, Section, Table, Text
from recurra.report.words import Both, Said, listed
from recurra.tasks.classifier_report import Classification, LabelScore, report
from recurra.tasks.label_report import SeveralLabels, several_report
from recurra.tasks.latency import Call, latency
from recurra.tasks.terms import term

if TYPE_CHECKING:
    from recurra.tasks.classifier import Classifier

_ROWS = 10_000  # of validation that are read once more at most
_IN_A_MATRIX = 12  # labels; more are shown as bars of F1
_BARS = 60
_WORST = 12
_LONGEST = 400  # characters of a text that are shown


def about(model: "Classifier") -> About:
    """The network, the data card, the limits, and how the model is used."""
    sizes, card = model.sizes, model.data
    kinds = {
        "recurrent": Both("", f"{'双向' if sizes.bidirectional else ''}{(sizes.cell or '').upper()}"),
        "mlp": Both("", "感知机"),
        "cnn": Both("", "卷积"),
        "transformer": Both("", "Transformer"),
        "bag": Both("", "词袋感知机"),
    }
    kind, noun = kinds[sizes.encoder].zh, term(model.lexicon.kind).zh
    chinese = f"{sizes.layers} 层{kind}，每层 {sizes.hidden} 个单元，{len(model.lexicon.symbols):,} 个{noun}"
    data: list[tuple[Said, Cell]] = []
    if card is not None:
        data += [
            (
                Both("columns", "列"),
                Both("text {text}, label {label}", "文本 {text}，标签 {label}")(text=card.text, label=card.label),
            ),
            *((Both("rows for {part}", "{part}行数")(part=term(part)), count) for part, count in card.rows.items()),
        ]
        data += [(Both("more rows to train on", "附加训练数据"), card.extra)] if card.extra else []
    labels = listed([*model.labels[:_IN_A_MATRIX], *(["…"] if len(model.labels) > _IN_A_MATRIX else [])])
    data.append((Both("labels ({n})", "标签（{n} 个）")(n=len(model.labels)), labels))
    first = Both("Label a text", "给一条文本打标签")
    every = Both("Label the lines of a file, with all probabilities", "给文件中的每一行打标签，并给出全部概率")
    again = Both("Measure it on another table", "在另一份表格上评测")
    example = "房间很干净。" if is_chinese(model.lexicon.symbols) else "A lovely place."
    return About(
        kind=Both("Text classifier", "文本分类器"),
        network=Both(model.description, chinese),
        data=data,
        limits=_LIMITS,
        uses=[
            (first, f'recurra predict RUN "{example}"'),
            (every, "recurra predict RUN --file texts.txt --json"),
            (again, "recurra eval RUN other.csv"),
        ],
        python=[f'model.predict(["{example}"])', f'model.probabilities(["{example}"])'],
        chinese=is_chinese(model.lexicon.symbols),
    )


_LIMITS = (
    Both(
        "It always answers with one of its labels, also for a text that has nothing to do with any.",
        "它总会给出其中一个标签，即使文本与任何标签都无关。",
    ),
    Both(
        "Symbols that training had too seldom are read as one reserved symbol.",
        "训练中出现太少的符号一律读作同一个保留符号。",
    ),
    Both(
        "The validation rows chose the best checkpoint and the temperature of the probabilities, so their figures are "
        "slightly on the good side.",
        "最佳检查点和概率的温度都由验证数据选出，因此验证结果略偏乐观。",
    ),
)  # fmt: skip


def sections(model: "Classifier", rows: Labelled, targets: Tensor, threads: int) -> list[Section]:
    """The sections, measured on validation rows and their labels' numbers (N,)."""
    kept = range(min(len(rows), _ROWS))
    texts, targets = [rows.texts[k] for k in kept], targets[: len(kept)]
    probabilities = model.distribution(texts)
    if model.several:
        found = several_report(rows.name, probabilities, targets, model.labels, model.threshold, {}, ())
        return [
            Section("labels", Both("Labels", "各标签"), [Text(_overall_several(found)), _bars(found.labels)]),
            Section("speed", Both("Speed", "速度"), _speed(model, texts, threads)),
        ]
    measured = report(rows.name, probabilities, targets, model.labels, {}, ())
    some = [] if len(kept) == len(rows) else [Text(_SOME(n=len(kept), all=len(rows)))]
    return [
        Section(
            "labels", Both("Labels", "各标签"), [*some, Text(_overall(measured)), *_labels(model.labels, measured)]
        ),
        Section(
            "errors", Both("The worst errors", "最严重的错误"), _errors(model.labels, texts, targets, probabilities)
        ),
        Section("speed", Both("Speed", "速度"), _speed(model, texts, threads)),
    ]


_SOME = Both(
    "Of the {all} validation rows the first {n} were read for this and the next section.",
    "本节与下一节只读取了 {all} 行验证数据中的前 {n} 行。",
)


def _overall(measured: Classification) -> Both:
    sentence = Both(
        "{rows} validation rows: macro F1 {f1}, mean of -ln p of the true label {loss} nats, calibration error "
        "{error}.",
        "{rows} 行验证数据：宏平均 F1 {f1}，真实标签的 -ln p 平均为 {loss} 奈特，校准误差 {error}。",
    )
    return sentence(
        rows=measured.rows,
        f1=_percent(measured.macro_f1),
        loss=f"{measured.loss:.3f}",
        error=_percent(measured.calibration_error),
    )


def _overall_several(measured: SeveralLabels) -> Both:
    sentence = Both(
        "{rows} validation rows: micro F1 {micro}, macro F1 {macro}, all labels right in {exact}; a label is given "
        "from a probability of {threshold} on.",
        "{rows} 行验证数据：微平均 F1 {micro}，宏平均 F1 {macro}，标签全对 {exact}；概率达到 {threshold} 即给出标签。",
    )
    return sentence(
        rows=measured.rows,
        micro=_percent(measured.micro_f1),
        macro=_percent(measured.macro_f1),
        exact=_percent(measured.exact),
        threshold=f"{measured.threshold:.2f}",
    )


def _labels(names: Sequence[str], measured: Classification) -> list[Block]:
    """F1 of each label; of few labels the confusion matrix, of many the most frequent confusions."""
    blocks: list[Block] = [_bars(measured.labels)]
    if len(names) <= _IN_A_MATRIX:
        counts = [[measured.confusion[true].get(guess, 0) for guess in names] for true in names]
        title = Both("Confusion matrix; right answers are framed", "混淆矩阵（加框为正确）")
        return [Matrix(title, Both("true", "真实"), Both("predicted", "预测"), names, counts), *blocks]
    pairs = [
        (count, true, guess)
        for true, row in measured.confusion.items()
        for guess, count in row.items()
        if true != guess
    ]
    if pairs:
        rows = [(true, guess, count) for count, true, guess in sorted(pairs, key=lambda p: (-p[0], *p[1:]))[:_WORST]]
        columns = (Both("true", "真实"), Both("predicted", "预测"), Both("rows", "行数"))
        blocks.append(Table(Both("The most frequent confusions", "最常见的混淆"), columns, rows))
    return blocks


def _bars(labels: Mapping[str, LabelScore]) -> Bars:
    head = (Both("label", "标签"), "F1", Both("precision", "精确率"), Both("recall", "召回率"), Both("rows", "行数"))
    worst = sorted(labels.items(), key=lambda row: (row[1].f1, row[0]))
    bars: list[tuple[Said, float, str, Sequence[Cell]]] = [
        (name, s.f1, _percent(s.f1), (_percent(s.precision), _percent(s.recall), s.rows)) for name, s in worst[:_BARS]
    ]
    title = Both("F1 of each label, the lowest first", "各标签的 F1，从低到高")
    if len(worst) > _BARS:
        title = Both("F1 of the {n} labels that have the lowest", "F1 最低的 {n} 个标签")(n=_BARS)
    return Bars(title, head, bars)


def _errors(names: Sequence[str], texts: Sequence[str], targets: Tensor, probabilities: Tensor) -> list[Block]:
    """The texts about which the model was surest and wrong."""
    sure, predicted = probabilities.max(1)
    wrong = [k for k in range(len(texts)) if predicted[k] != targets[k]]
    if not wrong:
        return [Text(Both("No validation row was labelled wrongly.", "验证数据中没有一行标错。"))]
    wrong.sort(key=lambda k: (-float(sure[k]), k))
    rows = [
        (
            _shown(texts[k]),
            names[int(targets[k])],
            _percent(float(probabilities[k, targets[k]])),
            names[int(predicted[k])],
            _percent(float(sure[k])),
        )
        for k in wrong[:_WORST]
    ]
    said = Both(
        "{n} of {all} validation rows were labelled wrongly. These are the ones the model was surest about.",
        "{all} 行验证数据中有 {n} 行标错。以下是模型最有把握却标错的文本。",
    )
    head = (
        Both("text", "文本"), Both("true", "真实"), Both("its p", "其概率"), Both("predicted", "预测"),
        Both("its p", "其概率"),
    )  # fmt: skip
    caption = Both("Surest and wrong", "最有把握的错误")
    return [Text(said(n=len(wrong), all=len(texts))), Table(caption, head, rows)]


def _speed(model: "Classifier", texts: Sequence[str], threads: int) -> list[Block]:
    """One text, of middle length, and a batch of 32."""
    ordered = sorted(texts, key=len)
    one = ordered[len(ordered) // 2]
    batch = [texts[k % len(texts)] for k in range(32)]
    symbols = [sum(len(model.lexicon.encode(text)) for text in each) for each in ([one], batch)]
    calls = [
        Call(Both("one text", "一条文本"), lambda: model.predict(one), symbols[0]),
        Call(Both("32 texts at once", "32 条文本一批"), lambda: model.predict(batch), symbols[1]),
    ]
    return latency(calls, threads)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"

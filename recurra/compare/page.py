"""compare.html: the table, and validation against steps; one file that needs no network."""

from recurra.compare.result import Comparison
from recurra.report.blocks import Block, Cell, Document, Facts, Lines, Measured, Section, Series, Table, Text
from recurra.report.html import html
from recurra.report.words import Both, Language

_HEAD = (
    Both("model", "模型"), Both("training", "训练时间"), Both("parameters", "参数"),
    Both("memory", "内存"), Both("latency", "延迟"),
)  # fmt: skip


def page(comparison: Comparison, language: Language = "en") -> str:
    """The whole file."""
    measure = comparison.measure
    best = comparison.best
    lead = Both(
        f"{best.name}: {comparison.figure(best)} {measure.name}",
        f"{best.name}：{comparison.figure(best)} {measure.name}",
    )
    rows: list[list[Cell]] = [
        [row[0], row[1], Measured(row[2]), row[3], Measured(row[4]), Measured(row[5])] for row in comparison.table[1:]
    ]
    blocks: list[Block] = [
        Table(Both("Models, the best first", "各模型，最好的在前"), [_HEAD[0], measure.name, *_HEAD[1:]], rows)
    ]
    blocks += [Text(f"{entry.name}: {entry.failed}") for entry in comparison.entries if entry.failed]
    blocks.append(
        Text(
            Both(
                "Figures are of the validation data, by which one chooses; the test was not read.",
                "数字均来自用于选择的验证数据；没有读取测试数据。",
            )
        )
    )
    curves = [Series(entry.name, entry.curve) for entry in comparison.entries if len(entry.curve) > 1]
    levels = [(entry.name, entry.value) for entry in comparison.entries if not entry.runs and entry.value is not None]
    if curves:
        blocks.append(Lines(Both("Validation", "验证"), Both("step", "步"), measure.name, curves, levels))
    facts = [(name, str(value)) for name, value in comparison.settings.items()]
    sections = [Section("models", Both("Models", "模型"), blocks)]
    if facts:
        given = Facts(Both("What all models were given", "所有模型共用的设置"), facts)
        sections.append(Section("settings", Both("Settings", "设置"), [given]))
    title = Both(f"Comparison: {comparison.data}", f"比较：{comparison.data}")
    return html(Document(title, comparison.task, lead, [], sections), language)

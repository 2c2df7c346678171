"""What the models of text tell of themselves in a report, in English and in Chinese: names, and who is ahead."""

import re

from recurra.report.words import Both, listed
from recurra.tasks import measure
from recurra.tasks.measure import MODEL, Measure

TERMS = {
    MODEL: Both(MODEL, "本模型"),
    "accuracy": Both("accuracy", "准确率"),
    "bits per character": Both("bits per character", "每字符比特数"),
    "perplexity": Both("perplexity", "困惑度"),
    "micro F1": Both("micro F1", "微平均 F1"),
    "span F1": Both("span F1", "片段 F1"),
    "tagging": Both("Tagger", "序列标注模型"),
    "averaged perceptron": Both("averaged perceptron", "平均感知机"),
    "most frequent tag of each word": Both("most frequent tag of each word", "每个词最常见的标签"),
    "unigram": Both("unigram", "一元模型"),
    "3-gram": Both("3-gram", "三元模型"),
    "5-gram": Both("5-gram", "五元模型"),
    "majority class": Both("majority class", "最常见的标签"),
    "linear model on character n-grams": Both("linear model on character n-grams", "字符 n 元线性模型"),
    "characters": Both("characters", "字符"),
    "words": Both("words", "词"),
    "pieces": Both("pieces", "词片"),
    "symbols": Both("symbols", "符号"),
    "bpe": Both("pieces of words (BPE)", "词片（BPE）"),
    "training": Both("training", "训练"),
    "train": Both("training", "训练"),
    "validation": Both("validation", "验证"),
    "test": Both("test", "测试"),
}  # the names that measures, baselines, units and parts have in the code

_PART = re.compile(r"(.+) of the (first|last) ([\d,]+) (rows|characters|sentences)")
_PARTS = {
    "first rows": Both("{name} of the first {n} rows", "{name}（前 {n} 行）"),
    "first sentences": Both("{name} of the first {n} sentences", "{name}（前 {n} 句）"),
    "last characters": Both("{name} of the last {n} characters", "{name}（末 {n} 字符）"),
}


def term(name: str) -> Both:
    """A name in both languages; one that is not known stays as it is."""
    if (found := _PART.fullmatch(name)) and (sentence := _PARTS.get(f"{found[2]} {found[4]}")):
        return sentence(name=term(found[1]), n=found[3])
    return TERMS.get(name, Both(name, name))


def verdict(value: float, baselines: dict[str, float], of: Measure) -> Both:
    """Who is ahead, the model or one of the baselines, with everyone's figure."""
    name = term(of.name)
    if not baselines:
        alone = f"本模型的{name.zh}为 {of.figure(value)}，没有可比较的基线。"
        return Both(measure.verdict(value, baselines, of), alone)
    ordered = measure.standing(value, baselines, of)
    first = ordered[0][1]
    leading = "、".join(term(each).zh for each, figure in ordered if figure == first)
    behind = [Both("", f"{term(each).zh} {of.figure(figure)}") for each, figure in ordered if figure != first]
    level = "并列第一" if sum(figure == first for _, figure in ordered) > 1 else "领先"
    others = f"；其后：{listed([*behind]).zh}" if behind else ""
    chinese = f"{leading}{level}，{name.zh}为 {of.figure(first)}{others}。"
    return Both(measure.verdict(value, baselines, of), chinese)

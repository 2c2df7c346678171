"""What a report shows of a language model: a passage shaded by how surprised it was, how fast it writes."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from recurra.data.symbols import END
from recurra.data.words import is_chinese
from recurra.report.blocks import About, Block, Cell, Section, Shades, Table, Text
from recurra.report.words import Both, Said
from recurra.tasks.latency import Call, latency
from recurra.tasks.scoring import score
from recurra.tasks.terms import term

if TYPE_CHECKING:
    from recurra.tasks.language_model import LanguageModel

_PASSAGE = 400  # symbols that are shaded
_RUN_IN = 100  # symbols before them that are read without being shown
_MOST_BITS = 10.0  # of the darkest shade
_WRITTEN = 10  # symbols of one timed call
_HARDEST = 10


def about(model: "LanguageModel") -> About:
    """The network, the data card, the limits, and how the model is used."""
    sizes, card, unit = model.sizes, model.data, term(model.unit)
    chinese, kind = is_chinese(model.vocabulary.symbols), sizes.cell or sizes.encoder
    data: list[tuple[Said, Cell]] = []
    if card is not None:
        data.append((Both("characters", "字符数"), card.characters))
        for part, count in card.parts.items():
            data.append((Both("characters for {part}", "{part}字符数")(part=term(part)), count))
        if not card.parts:
            kept = Both("its last {share}", "末尾 {share}")(share=f"{card.validation:.0%}")
            data.append((Both("kept for validation", "留作验证"), kept))
    data.append((Both("different {unit}", "不同的{unit}数")(unit=unit), len(model.vocabulary.symbols)))
    prompt = "明月" if chinese else "The "
    blank = "明月____" if chinese else "The ____."
    return About(
        kind=Both("Language model of {unit}", "{unit}语言模型")(unit=unit),
        network=Both(model.description, f"{sizes.layers} 层 {kind.upper()}，每层 {sizes.hidden} 个单元"),
        data=data,
        limits=_LIMITS,
        uses=[
            (
                Both("Let it write", "让它写"),
                f'recurra generate RUN --prompt "{prompt}" --length 300 --temperature 0.8',
            ),
            (Both("Fill a blank", "填空"), f'recurra fill RUN "{blank}"'),
            (Both("Measure it on another text", "在另一份文本上评测"), "recurra eval RUN other.txt"),
        ],
        python=[f'model.generate("{prompt}", length=300, temperature=0.8)', 'model.evaluate("other.txt")'],
        chinese=chinese,
    )


_LIMITS = (
    Both(
        "It predicts the next symbol from those before it and knows nothing but its training text: what it writes has "
        "that text's form, not its truth.",
        "它只根据前文预测下一个符号，除训练文本外一无所知：它写出的内容有那份文本的形式，未必真实。",
    ),
    Both(
        "Symbols outside its vocabulary are read as one reserved symbol and never written.",
        "词表之外的符号一律读作同一个保留符号，也不会被写出。",
    ),
    Both(
        "The validation text chose the best checkpoint, so its figure is slightly on the good side.",
        "最佳检查点由验证文本选出，因此验证结果略偏乐观。",
    ),
)  # fmt: skip


def sections(model: "LanguageModel", kept: str, threads: int) -> list[Section]:
    """The sections, measured on the validation text."""
    return [
        Section("surprise", Both("Where it is surprised", "它在哪里感到意外"), _surprise(model, kept)),
        Section("speed", Both("Speed", "速度"), _speed(model, kept, threads)),
    ]


@torch.no_grad()
def _surprise(model: "LanguageModel", kept: str) -> list[Block]:
    """The beginning of the validation text, each symbol shaded by -log2 of its probability, given those before it."""
    vocabulary = model.vocabulary
    whole = vocabulary.encode(kept[: 40 * (_PASSAGE + _RUN_IN)])[: _PASSAGE + _RUN_IN + 1]
    numbers = torch.from_numpy(whole)
    model.network.eval()
    scores, _ = model.network(numbers[:-1, None])
    bits = F.cross_entropy(scores[:, 0].float(), numbers[1:], reduction="none") / math.log(2)
    first = min(_RUN_IN, max(0, len(bits) - _PASSAGE))
    shown = [int(n) for n in whole[1 + first :]]
    texts = [text.replace(END, "¶") for text in vocabulary.pieces(shown, int(whole[first]))]
    pieces = list(zip(texts, bits[first:].tolist(), strict=True))
    said = Both(
        "A passage of the validation text that training has not seen. The stronger the shade of a piece, the less "
        "the model expected it; underlined are those of {strong} bits and more. The mean here is {mean} bits.",
        "验证文本中未参与训练的一段。底色越重，模型越没有料到；"
        "带下划线的达到 {strong} 比特以上。此处平均 {mean} 比特。",
    )(strong=f"{0.6 * _MOST_BITS:g}", mean=f"{sum(b for _, b in pieces) / len(pieces):.2f}")
    hardest = sorted(pieces, key=lambda piece: -piece[1])[:_HARDEST]
    head = (Both("piece", "片段"), Both("bits", "比特"), Both("probability", "概率"))
    rows = [(repr(text), f"{b:.2f}", f"{2.0**-b:.2g}") for text, b in hardest]
    return [
        Text(said),
        Shades(Both("Surprise", "意外程度"), pieces, _MOST_BITS, Both("bits", "比特")),
        Table(Both("What it expected least", "最出乎意料的部分"), head, rows, folded=True),
    ]


def _speed(model: "LanguageModel", kept: str, threads: int) -> list[Block]:
    """What it writes symbol by symbol, and texts that it reads whole."""
    text = kept[:200].strip() or kept[:200]
    reader, vocabulary = model.reader(), model.vocabulary
    read = len(vocabulary.encode(text))
    calls = [
        Call(
            Both("writing {n} {unit}", "写 {n} 个{unit}")(n=_WRITTEN, unit=term(model.unit)),
            lambda: model.generate("", _WRITTEN, seed=1),
            _WRITTEN,
        ),
        Call(Both("scoring one text", "给一条文本评分"), lambda: score(reader, vocabulary, [text]), read),
        Call(Both("32 texts at once", "32 条文本一批"), lambda: score(reader, vocabulary, [text] * 32), 32 * read),
    ]
    return latency(calls, threads)

"""A document as one HTML file: no script, nothing from elsewhere, all text escaped, no colour without a mark."""

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from recurra.report.blocks import (
    Bars,
    Block,
    Cell,
    Commands,
    Document,
    Facts,
    Lines,
    Matrix,
    Measured,
    Points,
    Quotes,
    Section,
    Shades,
    Table,
    Text,
)
from recurra.report.chart import chart, overflow
from recurra.report.style import STYLE
from recurra.report.words import Both, Language, Said, say

_LOCALES: dict[Language, str] = {"en": "en", "zh": "zh-CN"}
_FIGURE = re.compile(r"-?[\d,]+(\.\d+)?(e[+-]?\d+)?( (%|\w{1,3}|毫秒|微秒|秒))?|inf|–")
_STACKED = 4  # columns from which a table is a list of rows in a narrow window
_STRONG = 0.6  # share of `Shades.most` from which a piece is underlined
_SHADE = 0.5  # the darkest shade's opacity: text on it can still be read, in light and dark

_CONTENTS = Both("Contents", "目录")
_SKIP = Both("Skip to the report", "跳到正文")
_BEHIND = Both("The figures of this plot as a table", "此图数据的表格")
_OVER = Both("The steep beginning lies above the plot; the table has it.", "开头陡降的部分在图框之上，见下表。")
_MADE = Both(
    "Written by Recurra. One file: it needs no network and runs nothing.",
    "由 Recurra 生成。单个文件，不需要网络，不运行任何脚本。",
)


def html(document: Document, language: Language) -> str:
    """The whole file."""
    title = _text(document.title, language)
    links = "".join(f'<li><a href="#{s.name}">{_text(s.title, language)}</a></li>' for s in document.sections)
    figures = "".join(
        f"<div><dt>{_text(f.name, language)}</dt><dd>{_cell(f.value, language)}</dd></div>" for f in document.figures
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{_LOCALES[language]}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#report">{_text(_SKIP, language)}</a>\n<header>\n<h1>{title}</h1>\n'
        f'<p class="subtitle">{_text(document.subtitle, language)}</p>\n'
        f'<p class="lead">{_text(document.lead, language)}</p>\n<dl class="figures">{figures}</dl>\n</header>\n'
        f'<nav aria-label="{_text(_CONTENTS, language)}"><ul>{links}</ul></nav>\n<main id="report">\n'
        + "".join(_section(section, language) for section in document.sections)
        + f"</main>\n<footer>{_text(_MADE, language)}</footer>\n</body>\n</html>\n"
    )


def _section(section: Section, language: Language) -> str:
    """Small plots that follow one another stand side by side where there is room."""
    parts: list[str] = []
    pair: list[str] = []
    for block in [*section.blocks, None]:
        if isinstance(block, Lines) and block.small:
            pair.append(_block(block, language))
            continue
        if pair:
            parts.append(f'<div class="pair">{"".join(pair)}</div>\n')
            pair = []
        if block is not None:
            parts.append(_block(block, language))
    name = escape(section.name, quote=True)
    return f'<section id="{name}">\n<h2>{_text(section.title, language)}</h2>\n{"".join(parts)}</section>\n'


def _text(said: Said, language: Language) -> str:
    return escape(say(said, language), quote=True)


def _cell(cell: Cell, language: Language) -> str:
    if isinstance(cell, Measured):
        return f'<span class="measured">{_text(cell.said, language)}</span>'
    return _text(cell, language)


def _is_figure(cell: Cell) -> bool:
    said = cell.said if isinstance(cell, Measured) else cell
    return isinstance(said, int) or bool(_FIGURE.fullmatch(say(said, "en")))


# -------------------------------------------------------------------------------------------------------------- blocks


def _block(block: Block, language: Language) -> str:
    return _WRITERS[type(block)](block, language)


def _paragraph(block: Text, language: Language) -> str:
    return f"<p>{_cell(block.said, language)}</p>\n"


def _points(block: Points, language: Language) -> str:
    items = "".join(f"<li>{_text(item, language)}</li>" for item in block.items)
    return f"<h3>{_text(block.title, language)}</h3>\n<ul>{items}</ul>\n"


def _table(block: Table, language: Language) -> str:
    kept = [all(_is_figure(row[k]) for row in block.rows) for k in range(len(block.head))]
    caption = "" if block.folded else f"<caption>{_text(block.caption, language)}</caption>"
    stack = not block.folded and len(block.head) >= _STACKED
    heads = [_text(head, language) for head in block.head] if stack else None
    opened = '<table class="stack">' if stack else "<table>"
    table = (
        f"{opened}{caption}<thead><tr>{_cells('th', block.head, kept, language)}</tr></thead><tbody>"
        + "".join(f"<tr>{_cells('td', row, kept, language, heads)}</tr>\n" for row in block.rows)
        + "</tbody></table>"
    )
    wide = _wide(table, block.caption, language)
    return _folded(block.caption, wide, language) if block.folded else wide


def _cells(
    tag: str, cells: Sequence[Cell], figures: Sequence[bool], language: Language, heads: Sequence[str] | None = None
) -> str:
    """The cells of a row, figures to the right; in a narrow window each carries its head."""
    scope, right = ' scope="col"' if tag == "th" else "", ' class="n"'
    carried = [f' data-head="{head}"' for head in heads] if heads else [""] * len(cells)
    return "".join(
        f"<{tag}{scope}{right if figure else ''}{head}>{_cell(cell, language)}</{tag}>"
        for cell, figure, head in zip(cells, figures, carried, strict=True)
    )


def _wide(table: str, caption: Said, language: Language) -> str:
    """A table that may be wider than the window scrolls by itself, with the arrow keys too."""
    label = _text(caption, language)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{table}</div>\n'


def _folded(caption: Said, inside: str, language: Language) -> str:
    return f"<details><summary>{_text(caption, language)}</summary>{inside}</details>\n"


def _facts(block: Facts, language: Language) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name, language)}</th><td>{_cell(value, language)}</td></tr>\n'
        for name, value in block.rows
    )
    return f'<table class="facts"><caption>{_text(block.caption, language)}</caption><tbody>{rows}</tbody></table>\n'


def _lines(block: Lines, language: Language) -> str:
    over = f'<p class="over">{_text(_OVER, language)}</p>' if overflow(block) else ""
    return (
        f'<figure class="together"><figcaption>{_text(block.title, language)}</figcaption>'
        f'<p class="over" aria-hidden="true">{_text(block.y, language)}</p>{chart(block, language)}{over}'
        f"{_table(_behind(block), language)}</figure>\n"
    )


def _behind(block: Lines) -> Table:
    """The table of a plot: a row for each x, then one for each level."""
    xs = sorted({x for series in block.series for x, _ in series.points})
    columns = [dict(series.points) for series in block.series]
    rows: list[list[Cell]] = [
        [f"{x:,g}", *(format(column[x], block.form) if x in column else "–" for column in columns)] for x in xs
    ]
    rows += [[name, format(level, block.form), *["–"] * (len(columns) - 1)] for name, level in block.levels]
    return Table(_BEHIND, [block.x, *(series.name for series in block.series)], rows, folded=True)


def _bars(block: Bars, language: Language) -> str:
    head = [block.head[0], "", *block.head[1:]]
    figures = [False, False, *[True] * (len(block.head) - 1)]
    rows = []
    for name, length, figure, more in block.rows:
        wide = 100 * min(1.0, max(0.0, length / block.most))
        rows.append(
            f'<tr><th scope="row">{_text(name, language)}</th><td class="bar"><svg viewBox="0 0 100 10" '
            f'preserveAspectRatio="none" aria-hidden="true"><rect width="{wide:.1f}" height="10"/></svg></td>'
            f"{_cells('td', [figure, *more], [True] * (1 + len(more)), language)}</tr>\n"
        )
    table = (
        f'<table class="bars"><caption>{_text(block.title, language)}</caption><thead><tr>'
        f"{_cells('th', head, figures, language)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return _wide(table, block.title, language)


def _matrix(block: Matrix, language: Language) -> str:
    corner = f"{_text(block.row, language)} ↓ · {_text(block.column, language)} →"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in block.names)
    rows, right = [], ' class="right"'
    for number, (name, counts) in enumerate(zip(block.names, block.counts, strict=True)):
        whole = sum(counts) or 1
        cells = "".join(
            f'<td{right if k == number else ""} style="--share:{_SHADE * n / whole:.3f}">{n:,}</td>'
            for k, n in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>\n')
    table = (
        f'<table class="matrix"><caption>{_text(block.title, language)}</caption><thead><tr>'
        f'<th scope="col" class="corner">{corner}</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return _wide(table, block.title, language)


def _quotes(block: Quotes, language: Language) -> str:
    items = "".join(
        f'<div class="together">{_above(above, language)}<blockquote>{escape(text)}</blockquote></div>\n'
        for above, text in block.items
    )
    return f"<figure><figcaption>{_text(block.title, language)}</figcaption>{items}</figure>\n"


def _shades(block: Shades, language: Language) -> str:
    pieces = []
    for text, strength in block.pieces:
        share = min(1.0, max(0.0, strength / block.most))
        strong = ' class="strong"' if share >= _STRONG else ""
        pieces.append(
            f'<span{strong} style="--share:{_SHADE * share:.2f}" '
            f'title="{strength:.1f} {_text(block.unit, language)}">{escape(text)}</span>'
        )
    title = _text(block.title, language)
    return f'<figure><figcaption>{title}</figcaption><div class="shades">{"".join(pieces)}</div></figure>\n'


def _commands(block: Commands, language: Language) -> str:
    return "".join(
        f'<div class="together">{_above(what, language)}<pre><code>{escape(line)}</code></pre></div>\n'
        for what, line in block.items
    )


def _above(said: Said, language: Language) -> str:
    return f'<p class="above">{_text(said, language)}</p>' if said else ""


_WRITERS: dict[type, Callable[[Any, Language], str]] = {
    Text: _paragraph,
    Points: _points,
    Table: _table,
    Facts: _facts,
    Lines: _lines,
    Bars: _bars,
    Matrix: _matrix,
    Quotes: _quotes,
    Shades: _shades,
    Commands: _commands,
}

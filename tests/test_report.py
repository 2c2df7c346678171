"""report.html: one file, in two languages, that runs nothing, holds the run's own figures, and never harms a run."""

import ast
import csv
import json
import re
import string
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from generators import sentiment
from runs import ALPHABET, Recorder
from runs import TINY as TINY_LANGUAGE

import recurra
from recurra import cli
from recurra.data.columns import Labelled
from recurra.data.symbols import Lexicon
from recurra.data.text import Text
from recurra.data.words import is_chinese
from recurra.errors import FileError, InputError
from recurra.report import blocks, html
from recurra.report.blocks import Block, Document, Lines, Section, Series
from recurra.report.chart import ticks
from recurra.report.words import Both, span
from recurra.tasks import terms
from recurra.tasks.classifier_report import ACCURACY
from recurra.tasks.classifier_sections import sections
from recurra.tasks.evaluation import BITS, MEASURES
from recurra.tasks.label_report import MICRO_F1
from recurra.tasks.tagger_report import F1
from recurra.training import reporting
from recurra.training.run import Run

ROOT = Path(__file__).parent.parent
EVIL = '<script>document.title="x"</script>"\'&<b>'
TINY: dict[str, Any] = {
    "hidden": 4, "embedding": 4, "batch": 8, "steps": 6, "eval_interval": 3, "log_interval": 1, "threads": 1,
    "dropout": 0.0,
}  # fmt: skip
VOID = {"meta", "rect", "path", "polyline"}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A classifier that is often wrong, of texts and labels that are HTML."""
    rows = [(f"{text} {EVIL}", {"good": "good", "bad": f"bad{EVIL}"}[label]) for text, label in sentiment(120)]
    return recurra.train(rows, task="classification", out=tmp_path_factory.mktemp("report") / "labels", **TINY)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Run:
    text = Text(f"verse{EVIL}.txt", ALPHABET + EVIL * 3)
    return recurra.train(text, out=tmp_path_factory.mktemp("report") / "text", **TINY_LANGUAGE)


class Page(HTMLParser):
    """Whether all that is opened is closed in order; the elements, the attributes and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def page(run: Run) -> Page:
    assert run.report is not None
    return Page(run.report.read_text())


def rendered(*made: Block, language: Any = "en") -> str:
    return html.html(Document("t", "s", "l", (), [Section("one", Both("One", "一"), made)]), language)


# ---------------------------------------------------------------------------------------------------------- one file


def test_every_run_has_one_and_it_is_well_formed(classifier: Run, language: Run) -> None:
    for run in (classifier, language):
        found = page(run)
        assert run.report == run.path / "report.html"
        names = [attributes["id"] for tag, attributes in found.elements if tag == "section"]
        assert len(names) == len(set(names)) and {"result", "curves", "speed", "size", "use", "card"} < set(names)
        links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
        assert {f"#{name}" for name in names} < set(links)
        assert found.count("h1") == 1 and found.count("main") == 1 and found.count("h2") == len(names)
        assert len(run.report.read_bytes()) < 200_000
    assert {"labels", "errors"} < {a.get("id") for _, a in page(classifier).elements}
    assert {"surprise", "samples"} < {a.get("id") for _, a in page(language).elements}


def test_it_needs_no_network_and_runs_nothing(classifier: Run, language: Run) -> None:
    for run in (classifier, language):
        text = run.report.read_text() if run.report else ""
        for tag, attributes in page(run).elements:
            assert tag not in {"script", "link", "img", "iframe", "object", "embed", "b"}
            assert not {"src", "onload", "onclick", "onerror"} & set(attributes)
            assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
        assert "&lt;script&gt;document.title=&quot;x&quot;" in text and "default-src 'none'" in text


def test_a_plot_has_words_and_a_table_behind_it(classifier: Run, language: Run) -> None:
    for run in (classifier, language):
        found = page(run)
        plots = [a for tag, a in found.elements if tag == "svg" and a.get("aria-hidden") != "true"]
        assert len(plots) == 4  # the measure, the loss, the learning rate, the norm of the gradient
        assert all(a["role"] == "img" and len(str(a["aria-label"])) > 20 for a in plots)
        assert "".join(found.words).count("The figures of this plot as a table") == len(plots)
        regions = [a for _, a in found.elements if a.get("class") == "wide"]
        assert regions and all(a["tabindex"] == "0" and a["aria-label"] for a in regions)  # the keyboard scrolls them


# ------------------------------------------------------------------------------------------------------------- figures


def test_its_figures_are_those_of_metrics_csv(classifier: Run, language: Run) -> None:
    for run, scale, form in ((classifier, 100, ".2f"), (language, 1, ".4f")):
        rows = page(run).rows
        with open(run.path / "metrics.csv", newline="") as file:
            metrics = list(csv.DictReader(file))
        assert len(metrics) >= 6
        for line in metrics:
            step = f"{int(line['step']):,}"
            assert [step, f"{float(line['loss']):.4f}"] in rows
            assert [step, f"{float(line['learning_rate']):.3g}"] in rows
            assert [step, f"{float(line['gradient_norm']):.4g}"] in rows
            measured = [step, f"{scale * float(line['validation']):{form}}" if line["validation"] else "–"]
            if run is language:
                measured.append(f"{float(line['bits_per_character']):.4f}")
            if line["validation"] or run is language:
                assert measured in rows
        for name, figure in run.baselines.items():
            assert any(row[0] == name and row[-1] == run.measure.figure(figure) for row in rows)


def test_the_errors_are_the_surest_and_the_matrix_adds_up(classifier: Run) -> None:
    rows, model = page(classifier).rows, classifier.model
    right, wrong = (row for row in rows if len(row) == 3 and row[0] in model.labels and row[1].isdigit())  # type: ignore[attr-defined]
    counts = [[int(n) for n in row[1:]] for row in (right, wrong)]
    assert sum(map(sum, counts)) == 12 and classifier.best is not None
    assert (counts[0][0] + counts[1][1]) / 12 == classifier.best.value
    worst = [row for row in rows if len(row) == 5 and EVIL in row[0]]
    assert len(worst) == 12 - counts[0][0] - counts[1][1] > 0
    assert [row[4] for row in worst] == sorted((row[4] for row in worst), key=lambda p: -float(p[:-2]))
    for text, true, p_true, guess, p_guess in worst:
        row = model.probabilities([text])[0]
        assert guess != true and (p_true, p_guess) == (f"{100 * row[true]:.2f} %", f"{100 * row[guess]:.2f} %")


def test_many_labels_are_bars_and_confusions() -> None:
    class Sure:
        """A classifier of forty labels that takes each for the next one, and the last three for what they are."""

        labels = tuple(f"l{k:02d}" for k in range(40))
        lexicon = Lexicon("words", [])
        several = False

        def distribution(self, texts: list[str]) -> torch.Tensor:
            return torch.eye(40)[[k if k > 36 else k + 1 for k in range(40)]]

        def predict(self, texts: object) -> None: ...

    model: Any = Sure()
    rows = Labelled("v", ["x"] * 40, list(model.labels), list(range(40)), "text", "label")
    first, errors, _ = sections(model, rows, torch.arange(40), 1)
    kinds = [type(block).__name__ for block in first.blocks]
    assert kinds == ["Text", "Bars", "Table"] and len(first.blocks[1].rows) == 40  # type: ignore[union-attr]
    assert "37 of 40" in errors.blocks[0].said.en  # type: ignore[union-attr]


def test_one_validation_and_no_baseline(classifier: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document of such a run: one dot, no level, and a sentence that says so."""
    rows = [row for row in classifier.history if row.step <= 3]
    monkeypatch.setattr(reporting, "read_rows", lambda path, names: rows)
    result: Any = classifier.model.result
    changed = type(result)(3, rows[-1].validation, {})
    monkeypatch.setattr(classifier.model, "result", changed)
    made = reporting.document(classifier.path, classifier.model, classifier.model.about(), [], [], 0.0)
    assert made.lead.en.endswith("there is no baseline to compare it with.")  # type: ignore[union-attr]
    assert made.lead.zh.endswith("没有可比较的基线。")  # type: ignore[union-attr]
    Page(html.html(made, "zh"))
    plot = next(block for s in made.sections for block in s.blocks if isinstance(block, Lines))
    assert [len(series.points) for series in plot.series] == [1] and not plot.levels


def test_what_is_not_finite_is_not_drawn() -> None:
    lines = Lines("t", "x", "y", [Series("a", [(0, 1.0), (1, float("inf")), (2, 3.0)])], [("b", float("inf"))])
    text = rendered(lines)
    drawn = text[text.index("<svg") : text.index("</svg>")]
    assert "inf" not in drawn and "nan" not in drawn and drawn.count(",") == 2
    assert rendered(Lines("t", "x", "y", [Series("a", [])]))  # nothing at all


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.234, 5.678), (-3.0, 4e6), (1e-9, 2e-9), (99.9, 100.0)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and all(low - 1e-9 * abs(low) <= t <= high * (1 + 1e-9) for t in found)


# ----------------------------------------------------------------------------------------------------------- languages


def sentences() -> list[tuple[str, str, str]]:
    """Every Both(…) of the sources: file and line, English, Chinese; f-strings with their holes."""
    found = []
    for file in sorted((ROOT / "recurra").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Both" and len(node.args) == 2:
                texts = [_written(argument) for argument in node.args]
                if None not in texts:
                    found.append((f"{file.name}:{node.lineno}", *texts))
    return found  # type: ignore[return-value]


def _written(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


SAME = {"Transformer"}


def test_every_sentence_exists_in_both_languages() -> None:
    found = sentences()
    assert len(found) > 80
    for where, english, chinese in found:
        bare = re.sub(r"{\w*}", "", english)
        assert re.search("[一-鿿]", chinese) or not re.search("[a-z]", bare) or english in SAME, where
        assert not re.search("[一-鿿]", english), where
        holes = [{name for _, name, *_ in string.Formatter().parse(text) if name} for text in (english, chinese)]
        assert holes[0] == holes[1] or not english, where
    with pytest.raises(TypeError):
        Both("alone")  # type: ignore[call-arg]


def test_names_of_measures_and_baselines_are_known(classifier: Run, language: Run) -> None:
    names = {m.name for m in (ACCURACY, MICRO_F1, F1, *MEASURES.values())}
    names |= {*classifier.baselines, *language.baselines}
    assert names <= set(terms.TERMS)
    cut = "linear model on character n-grams of the first 20,000 rows"
    assert terms.term(cut) == Both(cut, "字符 n 元线性模型（前 20,000 行）")
    assert terms.term("5-gram of the last 1,000 characters").zh == "五元模型（末 1,000 字符）"
    assert terms.term("my own").zh == "my own"


def test_who_is_ahead_in_chinese() -> None:
    assert terms.verdict(1.5, {"5-gram": 1.4, "unigram": 4.0}, BITS).zh == (
        "五元模型领先，每字符比特数为 1.400；其后：本模型 1.500、一元模型 4.000。"
    )
    level = terms.verdict(0.9, {"majority class": 0.9}, ACCURACY)
    assert level.zh == "本模型、最常见的标签并列第一，准确率为 90.00 %。"


def test_chinese_text_makes_a_chinese_report(tmp_path: Path) -> None:
    words = {"好": "房间干净服务热情", "差": "又脏又吵早餐很冷"}
    rows = [(f"{words[label][n % 5 :]}{'一二三四五六七八九'[n % 9]}", label) for n in range(60) for label in words]
    run = recurra.train(rows, out=tmp_path / "run", **TINY)
    text = run.report.read_text() if run.report else ""
    shown = Page(text)
    assert '<html lang="zh-CN">' in text and "文本分类器" in text and "准确率" in text
    ours = re.sub(r"<(style|pre|blockquote).*?</\1>|<details>.*?</details>|<[^>]+>", " ", text, flags=re.DOTALL)
    ours = re.sub(r"\b[0-9a-f]{64}\b|data.jsonl", "", ours)
    names = {
        "LSTM",
        "Recurra",
        "PyTorch",
        "Python",
        "AdamW",
        "dropout",
        "data",
        "text",
        "label",
    }  # the last three are the data's
    left = set(re.findall(r"[A-Za-z]{4,}", ours)) - names
    assert not left and shown.count("h2") >= 7
    english = recurra.report(run.path, "en").read_text()
    assert '<html lang="en">' in english and "Text classifier" in english


@pytest.mark.parametrize(
    ("symbols", "found"), [("的一是abc了我他", True), ("the of and 的", False), ("日本の漢字", False), ("", False)]
)
def test_what_is_chinese(symbols: str, found: bool) -> None:
    assert is_chinese(symbols) == found


def test_times_have_units() -> None:
    assert [span(t).en for t in (3.2e-6, 0.0123, 4.5, 600, 9000)] == ["3.2 µs", "12.3 ms", "4.5 s", "10 min", "2.5 h"]


# -------------------------------------------------------------------------------------------------- again, and failures


def constant(text: str) -> str:
    """The report but for what this machine measured."""
    return re.sub(r'<span class="measured">.*?</span>', "", text)


def test_written_anew_it_is_the_same(classifier: Run, language: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (classifier, language):
        assert run.report is not None
        first = run.report.read_text()
        assert cli.run(["report", str(run.path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"report": str(run.report)}
        assert constant(run.report.read_text()) == constant(first)


def test_after_resume_it_is_that_of_a_run_that_went_through(language: Run, tmp_path: Path) -> None:
    def stop(run: Run) -> None:
        raise KeyboardInterrupt

    text = Text(f"verse{EVIL}.txt", ALPHABET + EVIL * 3)
    with pytest.raises(KeyboardInterrupt):
        recurra.train(text, out=tmp_path / "text", observer=Recorder(6, stop), **TINY_LANGUAGE)
    run = recurra.resume(tmp_path / "text")
    assert run.report is not None and language.report is not None
    found, expected = (
        constant(r.read_text()).replace(str(folder.parent), "")
        for r, folder in ((run.report, run.path), (language.report, language.path))
    )
    assert found == expected


def test_ctrl_c_leaves_a_report(tmp_path: Path) -> None:
    import signal

    stop = Recorder(5, lambda run: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        recurra.train(Text("a", ALPHABET), out=tmp_path / "run", observer=stop, **TINY_LANGUAGE)
    assert "step 5" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device; all else of the run"),
        (ValueError("a\nfault"), "report.html was not written, for ValueError: a fault; all else of the run is whole."),
        (FileError("Full."), "report.html was not written: Full. `recurra report "),
        (KeyboardInterrupt(), "report.html was left out, by Ctrl-C; `recurra report "),
    ],
)
def test_a_failure_is_one_sentence_and_harms_nothing(
    classifier: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    assert classifier.report is not None
    before = classifier.report.read_bytes()
    monkeypatch.setattr(reporting, "html", fail)
    task: Any = type("NoTask", (), {"sections": lambda self, model: [], "notes": ()})()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert reporting.write_or_warn(classifier.path, task, classifier.model) is None
    (warning,) = caught
    assert said in str(warning.message) and "\n" not in str(warning.message)
    assert classifier.report.read_bytes() == before


def test_without_its_data_the_report_says_what_is_missing(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in sentiment(60)))
    run = recurra.train(table, out=tmp_path / "run", **TINY)
    table.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in sentiment(80, seed=3)))
    shown = Page(recurra.report(run.path).read_text())
    assert "cannot be read: " in (said := "".join(shown.words)) and "has changed since the run began" in said
    assert {"curves", "missing", "card"} < {a.get("id") for tag, a in shown.elements if tag == "section"}


def test_wrong_input_is_named(classifier: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"language='de' cannot be used; give en or zh, or leave it out\."):
        recurra.report(classifier.path, "de")  # type: ignore[arg-type]
    with pytest.raises(FileError, match="is not a run folder"):
        recurra.report(tmp_path)


def test_every_block_is_written() -> None:
    kinds = set(blocks.Block.__args__)  # type: ignore[attr-defined]
    assert kinds == set(html._WRITERS)

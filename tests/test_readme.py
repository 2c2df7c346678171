"""What README and docs say is run: every snippet, command and link.

The snippets of a page run in order, in one namespace, in a folder with `my.txt` and `other.txt`. Training is cut to a
few steps; nothing else is changed.
"""

import functools
import io
import os
import re
import shlex
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import recurra
from recurra import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
STEPS = 4
ARGUMENTS = {"language.py": ["my.txt", str(STEPS)]}  # to make an example short
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Snippet(NamedTuple):
    language: str
    line: int
    text: str


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [Snippet(m[1], text.count("\n", 0, m.start()) + 2, m[2]) for m in BLOCK.finditer(text)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two texts, a table and candidates, where training takes a few steps."""
    verse = "The cat sat on the mat, and the dog sat on the log.\n"
    (tmp_path / "my.txt").write_text(verse * 60)
    (tmp_path / "other.txt").write_text(verse.swapcase() * 10)
    (tmp_path / "texts").mkdir()
    for part, times in (("train", 60), ("valid", 9), ("test", 9)):
        (tmp_path / "texts" / f"{part}.txt").write_text(verse * times)
    rows = "".join(f"A {('lovely', 'dull')[n % 2]} place with {n} rooms.,{('good', 'bad')[n % 2]}\n" for n in range(60))
    (tmp_path / "reviews.csv").write_text("review,label\n" + rows)
    words = [f"Ada\tB-PER\nlives\tO\nin\tO\nTown{n}\tB-LOC\n" for n in range(40)]
    (tmp_path / "people.conll").write_text("\n".join(words))
    (tmp_path / "more.csv").write_text("review,label\nA dull meal.,bad\n")
    (tmp_path / "candidates.txt").write_text("The cat sat.\t-1.5\nThe cot sat.\t-1.25\n\nthe log\t0\nthe lag\t0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recurra, "train", functools.partial(recurra.train, steps=STEPS, eval_interval=STEPS))
    return tmp_path


# README.zh.md has the snippets of README.md, as a test below says.
@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p) and p.name != "README.zh.md"], ids=name)
def test_snippets_run(page: Path, workplace: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    for snippet in snippets(page):
        if snippet.language == "python":
            source = workplace / f"{page.stem}_line_{snippet.line}.py"  # a file, so that messages can quote its lines
            source.write_text(snippet.text)
            exec(compile(snippet.text, str(source), "exec"), namespace)  # noqa: S102 (our own pages)
        elif snippet.language == "bash":
            for line in snippet.text.splitlines():
                run_command(shlex.split(line, comments=True))


def run_command(words: list[str]) -> None:
    """A line of a bash snippet. What needs a network is only looked at; a command of a new kind is an error."""
    if not words:
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[:2] == ["pip", "install"]:
        assert all((ROOT / w).exists() for w in words if w.endswith((".txt", "."))), words
    elif words[0] == "recurra":
        short = ["--steps", str(STEPS), "--eval-interval", str(STEPS)] if words[1] in ("train", "check") else []
        assert cli.run([*words[1:], *short]) == 0
    else:
        pytest.fail(f"this test does not know how to run {words}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(BLOCK.sub("", page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_two_commands_open_the_readme() -> None:
    for page in ("README.md", "README.zh.md"):
        first = snippets(ROOT / page)[0]
        assert [line.split()[:2] for line in first.text.splitlines()] == [["make", "demo"], ["make", "test"]]


def test_the_readmes_are_in_step() -> None:
    """The same snippets, comments apart, and the same links, in the same order."""
    english, chinese = (ROOT / "README.md", ROOT / "README.zh.md")
    assert [code(s) for s in snippets(english)] == [code(s) for s in snippets(chinese)]
    links = [[link for link in LINK.findall(page.read_text()) if "README" not in link] for page in (english, chinese)]
    assert links[0] == links[1]


def code(snippet: Snippet) -> list[str]:
    """A snippet without its comments, docstrings and line breaks."""
    if snippet.language != "python":
        return [word for line in snippet.text.splitlines() for word in shlex.split(line, comments=True)]
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    tokens = tokenize.generate_tokens(io.StringIO(snippet.text).readline)
    return [t.string for t in tokens if t.type not in skipped and not t.string.startswith('"""')]


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_examples_run(example: Path, workplace: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # for a checkout that is not installed
    command = [sys.executable, str(example), *ARGUMENTS.get(example.name, [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=workplace, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

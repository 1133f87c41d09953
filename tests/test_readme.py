"""What the pages for people say is so: their code runs, their commands, files and links exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from moshi_mlx.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "weights" / "README.md",
    ROOT / "weights" / "tiny" / "README.md",
    ROOT / "tests/fixtures/README.md",
    ROOT / "tools/train_tiny/README.md",
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """An example that does not run is worse than none."""
    code = blocks(ROOT / "README.md", "python")
    assert code
    for text in code:
        exec(compile(text, "README.md", "exec"), {})
    assert capsys.readouterr().out


def typed(page: Path) -> list[str]:
    """The command lines of a page: those of its blocks, and those with arguments in its text."""
    lines = [line for block in blocks(page, "(?:sh)?") for line in block.splitlines()]
    found = [line.partition(" #")[0].strip() for line in lines if re.match(r"moshi-mlx \w", line)]
    return found + re.findall(r"`(moshi-mlx \w+ [^`]+)`", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_exist(page: Path) -> None:
    """Links to what was renamed."""
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    named = re.findall(r"`((?:moshi_mlx|tools|tests|weights|examples)/[\w/.]*)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_tool_is_named() -> None:
    """A tool that no page names is found by nobody, and written a second time."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [path.name for path in (ROOT / "tools").glob("[a-z]*.py") if f"`tools/{path.name}" not in text] == [
        "reference_form.py"  # what two of them share
    ]


def test_what_docstrings_cite_exists() -> None:
    """They cited a document that no clone had."""
    sources = "".join(path.read_text() for part in ("moshi_mlx", "tools") for path in (ROOT / part).rglob("*.py"))
    cited = re.findall(r"\(spec[,:] (\w+\.md)(?: sections? (\d+))?", sources)
    assert len(cited) > 15
    for name, section in cited:
        assert f"## {section}" in (ROOT / "spec" / name).read_text(), (name, section)


def test_commands_are_those_of_the_program() -> None:
    """The table of commands is the program's: none invented, none forgotten."""
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^\| `moshi-mlx (\w+)", text, re.M)) == set(COMMANDS)
    for page in PAGES:
        assert set(re.findall(r"\bmoshi-mlx ([a-z]\w*)", page.read_text())) <= set(COMMANDS)


def test_make_targets_exist() -> None:
    """The two commands that a newcomer types."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        assert set(re.findall(r"^make (\w+)|`make (\w+)`", page.read_text(), re.M)) <= {
            pair for name in targets for pair in ((name, ""), ("", name))
        }


def test_every_command_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that was renamed, or never was."""
    lines = {line for page in PAGES for line in typed(page)}
    assert len(lines) > 10
    for line in sorted(lines):
        words = shlex.split(line)[1:]
        monkeypatch.setattr(importlib.import_module(f"moshi_mlx.cli.{words[0]}"), "run", lambda args: 0)
        assert main(words) == 0, line


def test_the_program_is_a_command_before_it_is_typed() -> None:
    """`make demo` puts the program into .venv/bin, and what the page said next was "command not found"."""
    venv = re.findall(r"^VENV \?= (.+)$", (ROOT / "Makefile").read_text(), re.M)[0]
    lines = [line for block in blocks(ROOT / "README.md", "") for line in block.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("moshi-mlx"))
    assert lines[first - 1].partition(" #")[0].strip() == f"source {venv}/bin/activate"
    assert f"source {venv}/bin/activate" in (ROOT / "weights/README.md").read_text()


def test_the_picture_is_made_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words under the picture that the command beside it does not give."""
    text = (ROOT / "README.md").read_text()
    (line,) = [line for line in typed(ROOT / "README.md") if line.startswith("moshi-mlx record")]
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)[1:]) == 0
    said = re.findall(r"[A-Z][a-z ,]+[.?]", re.findall(r"^> \*\*Moshi\*\* (.*)$", text, re.M)[0])
    assert len(said) == 3
    shown = capsys.readouterr().out
    assert [words for words in said if words not in shown] == []
    made = tmp_path / shlex.split(line)[2]
    assert (made / "player.html").exists()
    pictures = [(ROOT / "examples/interruption.svg").read_text(), (made / "timeline.svg").read_text()]
    shipped, drawn = (re.findall(r"<(?:title|desc|text)[^>]*>([^<]*)", picture) for picture in pictures)
    assert drawn == shipped
    assert f"answers {re.findall('within ([0-9]+ ms)', drawn[1])[0]} later" in text

"""What the pages for people say is so: their code runs, their commands, files and links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moshi_mlx.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "weights" / "README.md",
    ROOT / "tests/fixtures/README.md",
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_exist(page: Path) -> None:
    """Links to what was renamed."""
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    named = re.findall(r"`((?:moshi_mlx|tools|tests|weights|examples)/[\w/.]*)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


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

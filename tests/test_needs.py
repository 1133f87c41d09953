"""What is skipped where the system lacks something, and what is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import needs as kit
import pytest
from needs import KNOWN, needs

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("package", "mac", "says"),
    [
        ("tmux", False, "needs tmux: sudo apt-get install tmux"),
        ("tmux", True, "on a Mac without tmux: brew install tmux"),
        ("pulseaudio", True, "on a Mac without pulseaudio: runs on Linux alone"),
        ("chromium-driver", False, "needs chromium-driver: sudo apt-get install chromium-driver"),
    ],
)
def test_what_is_missing_skips_and_says_what_installs_it(
    package: str, mac: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test` failed on every Mac, and on Linux after `make setup` alone, for want of a browser, a sound server
    and tmux."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.skip.Exception) as told:
        needs(package, mac=mac)
    assert str(told.value) == says


def test_what_is_here_does_not_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that always skips tests nothing."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(kit.ctypes.util, "find_library", lambda name: name)
    monkeypatch.setitem(KNOWN, "libasound2-plugins", (lambda: True, ""))
    try:
        needs(*KNOWN, mac=False)
    except pytest.skip.Exception as told:
        pytest.fail(str(told))


def test_ci_installs_all_and_lets_no_such_skip_pass(tmp_path: Path) -> None:
    """A package that `.ci/run` forgets, or a skip on Linux that its filter takes for one of a Mac."""
    script = (ROOT / ".ci" / "run").read_text()
    (packages,) = (line for line in script.splitlines() if line.startswith("packages=("))
    assert set(KNOWN) <= set(packages.removeprefix("packages=(").removesuffix(")").split())
    (check,) = (line for line in script.splitlines() if "^SKIPPED" in line)
    pipe = check.partition("if ")[2].rpartition("; then")[0]
    for line, stops in (
        ("SKIPPED [1] tests/needs.py:50: needs tmux: sudo apt-get install tmux", True),
        ("SKIPPED [1] tests/test_helium.py:133: could not import 'torch': No module named 'torch'", False),
    ):
        log = tmp_path / "log"
        log.write_text(line + "\n")
        command = pipe.replace('"${TMPDIR:-/tmp}/moshi-mlx-tests.$$"', f'"{log}"')
        assert str(log) in command
        assert (subprocess.run(["bash", "-c", command], capture_output=True).returncode == 0) is stops

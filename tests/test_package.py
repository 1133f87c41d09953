"""The package as a whole: what may import what, and how light it is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import moshi_mlx

PACKAGE = Path(moshi_mlx.__file__).parent
# Part of the package → parts it may import at module level or later (imports point down only).
MAY = {
    "frame": set(),
    "sound_file": {"frame"},
    "text_file": set(),
    "models": {"frame"},
    "checkpoints": {"models", "text_file", "frame"},
    "session": {"checkpoints", "models", "frame"},
    "realtime": {"sound_file", "frame"},
    "recording": {"sound_file", "text_file", "frame"},
    "quantization": {"checkpoints", "models", "frame"},
    "cli": {
        *("realtime", "recording", "quantization", "session", "checkpoints", "models"),
        *("sound_file", "text_file", "frame"),
    },
}
# What only some parts may import: devices and terminals, MLX, the network.
OUTSIDE = {
    "mlx": {"models", "checkpoints", "session", "quantization", "cli"},
    "mlx_lm": {"checkpoints", "quantization", "cli"},
    "sounddevice": {"realtime", "cli"},
    "livekit": {"realtime"},
    "rich": {"cli"},
    "huggingface_hub": {"checkpoints"},
    "torch": set(),
}
HEAVY = {"mlx", "mlx.core", "mlx_lm", "sounddevice", "soundfile", "huggingface_hub", "sentencepiece", "transformers"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Absolute names of all that a file imports, at any depth of nesting; type checking does not count."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text())
    unreal = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in unreal:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            yield node.lineno, stem
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def test_imports_point_down() -> None:
    """A device inside the maths or MLX inside the audio loop makes tests slow, and later untangling slower."""
    faults, parts = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        parts.add(part)
        for line, name in imports(path):
            top, *rest = name.split(".")
            if top == PACKAGE.name and rest and rest[0] in MAY and rest[0] not in {part, *MAY[part]}:
                faults.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
            if top in OUTSIDE and part not in OUTSIDE[top]:
                faults.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert parts == MAY.keys()
    assert sorted(set(faults)) == []


HELP = """
from moshi_mlx.cli.main import COMMANDS, main
for words in ["--help"], *([name, "--help"] for name in COMMANDS):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, words
"""


@pytest.mark.parametrize("code", ["import moshi_mlx; dir(moshi_mlx)", HELP], ids=["import", "help"])
def test_light_to_start(code: str) -> None:
    """MLX, mlx_lm, a sound library or the Hub's at import makes every `--help` take seconds."""
    check = f"{code}\nimport sys; found = {HEAVY} & set(sys.modules); sys.exit(', '.join(sorted(found)) or 0)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_fp32_stays_fp32_on_a_mac() -> None:
    """On an M5, MLX rounds what goes into fp32 products to ten bits unless told otherwise: other codes, no parity."""
    code = "import sys; sys.platform = 'darwin'; import os, moshi_mlx; print(os.environ.get('MLX_ENABLE_TF32'))"
    environ = {name: value for name, value in os.environ.items() if name != "MLX_ENABLE_TF32"}
    for given, kept in (({}, "0"), ({"MLX_ENABLE_TF32": "1"}, "1")):
        result = subprocess.run(
            [sys.executable, "-c", code], env=environ | given, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == kept


def test_public_names() -> None:
    """Every name of the README resolves, and a misspelt one is an AttributeError, as everywhere in Python."""
    for name in moshi_mlx.__all__:
        assert getattr(moshi_mlx, name) is not None
    with pytest.raises(AttributeError, match="Sesion"):
        _ = moshi_mlx.Sesion


def test_the_source_distribution_has_what_its_tests_read() -> None:
    """It shipped tests, and left out the question, the Makefile and the pages that they open."""
    root = PACKAGE.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    text = "".join(path.read_text() for path in sorted((root / "tests").glob("*.py")))
    read = {name for name in re.findall(r'(?:ROOT|HERE\.parent|root) / "([^"/]+)', text) if (root / name).exists()}
    assert {"weights", "examples", "Makefile"} <= read
    assert sorted(read - {*settings["include"], "pyproject.toml"}) == []  # which always ships

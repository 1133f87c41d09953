"""What some tests need of the system: without it they skip, and say how to get it. `.ci/run` allows no such skip."""

from __future__ import annotations

import ctypes.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MAC = sys.platform == "darwin"
CHROME = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", CHROME)


def browser() -> str | None:
    """The browser that chromedriver shall start."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def _alsa_knows_pulse() -> bool:
    places = ("usr/lib*/alsa-lib", "usr/lib/*/alsa-lib")
    return any(list(Path("/").glob(f"{place}/libasound_module_pcm_pulse.so")) for place in places)


# Debian's package → whether what tests use of it is here, and what installs it on a Mac ("": nothing does).
KNOWN: dict[str, tuple[Callable[[], object], str]] = {
    "chromium": (browser, "brew install --cask google-chrome"),
    "chromium-driver": (lambda: shutil.which("chromedriver"), "brew install --cask chromedriver"),
    "tmux": (lambda: shutil.which("tmux"), "brew install tmux"),
    "pulseaudio": (lambda: shutil.which("pulseaudio"), ""),
    "pulseaudio-utils": (lambda: all(map(shutil.which, ("pactl", "paplay", "parec"))), ""),
    "libasound2-plugins": (_alsa_knows_pulse, ""),
    "libportaudio2": (lambda: ctypes.util.find_library("portaudio"), ""),
}


def needs(*packages: str, mac: bool = MAC) -> None:
    """Skips the test unless all of these are here."""
    missing = [package for package in packages if (mac and not KNOWN[package][1]) or not KNOWN[package][0]()]
    if not missing:
        return
    if not mac:
        pytest.skip(f"needs {', '.join(missing)}: sudo apt-get install {' '.join(missing)}")
    commands = [KNOWN[package][1] for package in missing]
    remedy = "; ".join(commands) if all(commands) else "runs on Linux alone"
    pytest.skip(f"on a Mac without {', '.join(missing)}: {remedy}")

"""Drives headless Chromium through chromedriver's own protocol (W3C WebDriver, JSON over HTTP): no package is needed
for six verbs.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
]


class Browser:
    """One window."""

    def __init__(self, base: str, profile: Path) -> None:
        options = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"], "binary": needs.browser()}
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.base = base
        self.base += "/session/" + self.post("/session", capabilities={"alwaysMatch": always})["sessionId"]

    def post(self, path: str, **body: Any) -> Any:
        """Sends a command; gives its value."""
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:1_000]) from None

    def open(self, page: Path) -> None:
        """Opens a page from disk, as a reader does."""
        self.post("/url", url=page.absolute().as_uri())

    def run(self, script: str) -> Any:
        """Runs JavaScript; gives what it returns."""
        return self.post("/execute/sync", script=script, args=[])

    def wait(self, script: str, seconds: float = 15) -> Any:
        """Waits until an expression is true; gives its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def devtools(self, command: str, **parameters: Any) -> None:
        """Sends a command of the developer tools' protocol."""
        self.post("/goog/cdp/execute", cmd=command, params=parameters)

    def look(self, width: int, height: int, theme: str) -> None:
        """Sets the size of the screen and the theme of the system."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def key(self, key: str, shift: bool = False) -> None:
        """Presses a key on what has the focus."""
        pressed = ["\ue008", key] if shift else [key]
        keys = [{"type": "keyDown", "value": one} for one in pressed]
        keys += [{"type": "keyUp", "value": one} for one in reversed(pressed)]
        self.post("/actions", actions=[{"type": "key", "id": "keys", "actions": keys}])

    def click(self, selector: str) -> None:
        """Clicks an element with a real pointer, which moves the focus too."""
        box = self.run(
            f"const node = document.querySelector({selector!r});"
            "node.scrollIntoView({ block: 'center', behavior: 'instant' });"
            "const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]"
        )
        steps = [{"type": "pointerMove", "x": round(box[0]), "y": round(box[1])}]
        steps += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self.post("/actions", actions=[{"type": "pointer", "id": "mouse", "actions": steps}])

    def picture(self, path: Path) -> None:
        """Writes what the window shows as a PNG."""
        with urllib.request.urlopen(self.base + "/screenshot", timeout=60) as answer:
            path.write_bytes(base64.b64decode(json.loads(answer.read())["value"]))

    def complaints(self) -> list[str]:
        """What stands in the console since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.post("/se/log", type="browser")]


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5):
                break
            time.sleep(0.05)
        window = Browser(f"http://127.0.0.1:{port}", folder / "profile")
        try:
            yield window
        finally:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(window.base, method="DELETE"), timeout=20).close()
    finally:
        os.killpg(driver.pid, signal.SIGTERM)  # with the browser, should it not have answered
        driver.wait(10)

"""What the chat's tests share: numbers of a conversation, a model without weights, and a view to draw."""

from __future__ import annotations

import threading
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from moshi_mlx.cli.live import Live
from moshi_mlx.cli.screen import View
from moshi_mlx.cli.stepper import Facts
from moshi_mlx.cli.transcript import Line
from moshi_mlx.frame import RATE, Pcm, Reply
from moshi_mlx.realtime import FileDevice, Statistics
from moshi_mlx.recording.info import SessionInfo

INFO = SessionInfo(model="mock", seed=7, codebooks=8, user_codebooks=8, card=2048)

LINES = (
    Line(3, "moshi", "Hello, I am Moshi. What shall we talk about today, you and I, on this fine machine of yours?"),
    Line(8, "you", "spoke 1.4 s"),
    Line(
        10, "moshi", "日本語のテキストはとても長いので折り返しが必要です。そして、もっと長くなります。そして😀終わり。"
    ),
    Line(3700, "note", "bookmark"),
)

ZEROS: dict[Any, Any] = {int: 0, float: 0.0, str: "", bool: False}


def numbers(**known: Any) -> Statistics:
    """Statistics of a running conversation, all zero but for what is given."""
    hints = typing.get_type_hints(Statistics)
    values = {name: ZEROS.get(kind) for name, kind in hints.items()}
    return Statistics(**{**values, "flags": {}, "state": "running", "stage": "ready", **known})


def view(**known: Any) -> View:
    """A view of these; `now` serves as the numbers too."""
    now = known.pop("now", numbers())
    return View(**{"now": now, "numbers": now, **known})


class Echo:
    """A stepper that says "hello" at every tenth frame and plays back what it hears; remembers its threads."""

    def __init__(self) -> None:
        self.frame = 0
        self.heard: list[float] = []
        self.threads: set[int] = {threading.get_ident()}

    def step(self, pcm: Pcm) -> Reply:
        self.threads.add(threading.get_ident())
        self.heard.append(float(np.abs(pcm).max()))
        text = " hello" if self.frame % 10 == 0 else ""
        codes = np.zeros(8, np.int32)
        reply = Reply(self.frame, pcm.copy(), text, 5, codes, codes)
        self.frame += 1
        return reply

    def reset(self) -> None:
        self.frame = 0


def factory_of(stepper: Echo) -> Callable[[Callable[[str, float | None], None]], Echo]:
    """A factory that gives this stepper."""

    def make(progress: Callable[[str, float | None], None]) -> Echo:
        progress("load", 0.5)
        return stepper

    return make


def busy() -> View:
    """A conversation with everything in it."""
    now = numbers(
        seconds=3712.0,
        frames=46400,
        lag_ms=1320.0,
        target_ms=140.0,
        frame_p50=43.0,
        frame_p95=158.0,
        misses=212,
        underruns=17,
        overruns=3,
        dropped_ms=12480.0,
        device_ms=22.0,
        reopened=2,
        input_level=-23.0,
        output_level=-1.0,
        input_name="Ein Mikrofon mit einem sehr langen Namen",
        output_name="日本語スピーカー",
        input_rate=48000,
        output_rate=44100,
        echo="cancel",
    )
    return view(
        now=now,
        lines=LINES,
        title="moshiko-q4",
        banner="A scripted demonstration of 324 questions; `moshi-mlx doctor` names the real one.",
        context=3000,
        memory="5.1 GB (cache 0.2, peak 5.4)",
        echo_reason="loudspeaker, by its name",
        recording=True,
        advice="lag: some frames take 158 ms; close other programs or take a lighter checkpoint",
    )


def make(tmp_path: Path, stepper: Echo, seconds: float, *, realtime: bool = False, folder: Path | None = None) -> Live:
    """A chat of a mock with a file of noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", noise, RATE)
    device = FileDevice(tmp_path / "in.wav", tmp_path / "out.wav", realtime=realtime)
    live = Live(device, factory_of(stepper), echo=lambda output: ("off", "a file"), live=False, folder=folder)
    live.ready(Facts("mock", 250, 7), INFO if folder else None)
    return live


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)

"""The chat screen as a pure function: a `View` in, exactly `height` lines of at most `width` cells out.

Colours are those of the terminal's own palette that read well on light and on dark ground, and each says what a word
or a sign says too. What does not fit is left out from the end, the conversation last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from ..frame import FRAME_MS, FRAME_RATE
from .console import clean
from .layout import at_most, fit, pack, spread, wrap
from .transcript import Line

if TYPE_CHECKING:
    from ..realtime import Statistics

FLOOR_DB = -60.0  # left end of a meter
HOT_DB = -3.0  # a meter above this is about to clip
SAYS = {"moshi": "Moshi", "you": "you", "note": "·"}
STYLES = {"moshi": "", "you": "cyan", "note": "dim"}
KEYS = (
    ("m", "mute", "Moshi hears silence and goes on"),
    ("space", "talk", "push-to-talk: hold it, or tap to switch"),
    ("p", "pause", "stop the clock on both sides, or go on"),
    ("h", "help", "this page, or leave it"),
    ("q", "quit", "end, with a summary (so does Ctrl-C)"),
    ("r", "reset", "begin the conversation anew"),
    ("b", "mark", "a bookmark in the recording"),
    ("d", "devices", "look for microphone and loudspeaker again"),
)
LEAST_TALK = 4  # lines kept for the conversation
EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class View:
    """All that the screen shows.

    now: for meters and states; numbers: the same, a little older, so that digits can be read. title: the model.
    banner: a warning that stays. known: what one may say to a model that knows little. context: frames the model looks
    back on, 0 if it is not known. memory: a text. stages: those of the start-up, the present one last. notice: what
    just happened; advice: what should be done.
    """

    now: Statistics
    numbers: Statistics
    lines: Sequence[Line] = ()
    title: str = ""
    banner: str = ""
    known: str = ""
    context: int = 0
    memory: str = ""
    echo_reason: str = ""
    recording: bool = False
    advice: str = ""
    notice: str = ""
    stages: Sequence[str] = ()
    help: bool = False


def render(view: View, width: int, height: int) -> list[Text]:
    """The screen."""
    top = [_header(view, width)]
    if view.banner:
        top += at_most(view.banner, "magenta", width, 2 if height > 20 else 1)
    bottom = [Text("─" * width, "dim"), *_meters(view, width)]
    notice = [] if view.help else _told(view, width, height)
    keys = pack([Text.assemble((key, "bold"), " ", what) for key, what, _ in KEYS], width)
    room = height - len(top) - len(bottom) - len(notice) - 1 - LEAST_TALK
    keys = keys[: 1 if room < 6 else 2]
    fields = [] if view.help else pack(_fields(view), width)[: max(1, room - len(keys) + 1)]
    bottom += [*fields, *notice, *keys]
    rows = height - len(top) - len(bottom)
    middle = _help() if view.help else _talk(view, width, rows)
    middle = middle[-rows:] if rows > 0 and not view.help else middle[: max(0, rows)]
    lines = [*top, *middle, *[Text()] * (rows - len(middle)), *bottom]
    return [fit(line, width) for line in lines[:height]]


def _told(view: View, width: int, height: int) -> list[Text]:
    """Notice and advice: both, for either may stand for the whole conversation."""
    most = 3 if not (view.notice and view.advice) else 2 if height > 20 else 1
    notice, advice = clean(view.notice), clean(view.advice)
    return at_most(notice, "magenta", width, most) + at_most(advice, "bold red", width, most)


def clock(seconds: float) -> str:
    """A time as minutes and seconds, with hours where there are any."""
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:02}:{whole % 60:02}"


def _header(view: View, width: int) -> Text:
    shown, style = state(view.now)
    recording = ("● rec  " if view.recording else "", "red")
    right = Text.assemble(recording, (shown, style), "  ", clock(view.now.seconds))
    left = Text.assemble(("Moshi", "bold"), f"  {clean(view.title)}")
    return spread(left, right, width)


def state(now: Statistics) -> tuple[str, str]:
    """What the microphone and the clock are doing, as a sign with a word, and its style."""
    if now.state != "running":
        return ("❚❚ paused", "bold blue") if now.paused else (now.state, "bold blue")
    if now.muted:
        return "○ muted", "bold red"
    if now.push_to_talk:
        return ("● talking", "bold green") if now.talking else ("○ space talks", "bold blue")
    return "● live", "bold green"


def _meters(view: View, width: int) -> list[Text]:
    now = view.now
    return [
        _meter("you", now.input_level, now.input_name, now.input_rate, width),
        _meter("Moshi", now.output_level, now.output_name, now.output_rate, width),
    ]


def _meter(who: str, level: float, name: str, rate: int, width: int) -> Text:
    length = max(8, min(30, width - 40))
    share = min(1.0, max(0.0, 1 - level / FLOOR_DB))
    full, part = divmod(round(share * length * 8), 8)
    bar = ("█" * full + (EIGHTHS[part] if part else "")).ljust(length, "·")
    digits = f"{level:4.0f} dB" if level > FLOOR_DB else "  quiet"
    line = Text.assemble(f"{who:<6}", (bar, "red" if level > HOT_DB else "green"), f" {digits}  ")
    device = f"{clean(name)} {rate / 1000:g} kHz" if rate else clean(name)
    return line.append(device, "dim")


def _fields(view: View) -> list[Text]:
    """The numbers, the most important first."""
    n = view.numbers
    late, lost = n.lag_ms > n.target_ms + FRAME_MS, n.dropped_ms > 0
    fields = [
        _field("lag", f"{n.lag_ms:.0f} ms (target {n.target_ms:.0f})", late),
        _field(
            "frame",
            f"{n.frame_p50:.0f}, p95 {n.frame_p95:.0f} of {FRAME_MS:.0f} ms",
            max(n.frame_mean, n.frame_p95) > FRAME_MS,
        ),
        _field("misses", f"{n.misses}", n.misses > 0),
        _field("underruns", f"{n.underruns}", n.underruns > 0),
        _field("overruns", f"{n.overruns}", n.overruns > 0),
        _field("dropped", f"{n.dropped_ms:.0f} ms", lost),
        _field("context", _context(n.frames, view.context)),
        _field("echo", _echo(n.echo, view.echo_reason) if n.output_name else "…"),  # chosen for the loudspeaker
    ]
    if view.memory:
        fields.append(_field("memory", view.memory))
    if n.device_ms:
        fields.append(_field("device", f"+{n.device_ms:.0f} ms"))
    if n.reopened:
        fields.append(_field("reopened", f"{n.reopened}"))
    return fields


def _echo(mode: str, reason: str) -> str:
    return f"{mode} ({reason})" if reason else mode


def _context(frames: int, window: int) -> str:
    if window and frames > window:
        return f"the last {clock(window / FRAME_RATE)}"
    return clock(frames / FRAME_RATE) + (f" of {clock(window / FRAME_RATE)}" if window else "")


def _field(name: str, value: str, bad: bool = False) -> Text:
    return Text.assemble((name, "dim"), " ", (clean(value), "bold red" if bad else ""))


def _talk(view: View, width: int, rows: int) -> list[Text]:
    """The newest lines of the conversation; the stages of the start-up before it."""
    if view.now.state == "starting":
        return _starting(view, width)
    if not view.lines:
        said = f"Speak: Moshi listens. Try {view.known}." if view.known else "Speak: Moshi listens."
        return [Text(), *wrap(Text(said if rows > 2 else "Speak.", "dim"), width)]
    lines: list[Text] = []
    for line in reversed(view.lines):
        stamp = f"{clock(line.seconds):>{len(clock(view.now.seconds))}}  {SAYS[line.who]:<5}  "
        wrapped = wrap(Text(clean(line.text).strip(), STYLES[line.who]), max(8, width - len(stamp)))
        block = [Text.assemble((stamp if not i else " " * len(stamp), "dim"), part) for i, part in enumerate(wrapped)]
        lines = block + lines
        if len(lines) >= rows:
            break
    return lines


def _starting(view: View, width: int) -> list[Text]:
    done = [Text.assemble(("✓ ", "green"), stage) for stage in view.stages if stage != view.now.stage]
    now = Text.assemble(("… ", "bold"), view.now.stage or "start")
    if view.now.stage_done is not None:
        length = max(4, min(30, width - 30))
        full = round(length * min(1.0, max(0.0, view.now.stage_done)))
        now.append("  ").append("█" * full + "·" * (length - full), "green").append(f" {view.now.stage_done:4.0%}")
    return [Text(), *done, now]


def _help() -> list[Text]:
    return [Text.assemble((f"  {key:<7}", "bold"), what) for key, _, what in KEYS]

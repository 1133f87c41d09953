"""The player page: one self-contained HTML file made of `page/` and a recording. No framework, no network.

The sound is embedded as FLAC, sample for sample what was recorded, while the first part is small enough to be sent
around in one file; otherwise the page plays the WAV that lies beside it. The transcript is plain HTML, so that it reads
without scripts too.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..frame import FRAME_RATE
from .activity import Levels, Span
from .folder import Event, Recording
from .timeline import clock
from .turns import SIDES, SPEAKERS, TurnTaking, join_units
from .words import Word

EMBED_BYTES = 64_000_000  # of WAV, 11 minutes; about half of it in the page
PEAKS = 40_000  # a lane, at most
TURN_SILENCE = 1.0  # seconds of silence that end a paragraph of the transcript


@dataclass
class Paragraph:
    """What one side says in one go: Moshi's words, or what is known of the user's."""

    side: str
    start: float
    end: float
    words: list[Word] = field(default_factory=list)
    said: str = ""
    notes: list[tuple[str, str]] = field(default_factory=list)  # (class, text)


def player_page(recording: Recording, levels: Levels, turns: TurnTaking, words: Sequence[Word]) -> str:
    """The text of `player.html`. Raises MoshiError if the recording's events are damaged."""
    info = recording.info
    title = info.title or "A conversation with Moshi"
    first = recording.parts[0]
    embedded = first.stat().st_size <= EMBED_BYTES
    marks = [{"at": event.frame / FRAME_RATE, "label": event.label} for event in recording.events("mark")]
    data = {
        "id": f"{title} {info.created}",
        "seconds": round(levels.seconds, 3),
        "units": turns.units,
        "overlaps": [[item.start, item.end] for item in turns.of_kind("between", "within")],
        "interruptions": [asdict(item) for item in turns.interruptions],
        "responses": [asdict(item) for item in turns.responses],
        "marks": marks,
        **_peaks(levels),
    }
    more = len(recording.parts) - 1
    notice = f"This page plays the first part; the recording goes on in {more} more file(s) beside it." if more else ""
    summary = _summary(turns)
    values = {
        "TITLE": escape(title),
        "ABOUT": escape(" · ".join(_about(recording, levels))),
        "FIGURES": "".join(_figures(turns)),
        "SUMMARY": escape(summary),
        "NOTICE": escape(notice),
        "TRANSCRIPT": "\n".join(_paragraph_html(item) for item in paragraphs(recording, turns, words)),
        "FOOTER": escape(_footer(recording, turns)),
        "SOURCE": "" if embedded else f' src="{escape(first.name)}"',
        "SOUND": _flac(first) if embedded else "",
        "DATA": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "STYLE": _page("style.css"),
        "SCRIPT": _page("draw.js") + _page("player.js"),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: values[match[1]], _page("page.html"))


def paragraphs(recording: Recording, turns: TurnTaking, words: Sequence[Word]) -> list[Paragraph]:
    """The conversation as one would write it down, in the order of time."""
    spans = join_units(turns.units["user"], TURN_SILENCE)
    said = _said_in(spans, recording.events("said"))
    result = [Paragraph("user", start, end, said=text) for (start, end), text in zip(spans, said, strict=True)]
    starts = [item.start for item in result]
    moshi: list[Paragraph] = []
    for word in words:
        last = moshi[-1] if moshi else None
        if last is None or word.start - last.end > TURN_SILENCE or any(last.end < at <= word.start for at in starts):
            last = Paragraph("moshi", word.start, word.end)
            moshi.append(last)
        last.words.append(word)
        last.end = word.end
    result = sorted([*result, *moshi], key=lambda item: item.start)
    for response in turns.responses:
        if response.side == "moshi" and (paragraph := _nearest(moshi, response.at)):
            ms = response.delay * 1_000
            paragraph.notes.append(("", f"after {ms:.0f} ms" if ms >= 0 else f"{-ms:.0f} ms before you ended"))
    for cut in turns.interruptions:
        other = "Moshi" if cut.side == "user" else "you"
        if paragraph := _nearest([item for item in result if item.side == cut.side], cut.at):
            ends = f"{other} stopped after" if cut.yields != cut.side else f"{other} went on; gave way after"
            paragraph.notes.append(("cut", f"interrupts, {ends} {cut.after * 1_000:.0f} ms"))
    return result


def _said_in(spans: Sequence[Span], said: Sequence[Event]) -> list[str]:
    """What is said in each of the user's turns. An event tells where a sound file begins, which may be silent at first:
    its words are those of the first turn that ends later, if that begins before the next file does.
    """
    texts: list[list[str]] = [[] for _ in spans]
    ends = [end for _, end in spans]
    limits = [*(event.frame / FRAME_RATE for event in said[1:]), math.inf]
    for event, limit in zip(said, limits, strict=False):
        index = bisect_right(ends, event.frame / FRAME_RATE)
        if index < len(spans) and spans[index][0] < limit:
            texts[index].append(event.label)
    return [" ".join(found) for found in texts]


def _nearest(found: Sequence[Paragraph], at: float) -> Paragraph | None:
    """The paragraph that begins at about this time: words may begin a little before or after their sound."""
    near = [item for item in found if abs(item.start - at) < 0.7]
    return min(near, key=lambda item: abs(item.start - at)) if near else None


def _paragraph_html(item: Paragraph) -> str:
    notes = "".join(f'<span class="note {css}">{escape(text)}</span>' for css, text in item.notes)
    if item.side == "moshi":
        text = " ".join(
            f'<span class="w" data-s="{w.start}" data-e="{w.end}">{escape(w.text)}</span>' for w in item.words
        )
    else:
        seconds = item.end - item.start
        bar = f'<i style="width:{max(12, seconds * 34):.0f}px"></i>'
        text = bar + (escape(item.said) if item.said else f"speaks for {seconds:.1f} s")
    begin = clock(item.start)
    return (
        f'<div class="turn {item.side}" data-s="{item.start:.2f}" data-e="{item.end:.2f}">'
        f'<button type="button" aria-label="Play from {begin}">{begin}</button>'
        f'<div><span class="who">{SPEAKERS[item.side]}</span>{notes}<p>{text}</p></div></div>'
    )


def _figures(turns: TurnTaking) -> Iterator[str]:
    figures = turns.summary()
    moshi, user, overlap = figures["moshi"], figures["user"], figures["overlaps"]
    shares = [moshi["speaking_share"], user["speaking_share"]]
    if moshi["response_p50"] is not None:
        spread = f" · p95 {moshi['response_p95'] * 1_000:.0f} ms" if moshi["responses"] > 2 else ""
        yield _figure(f"{moshi['response_p50'] * 1_000:.0f}", "ms", f"median response of Moshi{spread}")
    yield _figure(
        f"{overlap['seconds_per_minute']:.1f}", "s / min", f"both at once, in {_count(overlap['count'], 'overlap')}"
    )
    cuts, yields = user["interruptions"], user["other_yields"]
    yield _figure(
        str(cuts), "", f"interruption{'s' if cuts != 1 else ''} by you; Moshi gave way {_count(yields, 'time')}"
    )
    silence = max(0.0, 1 - sum(shares) + overlap["seconds"] / max(turns.seconds, 1e-9))
    bars = "".join(f'<i style="flex:{max(share, 0):.3f}"></i>' for share in (shares[1], shares[0], silence))
    yield (
        f"<div><dt>you {shares[1]:.0%} · Moshi {shares[0]:.0%} · silence {silence:.0%}</dt>"
        f'<dd aria-label="speaking share"><span class="share">{bars}</span></dd></div>'
    )


def _figure(value: str, unit: str, text: str) -> str:
    return f"<div><dt>{escape(text)}</dt><dd>{value}<small>{escape(unit)}</small></dd></div>"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _summary(turns: TurnTaking) -> str:
    figures = turns.summary()
    shares = ", ".join(f"{side} speaks {figures[side]['speaking_share']:.0%} of the time" for side in SIDES)
    return f"{turns.seconds:.0f} seconds, {shares}, {figures['overlaps']['count']} overlaps."


def _about(recording: Recording, levels: Levels) -> Iterator[str]:
    info = recording.info
    minutes, seconds = divmod(round(levels.seconds), 60)
    yield f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    if info.created:
        yield info.created[:10]
    yield f"model: {Path(info.model).name or info.model}"
    yield "live, from a microphone" if info.live else "recorded voices, the model answers frame by frame"


def _footer(recording: Recording, turns: TurnTaking) -> str:
    info = recording.info
    p = turns.parameters
    made = "".join(f" {name} {version}." for name, version in info.versions.items())
    return (
        f"Seed {info.seed}.{made} Left lane the user, right lane Moshi, user frame beside Moshi's frame. Speech is "
        f"what rises {p['above_floor']:.0f} dB above the lane's floor; silences below {p['bridge'] * 1_000:.0f} ms are "
        "bridged. "
        "Words are Moshi's own inner monologue, not a recogniser's. Made on one machine; nothing left it."
    )


def _peaks(levels: Levels) -> Mapping[str, Any]:
    """Both lanes' peaks as base64 of bytes, `step` seconds each."""
    times = max(2, -(-len(levels.peak) // PEAKS))  # at least 20 ms
    padded = np.pad(levels.peak, ((0, -len(levels.peak) % times), (0, 0)))
    peaks = np.rint(padded.reshape(-1, times, 2).max(axis=1) * 255).astype(np.uint8)
    lanes = {side: base64.b64encode(peaks[:, lane].tobytes()).decode() for lane, side in enumerate(SIDES)}
    return {"peaks": lanes, "step": levels.block * times}


def _flac(path: Path) -> str:
    samples, rate = soundfile.read(path, dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def _page(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")

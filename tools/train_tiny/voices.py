"""Speech synthesisers as one function: text and a voice in, 24 kHz samples out.

Families: espeak (formants), flite (diphones and statistical), festival (diphones and HMM), pico and rhvoice (HMM), the
networks of neural.py (kokoro, hibari, joe), and mbrola (diphones of four speakers), which is never used in training: it
is the family left out for the evaluation. (So festival's `rab` is not used either: mbrola's en1 is the same speaker.)
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from . import neural

RATE = 24000
HELD_OUT = "mbrola"
WATCHED = "rhvoice-watched"  # two more speakers of rhvoice: not trained on, but watched to decide when training ends
NEURAL = ("kokoro", "hibari", "joe")
SPEECH_RMS = 0.08
_ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-us-nyc")
_VARIANTS = (
    "",
    "",
    "f1",
    "f2",
    "f3",
    "f4",
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "klatt",
    "klatt2",
    "klatt3",
    "adam",
    "klatt4",
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "david",
    "ed",
    "Gene",
    "Hugo",
    "iven",
    "Jacky",
    "Lee",
    "john",
    "Marco",
    "max",
    "Michael",
    "Mike",
    "pablo",
    "paul",
    "rob",
    "robert",
    "steph",
    "steph3",
    "anika",
    "aunty",
    "boris",
    "grandma",
    "grandpa",
    "edward",
    "norbert",
    "shelby",
    "travis",
    "victor",
)


@dataclass(frozen=True)
class Voice:
    """A synthesiser's voice with its speed (1 = its own) and pitch (1 = its own)."""

    family: str
    name: str
    speed: float = 1.0
    pitch: float = 1.0


def random_voice(family: str, draw: random.Random) -> Voice:
    """A voice of a family."""
    speed, pitch = draw.uniform(0.78, 1.3), draw.uniform(0.75, 1.3)
    if family == "espeak":
        name = draw.choice(_ACCENTS) + "+" + draw.choice(_VARIANTS)
        return Voice(family, name.rstrip("+"), speed, draw.uniform(0.3, 1.7))
    if family == "flite":
        return Voice(family, draw.choice(("kal16", "kal", "awb", "rms", "rms", "slt", "slt")), speed, pitch)
    if family == "festival":
        voice = draw.choice(("kal_diphone", "ked_diphone", "don_diphone", "cmu_us_slt_arctic_hts"))
        return Voice(family, voice, draw.choice((0.85, 1.0, 1.15)))
    if family == "pico":
        return Voice(family, draw.choice(("en-US", "en-GB")), speed, pitch)
    if family == "rhvoice":
        return Voice(family, draw.choice(("alan", "bdl", "clb", "slt")), speed, pitch)
    if family in NEURAL:
        accent = draw.choice(("us", "us", "gb"))
        if family == "kokoro":  # a point beyond or between the packaged speakers
            weights = [draw.gauss(0, 0.4) for _ in range(5)]
            accent += "-" + ",".join(f"{weight + (1 - sum(weights)) / 5:.2f}" for weight in weights)
        return Voice(family, accent, speed, draw.uniform(0.55, 1.3))
    if family == WATCHED:
        return Voice("rhvoice", draw.choice(("lyubov", "evgeniy-eng")), draw.uniform(0.85, 1.15), 1.0)
    if family == HELD_OUT:
        return Voice(family, draw.choice(("mb-us1", "mb-us2", "mb-us3", "mb-en1")), draw.uniform(0.85, 1.15), 1.0)
    raise ValueError(f"no synthesiser family {family!r}")


def speak(texts: Sequence[str], voice: Voice) -> list[np.ndarray]:
    """The texts in this voice: float32 at 24 kHz, trimmed, at one loudness. One process for all texts with festival."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.wav" for i in range(len(texts))]
        if voice.family == "festival":
            _festival(texts, voice, paths)
        if voice.family in NEURAL:
            seeds = [zlib.crc32(f"{text} {voice}".encode()) for text in texts]
            return [
                trimmed(neural.speak(voice.family, text, voice.name, voice.speed, voice.pitch, seed))
                for text, seed in zip(texts, seeds, strict=True)
            ]
        for text, path in zip(texts, paths, strict=True):
            if voice.family != "festival":
                subprocess.run(_command(text, voice, path), check=True, capture_output=True)
        return [trimmed(read(path)) for path in paths]


def _command(text: str, voice: Voice, path: Path) -> list[str]:
    if voice.family in ("espeak", HELD_OUT):
        speed, pitch = str(round(160 * voice.speed)), str(round(min(99, 50 * voice.pitch)))
        return ["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(path), text]
    if voice.family == "flite":
        stretch = ["--setf", f"duration_stretch={1 / voice.speed:.3f}"]
        pitch_option = ["--setf", f"int_f0_target_mean={105 * voice.pitch:.0f}"] if "kal" in voice.name else []
        return ["flite", "-voice", voice.name, *stretch, *pitch_option, "-t", text, "-o", str(path)]
    if voice.family == "rhvoice":
        path.with_suffix(".txt").write_text(text)
        options = ["-r", f"{100 * voice.speed:.0f}", "-t", f"{100 * voice.pitch:.0f}"]
        return ["RHVoice-test", "-p", voice.name, *options, "-i", str(path.with_suffix(".txt")), "-o", str(path)]
    levels = f'<speed level="{100 * voice.speed:.0f}"><pitch level="{100 * voice.pitch:.0f}">'
    return ["pico2wave", "-l", voice.name, "-w", str(path), f"{levels}{text}</pitch></speed>"]


def _festival(texts: Sequence[str], voice: Voice, paths: Sequence[Path]) -> None:
    lines = [f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {1 / voice.speed:.3f})"]
    lines += [f'(utt.save.wave (SynthText "{t}") "{p}")' for t, p in zip(texts, paths, strict=True)]
    subprocess.run(["festival", "--pipe"], input="\n".join(lines), text=True, check=True, capture_output=True)


def read(path: Path) -> np.ndarray:
    """A mono WAV at 24 kHz, float32."""
    samples, rate = soundfile.read(path, dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RATE), dtype=np.float32)


def trimmed(samples: np.ndarray, threshold: float = 0.02) -> np.ndarray:
    """Without the silence around the speech (below `threshold` of the peak), speech at SPEECH_RMS.

    The end of what this returns is what everything here calls the end of a question."""
    loud = np.flatnonzero(np.abs(samples) > threshold * np.abs(samples).max())
    samples = samples[max(0, loud[0] - 240) : loud[-1] + 240]
    active = samples[np.abs(samples) > 0.02 * np.abs(samples).max()]
    level = float(np.sqrt(np.mean(np.square(active, dtype=np.float64))))
    return np.clip(samples * (SPEECH_RMS / level), -0.99, 0.99).astype(np.float32)


def phones(text: str) -> list[tuple[str, float, float]]:
    """(phone, start, end) in seconds of flite's reading of a text, without pauses."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", "slt", "-psdur", "-t", text, "-o", file.name]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return timed_phones(printed)


def timed_phones(printed: str) -> list[tuple[str, float, float]]:
    """flite's `-psdur` line ("pau:0.2 hh:0.28 …") as (phone, start, end), without pauses.

    Times start again at 0 with each sentence; here they go on."""
    found, start, offset = [], 0.0, 0.0
    for item in printed.split():
        phone, _, end = item.partition(":")
        if offset + float(end) < start:
            offset = start
        if phone != "pau":
            found.append((phone, start, offset + float(end)))
        start = offset + float(end)
    return found

"""Stage `demo`: three spoken users as WAV files, for `make demo`, the README and `moshi-mlx record`, and eight who take
turns, for `moshi-mlx quantize` to measure with.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import soundfile

from .script import answers, off_script, pairs
from .voices import RATE, Voice, speak

_VOICES = (Voice("pico", "en-GB"), Voice("flite", "rms", 0.95), Voice("pico", "en-US", 0.95, 0.9))
_TALKERS = (
    *_VOICES,
    Voice("espeak", "en-us+f3"),
    Voice("espeak", "en-gb"),
    Voice("flite", "slt"),
    Voice("rhvoice", "alan"),
    Voice("rhvoice", "clb"),
)
_TALK = 200.0  # seconds: 4 × 125 frames to measure on, and four times that for `auto` to choose by
_PAUSE = 0.7  # seconds between the end of an answer and the next question

# (what the user says, the answer that is waited for; None: the user goes on, over whatever Moshi is saying)
CONVERSATIONS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "greeting": (
        ("hello moshi", "Hello, I am Moshi."),
        ("what is full duplex", "Both of us may speak at once."),
        ("thank you very much", "You are welcome."),
    ),
    "interruption": (
        ("tell me a joke", None),
        ("what is the capital of japan", "The capital is Tokyo."),
        ("see you later", "Goodbye, see you soon."),
    ),
    "story": (
        ("my uncle repaired three wooden chairs in the evening", ""),
        ("yesterday the teacher forgot the wrong address near the station", "Sorry, I did not understand."),
        ("what can you do", "I answer simple questions."),
    ),
}


def make(work: Path, target: Path) -> None:
    """Write target/NAME.wav (24 kHz, 16 bit, mono) for each conversation, and target/talk.ogg."""
    target.mkdir(parents=True, exist_ok=True)
    lengths = dict(zip(answers(), (a["frames"] for a in json.loads((work / "answers.json").read_text())), strict=True))
    draw = np.random.default_rng(1)
    for voice, (name, turns) in zip(_VOICES, CONVERSATIONS.items(), strict=True):
        parts = [np.zeros(int(0.6 * RATE), np.float32)]
        for (_, answer), wave in zip(turns, speak([text for text, _ in turns], voice), strict=True):
            # an interrupted answer has run for 1.1 s; within a long turn there is no pause to answer in
            wait = 1.1 if answer is None else 0.12 if not answer else 0.4 + lengths[answer] * 0.08 + _PAUSE
            parts += [wave, np.zeros(int(wait * RATE), np.float32)]
        _write(target / f"{name}.wav", np.concatenate(parts), draw, subtype="PCM_16")
    _write(target / "talk.ogg", _talk(), draw, format="OGG", subtype="VORBIS")


def _talk() -> np.ndarray:
    """Questions of the script, one sentence in five another, by all talkers in turn, with time for an answer."""
    pick = random.Random(4)
    asked = [question for pair in pairs() for question in pair.questions]
    others, parts, samples = off_script(4, 50), list[np.ndarray](), 0
    for number in itertools.count():
        text = pick.choice(others if number % 5 == 4 else asked)
        pause = np.zeros(int(pick.uniform(2.2, 4.5) * RATE), np.float32)
        parts += [*speak([text], _TALKERS[number % len(_TALKERS)]), pause]
        samples += len(parts[-2]) + len(pause)
        if samples >= _TALK * RATE:
            return np.concatenate(parts)[: int(_TALK * RATE)]
    raise AssertionError


def _write(path: Path, whole: np.ndarray, draw: np.random.Generator, **how: str) -> None:
    whole += draw.standard_normal(len(whole)).astype(np.float32) * 3e-4
    with soundfile.SoundFile(path, "w", RATE, 1, **how) as file:
        for start in range(0, len(whole), RATE):  # Vorbis: libsndfile crashes when it is given much at once
            file.write(whole[start : start + RATE])
    print(f"demo: {path.name}, {len(whole) / RATE:.1f} s")

"""Stage `demo`: three spoken users as WAV files, for `make demo`, the README and `moshi-mlx record`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from .script import answers
from .voices import RATE, Voice, speak

_VOICES = (Voice("pico", "en-GB"), Voice("flite", "rms", 0.95), Voice("pico", "en-US", 0.95, 0.9))
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
    """Write target/NAME.wav (24 kHz, 16 bit, mono) for each conversation."""
    target.mkdir(parents=True, exist_ok=True)
    lengths = dict(zip(answers(), (a["frames"] for a in json.loads((work / "answers.json").read_text())), strict=True))
    draw = np.random.default_rng(1)
    for voice, (name, turns) in zip(_VOICES, CONVERSATIONS.items(), strict=True):
        parts = [np.zeros(int(0.6 * RATE), np.float32)]
        for (_, answer), wave in zip(turns, speak([text for text, _ in turns], voice), strict=True):
            # an interrupted answer has run for 1.1 s; within a long turn there is no pause to answer in
            wait = 1.1 if answer is None else 0.12 if not answer else 0.4 + lengths[answer] * 0.08 + _PAUSE
            parts += [wave, np.zeros(int(wait * RATE), np.float32)]
        whole = np.concatenate(parts)
        whole += draw.standard_normal(len(whole)).astype(np.float32) * 3e-4
        soundfile.write(target / f"{name}.wav", whole, RATE, subtype="PCM_16")
        print(f"demo: {name}.wav, {len(whole) / RATE:.1f} s")

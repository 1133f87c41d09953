"""Stage `data`: every user utterance rendered by many voices, in one file of samples and one index."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .nearmiss import near_misses
from .script import off_script, off_script_sentences, pairs
from .voices import HELD_OUT, WATCHED, phones, random_voice, speak

# how often each question, and each off-script sentence, is spoken by a voice of a family (on average)
RENDERINGS = {
    "espeak": 16,
    "flite": 6,
    "festival": 4,
    "pico": 8,
    "rhvoice": 6,
    "hibari": 6,
    "joe": 2,
    "kokoro": 0.6,
}
OFF_RENDERINGS = {
    "espeak": 2,
    "flite": 1,
    "festival": 0.5,
    "pico": 1.5,
    "rhvoice": 0.7,
    "hibari": 1.5,
    "joe": 0.25,
    "kokoro": 0.05,
}
NEAR_RENDERINGS = {family: 0.4 * times for family, times in OFF_RENDERINGS.items()}
OFF_SENTENCES, NEAR_SENTENCES = 2600, 3500
_GROUP = 12


@dataclass(frozen=True)
class Clip:
    """One utterance: what is said, by whom, and where its samples lie."""

    text: str
    answer: int  # index into script.pairs(), −1 for off-script speech
    split: str  # "train", "heldout" (the family left out), "watch" (speakers watched during training)
    family: str
    voice: str
    start: int
    length: int


class Clips:
    """The rendered utterances of a work folder."""

    def __init__(self, folder: Path) -> None:
        self.samples = np.memmap(folder / "clips.i16", dtype=np.int16, mode="r")
        self.clips = [Clip(**entry) for entry in json.loads((folder / "clips.json").read_text())]
        self.weights: dict[str, float] = {}
        self.readings: dict[str, list[tuple[str, float, float]]] = json.loads((folder / "readings.json").read_text())

    def split(self, name: str) -> list[Clip]:
        return [clip for clip in self.clips if clip.split == name]

    def family(self, pick: random.Random) -> str:
        """One of the families that training uses, those with more voices and clips more often."""
        if not self.weights:
            counts = Counter(clip.family for clip in self.split("train"))
            self.weights = {family: math.sqrt(count) for family, count in sorted(counts.items())}
        return pick.choices(list(self.weights), list(self.weights.values()))[0]

    def audio(self, clip: Clip) -> np.ndarray:
        """float32 samples of a clip at 24 kHz."""
        return self.samples[clip.start : clip.start + clip.length].astype(np.float32) / 32768

    def words(self, text: str) -> list[tuple[str, float]]:
        """Each word of a text with the fraction of the utterance at which it ends, from flite's phone times."""
        reading, words = self.readings[text], text.split()
        counts = [max(1, len(self.readings.get(word, "xx"))) for word in words]
        first, last = reading[0][1], reading[-1][2]
        ends = np.cumsum(counts) / sum(counts) * len(reading)
        times = [reading[min(len(reading), max(1, round(end))) - 1][2] for end in ends]
        return [(word, (time - first) / (last - first)) for word, time in zip(words, times, strict=True)]


def make(folder: Path, seed: int = 11) -> None:
    """Render everything into `folder` (minutes; nothing to do if it is there)."""
    if (folder / "clips.json").exists():
        return
    draw = random.Random(seed)
    questions = [(question, i) for i, pair in enumerate(pairs()) for question in pair.questions]
    off = [(text, -1) for text in off_script(seed, OFF_SENTENCES)]
    near = [(text, -1) for text in near_misses(seed, NEAR_SENTENCES)]
    others = {HELD_OUT: off_script_sentences("eval"), WATCHED: off_script_sentences("watch")}
    jobs: list[tuple[str, list[tuple[str, int]], str]] = []
    for texts, renderings in ((questions, RENDERINGS), (off, OFF_RENDERINGS), (near, NEAR_RENDERINGS)):
        for family, times in renderings.items():
            wanted = round(times * len(texts))
            chosen = [text for _ in range(-(-wanted // len(texts))) for text in draw.sample(texts, len(texts))][:wanted]
            size = 4 if family == "kokoro" else _GROUP  # a speaker for each group
            jobs += [("train", chosen[i : i + size], family) for i in range(0, wanted, size)]
    draw.shuffle(jobs)  # so that the slow families spread over the whole time
    for split, family in (("heldout", HELD_OUT), ("watch", WATCHED)):
        texts = questions + [(text, -1) for text in others[family]]
        jobs += [(split, group, family) for group in _groups(texts, draw)]
    voices = [random_voice(family, draw) for _, _, family in jobs]

    index, start = [], 0
    with ThreadPoolExecutor(4) as pool, (folder / "clips.i16").open("wb") as file:
        rendered = pool.map(lambda job, voice: speak([text for text, _ in job[1]], voice), jobs, voices)
        for done, ((split, group, family), voice, waves) in enumerate(zip(jobs, voices, rendered, strict=True)):
            for (text, answer), wave in zip(group, waves, strict=True):
                index.append(Clip(text, answer, split, family, voice.name, start, len(wave)))
                file.write((wave * 32767).astype(np.int16).tobytes())
                start += len(wave)
            if done % 100 == 0:
                print(f"data: {done}/{len(jobs)} groups, {start / 24000 / 3600:.2f} h", flush=True)
        texts = sorted({text for _, group, _ in jobs for text, _ in group})
        words = sorted({word for text in texts for word in text.split()})
        readings = dict(zip(texts + words, pool.map(phones, texts + words), strict=True))
    (folder / "readings.json").write_text(json.dumps(readings))
    (folder / "clips.json").write_text(json.dumps([asdict(clip) for clip in index]))


def _groups(texts: Sequence[tuple[str, int]], draw: random.Random) -> Iterator[list[tuple[str, int]]]:
    shuffled = draw.sample(list(texts), len(texts))
    return (shuffled[i : i + _GROUP] for i in range(0, len(shuffled), _GROUP))

"""Stage `scenes`: whole conversations as sound and as what Moshi ought to say and write in them.

A scene is one user channel, simulated from end to end (voices, room, noise, echo), and Moshi's turns in frames: answers
begin REPLY frames after a question, stop STOP frames after the user starts to talk over them, and long turns
of the user are met with a short "mm-hm".
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import augment, speakers, tokens
from .clips import Clip, Clips
from .script import pairs
from .voices import SPEECH_RMS

FRAME = 1920
LENGTH = 160  # frames of a scene: well above the model's window
REPLY, STOP, BACKCHANNEL_AFTER = 4, 4, 45
NO_LABEL = -100
OTHER_WORD = 1  # label of a word that no question of the script has; 0 is "no word"


@dataclass
class Scene:
    """The user's sound and Moshi's side of it, frame by frame."""

    clean: np.ndarray = field(default_factory=lambda: np.zeros(LENGTH * FRAME, np.float32))
    moshi: np.ndarray = field(default_factory=lambda: np.zeros(LENGTH * FRAME, np.float32))
    text: np.ndarray = field(default_factory=lambda: np.full(LENGTH, tokens.PAD, np.int16))
    said: np.ndarray = field(default_factory=lambda: np.full(LENGTH, -1, np.int16))  # index of the answer being said
    place: np.ndarray = field(default_factory=lambda: np.zeros(LENGTH, np.int16))  # and which frame of it
    words: np.ndarray = field(default_factory=lambda: np.zeros(LENGTH, np.int16))  # label: the word just heard
    choice: np.ndarray = field(default_factory=lambda: np.full(LENGTH, NO_LABEL, np.int16))  # label: the right answer


class Simulator:
    """Draws scenes from the clips and the answers of a work folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.clips, self.pick, self.draw = Clips(folder), random.Random(seed), np.random.default_rng(seed)
        self.answers = json.loads((folder / "answers.json").read_text())
        with np.load(folder / "answers.npz") as file:
            self.waves = [file[str(i)] for i in range(len(file.files))]
        processor = tokens.make(folder)
        self.pieces = [[(processor.piece_to_id("▁" + word), at) for word, at in a["words"]] for a in self.answers]
        self.not_understood, self.backchannel = len(self.answers) - 2, len(self.answers) - 1
        vocabulary = sorted({word for pair in pairs() for question in pair.questions for word in question.split()})
        self.word_ids = {word: i + 2 for i, word in enumerate(vocabulary)}
        self.by_answer: dict[int, dict[str, list[Clip]]] = {}
        for clip in self.clips.split("train"):
            self.by_answer.setdefault(clip.answer, {}).setdefault(clip.family, []).append(clip)

    def scene(self) -> tuple[Scene, np.ndarray]:
        """(scene, what the microphone heard)."""
        scene, frame, pick = Scene(), self.pick.randint(2, 14), self.pick
        family = self.clips.family(pick)
        while frame < LENGTH - 8:
            kind = pick.choices(("question", "off", "long", "silence"), (52, 33, 8, 7))[0]
            if kind == "silence":
                frame += pick.randint(8, 60)
                continue
            if kind == "long":
                end, answer = self._long_turn(scene, frame, family), self.not_understood
            else:
                answer = pick.randrange(self.not_understood) if kind == "question" else self.not_understood
                end = self._utter(scene, self._clip(answer, family), frame * FRAME + pick.randrange(FRAME))
            begin = -(-end // FRAME) + REPLY
            scene.choice[-(-end // FRAME) + 1 : begin + 3] = answer
            frames = self.answers[answer]["frames"]
            if pick.random() < 0.3 and frames > 9:  # the user talks over the answer
                frame = begin + pick.randint(3, frames - 6)
                self._say(scene, answer, begin, frame + STOP - begin)
            else:
                self._say(scene, answer, begin, frames)
                frame = begin + frames + (pick.randint(0, 3) if pick.random() < 0.3 else pick.randint(2, 22))
        return scene, self._microphone(scene)

    def _clip(self, answer: int, family: str) -> Clip:
        voices = self.by_answer[-1 if answer == self.not_understood else answer]
        return self.pick.choice(voices.get(family) or voices["espeak"])  # small families do not say everything

    def _utter(self, scene: Scene, clip: Clip, start: int) -> int:
        """Add a clip at a sample; label its words; return the sample after its end."""
        speech = speakers.vary(self.clips.audio(clip), self.draw)
        part = speech[: max(0, len(scene.clean) - start)]
        scene.clean[start : start + len(part)] += part
        begin = 0.0
        for word, fraction in self.clips.words(clip.text):
            label = self.word_ids.get(word, OTHER_WORD)
            first, last = (round((start + f * len(speech)) / FRAME + 1.5) for f in (begin, fraction))
            scene.words[first : max(first + 1, last)] = label
            begin = fraction
        return start + len(speech)

    def _long_turn(self, scene: Scene, frame: int, family: str) -> int:
        """Sentences in a row, five seconds and more, with a "mm-hm" every BACKCHANNEL_AFTER frames of it."""
        start, wanted = frame * FRAME, FRAME * self.pick.randint(60, 110)
        end = start
        while end < start + wanted:
            end = self._utter(scene, self._clip(self.not_understood, family), end + self.pick.randint(1200, 4400))
        at = frame + BACKCHANNEL_AFTER
        while at + 10 < end // FRAME:
            self._say(scene, self.backchannel, at, self.answers[self.backchannel]["frames"])
            at += BACKCHANNEL_AFTER
        return end

    def _say(self, scene: Scene, answer: int, begin: int, frames: int) -> None:
        """Moshi says the first `frames` frames of an answer from frame `begin` on."""
        frames = min(frames, self.answers[answer]["frames"], LENGTH - begin)
        if frames <= 0:
            return
        scene.said[begin : begin + frames] = answer
        scene.place[begin : begin + frames] = np.arange(frames)
        scene.text[begin - 1] = tokens.EPAD
        for piece, at in self.pieces[answer]:
            if at < frames:
                scene.text[begin + at] = piece
        scene.moshi[begin * FRAME : (begin + frames) * FRAME] = self.waves[answer][: frames * FRAME]

    def _microphone(self, scene: Scene) -> np.ndarray:
        heard = augment.room(scene.clean, self.draw)
        gain = float(np.std(heard)) / (float(np.std(scene.clean)) + 1e-9)
        background = augment.noise(len(heard), self.draw)
        limit = 0.25 * SPEECH_RMS * gain if scene.clean.any() else 1.0
        background *= min(1.0, limit / (float(np.std(background)) + 1e-9))
        heard = heard + background
        for _ in range(self.pick.choice((0, 0, 0, 1, 2))):
            burst = augment.burst(self.draw)
            at = self.pick.randrange(len(heard) - len(burst))
            heard[at : at + len(burst)] += burst
        if self.pick.random() < 0.25:
            heard = heard + augment.echo(scene.moshi, self.draw)
        return np.clip(heard, -1, 1)


def make(folder: Path, shards: range, size: int = 250, seed: int = 5) -> None:
    """Write scenes-NNN.npz for every shard that is missing (each takes about half a minute)."""
    for shard in shards:
        path = folder / f"scenes-{shard:03d}.npz"
        if path.exists():
            continue
        simulator = Simulator(folder, 1000 * seed + shard)
        drawn = [simulator.scene() for _ in range(size)]
        fields = {
            name: np.stack([getattr(scene, name) for scene, _ in drawn])
            for name in ("text", "said", "place", "words", "choice")
        }
        heard = np.stack([(wave * 32767).astype(np.int16) for _, wave in drawn])
        np.savez(path.with_suffix(".tmp.npz"), heard=heard, **fields)
        path.with_suffix(".tmp.npz").rename(path)
        print(f"scenes: shard {shard} of {shards[0]} to {shards[-1]}", flush=True)

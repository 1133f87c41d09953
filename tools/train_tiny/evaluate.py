"""Stage `evaluate`: what the checkpoint does through `moshi_mlx.Session`, frame by frame, on voices it never heard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pystoi import stoi

import moshi_mlx

from . import augment, card
from .clips import Clip, Clips
from .recognise import Recogniser, spoken_words
from .script import BACKCHANNEL, NOT_UNDERSTOOD, answers, declines
from .voices import RATE

FRAME = 1920
NOISES = (1e-4, 1e-3, 5e-3)
LOUD = 4e-3  # rms of a frame of Moshi's that counts as sound
SHORTEST = 12 * FRAME  # of an answer that STOI can judge
LEAD, WAIT = 6, 48  # frames before a question and after it
GREEDY = moshi_mlx.Sampling(text_temperature=0.0, audio_temperature=0.0)


@dataclass
class Heard:
    """Moshi's side of one run: a frame an entry."""

    words: list[tuple[int, str]]
    sound: np.ndarray  # (frames, 1920)

    def text(self, first: int = 0, last: int = 1 << 30) -> str:
        return " ".join(word for frame, word in self.words if first <= frame < last and word != BACKCHANNEL)

    def loud(self) -> np.ndarray:
        """(frames,) bool: is there sound."""
        return np.sqrt(np.mean(self.sound**2, axis=1)) > LOUD


def converse(session: Any, wave: np.ndarray, echo: float = 0.0) -> Heard:
    """Run a user's waveform through a fresh session; `echo` feeds Moshi's voice back three frames later."""
    session.reset()
    frames, words, sounds = len(wave) // FRAME, [], []
    for frame in range(frames):
        heard = wave[frame * FRAME : (frame + 1) * FRAME]
        if echo and frame > 2:
            heard = heard + echo * sounds[frame - 3]
        reply = session.step(heard.astype(np.float32))
        if reply.text.strip():
            words.append((reply.frame + 1, reply.text.strip()))  # the text is one frame ahead of its sound
        sounds.append(np.asarray(reply.pcm))
    return Heard(words, np.stack(sounds))


class Evaluation:
    """Every measurement, with its clips and its sources of chance fixed."""

    def __init__(self, folder: Path, checkpoint: Path, sampling: Any, questions: int) -> None:
        self.clips, self.texts, self.draw = Clips(folder), answers(), np.random.default_rng(77)
        self.session = moshi_mlx.Session(moshi_mlx.load(str(checkpoint)), seed=0, sampling=sampling)
        pool = self.clips.split("heldout")
        self.draw.shuffle(asked := [clip for clip in pool if clip.answer >= 0])
        self.asked, self.off = asked[:questions], [clip for clip in pool if clip.answer < 0]
        with np.load(folder / "answers.npz") as file:
            self.originals = [file[str(i)] for i in range(len(file.files))]

    def _question(self, clip: Clip, noise: float, wait: int = WAIT) -> tuple[np.ndarray, int]:
        """(waveform of whole frames, sample at which the question ends)."""
        start = LEAD * FRAME + int(self.draw.integers(0, FRAME))
        end = start + clip.length
        wave = self.draw.standard_normal((end // FRAME + wait) * FRAME).astype(np.float32) * noise
        wave[start:end] += self.clips.audio(clip)
        return wave, end

    def on_script(self, noise: float) -> dict[str, Any]:
        """Questions of the script: exact text, answer chosen, latency of the first word and of the first sound."""
        word_at, sound_at, exact, chosen = [], [], 0, 0
        for clip in self.asked:
            wave, end = self._question(clip, noise)
            heard = converse(self.session, wave)
            said = heard.text()
            exact += said == self.texts[clip.answer]
            chosen += self._chosen(said) == clip.answer
            if heard.words:
                word_at.append(heard.words[0][0] * 80 - end / 24)
            if heard.loud().any():
                sound_at.append(int(np.argmax(heard.loud())) * 80 - end / 24)
        return {
            f"noise {noise:g}: exact text, of {len(self.asked)} questions": round(exact / len(self.asked), 3),
            f"noise {noise:g}: right answer chosen": round(chosen / len(self.asked), 3),
            f"noise {noise:g}: first word after the question, ms (10 %, median, 90 %)": _spread(word_at),
            f"noise {noise:g}: first sound after the question, ms (10 %, median, 90 %)": _spread(sound_at),
        }

    def _chosen(self, said: str) -> int:
        """The answer of the script that shares most words with what was said; −1 if nothing was."""
        words = set(spoken_words(said))
        shared = [len(words & set(spoken_words(text))) / len(words | set(spoken_words(text))) for text in self.texts]
        return int(np.argmax(shared)) if said else -1

    def off_script(self) -> dict[str, Any]:
        """Sentences outside the script, each at every noise: "not understood", perhaps begun twice, or silence."""
        kept: dict[str, float] = {}
        for noise in NOISES:
            said = [converse(self.session, self._question(clip, noise)[0]).text() for clip in self.off]
            share = float(np.mean([declines(text) for text in said]))
            twice = sum(declines(text) and text not in (NOT_UNDERSTOOD, "") for text in said)
            kept[f"noise {noise:g}: not understood or silent, of {len(said)} off-script"] = round(share, 3)
            kept[f'noise {noise:g}: "not understood" begun twice'] = twice
        return kept

    def idle(self, seconds: float) -> dict[str, Any]:
        """False starts in silence, hiss of three levels, hum-like rumble and music, `seconds` altogether."""
        starts, length = 0, int(seconds / 6 * RATE) // FRAME * FRAME
        for kind in range(6):
            if kind < 4:
                wave = self.draw.standard_normal(length) * (0, 1e-4, 2e-3, 2e-2)[kind]
            elif kind == 4:
                wave = 0.02 * np.sin(2 * np.pi * 50 * np.arange(length) / RATE) + 1e-3 * self.draw.standard_normal(
                    length
                )
            else:
                wave = 0.02 * augment.music(length, self.draw)
            words = converse(self.session, wave.astype(np.float32)).words
            starts += sum(1 for i, (frame, _) in enumerate(words) if i == 0 or frame - words[i - 1][0] > 12)
        return {f"false starts in {seconds:.0f} s of silence, noise and music": starts}

    def echo(self, count: int) -> dict[str, Any]:
        """Its own voice back at −30 dB: the answer must be whole, and nothing may follow it."""
        good = 0
        for clip in self.asked[:count]:
            heard = converse(self.session, self._question(clip, 3e-4, 2 * WAIT)[0], echo=10 ** (-30 / 20))
            good += heard.text() == self.texts[clip.answer]
        return {"exact, and silent after it, with its echo at −30 dB": round(good / count, 3)}

    def interruption(self, count: int) -> dict[str, Any]:
        """A second question spoken over the first answer: time until the first falls silent, and the second answer."""
        stops, right, tried = [], 0, 0
        long = [clip for clip in self.asked if len(self.originals[clip.answer]) > 19 * FRAME]
        for clip, other in zip(long[:count], self.asked[-count:], strict=False):
            wave, end = self._question(clip, 3e-4, WAIT + 40)
            onset = (end // FRAME + 4 + 7) * FRAME + int(self.draw.integers(0, FRAME))
            wave[onset : onset + other.length] += self.clips.audio(other)[: len(wave) - onset]
            heard, at = converse(self.session, wave), onset // FRAME
            if not heard.loud()[at - 3 : at + 1].any():
                continue  # nothing was being said when the user spoke
            tried += 1
            quiet = np.flatnonzero(~heard.loud()[at:])
            stops.append(float((at + quiet[0]) * 80 - onset / 24) if len(quiet) else 9e3)
            right += heard.text(at + 8) == self.texts[other.answer]
        within = sum(stop <= 500 for stop in stops) / max(1, tried)
        return {
            "interruption honoured within 500 ms": round(within, 3),
            "interruption: silence after, ms (10 %, median, 90 %)": _spread(stops),
            "interruption: the new question answered exactly": round(right / max(1, tried), 3),
        }

    def long_turns(self, count: int) -> dict[str, Any]:
        """Six seconds of unbroken off-script speech: is it met with a "mm-hm", and with no answer before its end."""
        met = early = 0
        for number in range(count):
            parts = []
            for clip in (self.off[(3 * number + k) % len(self.off)] for k in range(3)):
                parts += [self.clips.audio(clip), np.zeros(int(0.12 * RATE), np.float32)]
            speech = np.concatenate(parts)
            wave = np.pad(speech, (LEAD * FRAME, WAIT * FRAME + (-len(speech)) % FRAME))
            heard = converse(self.session, wave + self.draw.standard_normal(len(wave)).astype(np.float32) * 3e-4)
            ends = LEAD + len(speech) // FRAME
            met += any(word == BACKCHANNEL for frame, word in heard.words if frame < ends)
            early += bool(heard.text(0, ends - 2))
        return {"long turns met with a mm-hm": round(met / count, 3), "long turns interrupted": round(early / count, 3)}

    def conversation(self, seconds: float) -> dict[str, Any]:
        """Question after question in one session: accuracy of each half."""
        waves, marks, length = [], [], 0
        order = [clip for _ in range(4) for clip in self.asked]
        while length < seconds * RATE:
            wave, end = self._question(order[len(marks)], 3e-4, int(self.draw.integers(36, 60)))
            marks.append((order[len(marks)], (length + end) // FRAME, (length + len(wave)) // FRAME + LEAD))
            waves.append(wave)
            length += len(wave)
        heard = converse(self.session, np.concatenate(waves))
        right = [heard.text(first, last) == self.texts[clip.answer] for clip, first, last in marks]
        half = len(right) // 2
        return {
            f"conversation of {seconds:.0f} s, {len(right)} questions: exact in each half": [
                round(float(np.mean(right[:half])), 3),
                round(float(np.mean(right[half:])), 3),
            ]
        }

    def audio(self) -> dict[str, Any]:
        """What is heard when the text is exact: a recogniser's words and STOI, beside those of the original answers."""
        recogniser, made, original, scores = Recogniser(), np.zeros(2), np.zeros(2), []
        for clip in {clip.answer: clip for clip in self.asked}.values():
            heard = converse(self.session, self._question(clip, NOISES[0])[0])
            if heard.text() != self.texts[clip.answer]:
                continue
            reference, answer = self.originals[clip.answer], clip.answer
            wave = heard.sound[heard.words[0][0] :].reshape(-1)
            part = wave[: len(reference)]
            made += recogniser.errors(self.texts[answer], part)
            original += recogniser.errors(self.texts[answer], reference)
            if len(part) == len(reference) >= SHORTEST:
                scores.append(stoi(reference, part, RATE))
        return {
            "recogniser's word accuracy: Moshi": round(1 - made[0] / max(1, made[1]), 3),
            "recogniser's word accuracy: original answers": round(1 - original[0] / max(1, original[1]), 3),
            "STOI against the original answers": round(float(np.mean(scores)), 3) if scores else None,
        }


def _spread(values: list[float]) -> list[int] | None:
    return [round(float(v)) for v in np.percentile(values, (10, 50, 90))] if values else None


def evaluate(folder: Path, checkpoint: Path, questions: int, parts: list[str]) -> None:
    """Measure the parts (names of PARTS), print each result as it comes, and merge all into evaluation.json."""
    path = checkpoint / "evaluation.json"
    for part in parts:
        sampling = moshi_mlx.Sampling() if part == "sampling" else GREEDY
        found = PARTS[part](Evaluation(folder, checkpoint, sampling, questions))
        print(json.dumps(found, indent=1, ensure_ascii=False), flush=True)
        results = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(results | found, indent=1, ensure_ascii=False) + "\n")
        card.write(checkpoint)


def _sampled(run: Evaluation) -> dict[str, Any]:
    """The script again, at the default temperatures."""
    return {f"default sampling, {name}": value for name, value in run.on_script(NOISES[1]).items()}


PARTS: dict[str, Callable[[Evaluation], dict[str, Any]]] = {
    **{f"noise-{noise:g}": partial(Evaluation.on_script, noise=noise) for noise in NOISES},
    "off": Evaluation.off_script,
    "interruption": lambda run: run.interruption(24),
    "audio": Evaluation.audio,
    "sampling": _sampled,
    "conversation": lambda run: run.conversation(300),
    "echo": lambda run: run.echo(20),
    "long": lambda run: run.long_turns(12),
    "idle": lambda run: run.idle(600),
}

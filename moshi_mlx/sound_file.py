"""Opening a sound file of any format for reading, whatever its header says of its length."""

from __future__ import annotations

import contextlib
from pathlib import Path

import soundfile

from .frame import MoshiError

LONGEST = 100 * 3600  # seconds; a longer length in a header is a lie or unknown


class _Stream(soundfile.SoundFile):
    """Reads on and on: a FLAC or MP3 that was written through a pipe does not know its length, and cannot be sought."""

    def seekable(self) -> bool:
        return False


def open_sound(path: Path) -> soundfile.SoundFile:
    """A sound file to be `read` in pieces; MoshiError for what is none."""
    try:
        with path.open("rb"):  # libsndfile calls everything "System error"
            pass
        return _Stream(path)
    except OSError as error:
        raise MoshiError(f"{path} cannot be read: {error.strerror}; name a sound file") from None
    except UnicodeEncodeError:
        raise MoshiError(f"{str(path)!a} is no UTF-8: rename it") from None
    except (soundfile.SoundFileError, TypeError):  # a TypeError asks for the layout of raw samples
        raise MoshiError(f"{path} is not a sound file that can be read; convert it to WAV, FLAC, Ogg or MP3") from None


def count_samples(file: soundfile.SoundFile, path: Path) -> int:
    """How many samples of each channel `file`, opened from `path`, holds; counted where it does not know."""
    if file.frames < LONGEST * file.samplerate:
        return int(file.frames)
    count = 0
    with open_sound(path) as again, contextlib.suppress(soundfile.LibsndfileError):  # a damaged one ends there
        while got := len(again.read(file.samplerate)):
            count += got
    return count

"""Word accuracy by a recogniser apart from our model: pocketsphinx with the words of the answers, in any order."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from pocketsphinx import Decoder, get_model_path

from .script import answers
from .voices import RATE


def spoken_words(text: str) -> list[str]:
    """The words of a written answer, lower case, without punctuation."""
    return re.sub(r"[^a-z' ]", "", text.lower().replace("-", " ")).split()


def edit_distance(expected: Sequence[str], found: Sequence[str]) -> int:
    """Words to insert, delete or replace."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(expected, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


class Recogniser:
    """Free recognition: a unigram of all words of the answers, each as likely as the other."""

    def __init__(self) -> None:
        models = Path(get_model_path("en-us"))
        wanted = {word for answer in answers() for word in spoken_words(answer)}
        lines = (models / "cmudict-en-us.dict").read_text().splitlines()
        entries = [line for line in lines if re.sub(r"\(\d\)", "", line.split(" ", 1)[0]) in wanted]
        self.known = {re.sub(r"\(\d\)", "", entry.split(" ", 1)[0]) for entry in entries}
        score = math.log10(1 / (len(self.known) + 2))
        grams = "".join(f"{score:.4f} {word}\n" for word in sorted(self.known))
        with tempfile.TemporaryDirectory() as folder:
            dictionary, grammar = Path(folder) / "words.dict", Path(folder) / "words.arpa"
            dictionary.write_text("\n".join(entries) + "\n")
            head = f"\\data\\\nngram 1={len(self.known) + 2}\n\n\\1-grams:\n-99 <s>\n{score:.4f} </s>\n"
            grammar.write_text(f"{head}{grams}\n\\end\\\n")
            self.decoder = Decoder(
                hmm=str(models / "en-us"), dict=str(dictionary), lm=str(grammar), loglevel="FATAL", samprate=16000
            )

    def words(self, wave: np.ndarray) -> list[str]:
        """The words heard in a waveform at 24 kHz."""
        quiet = np.random.default_rng(0).standard_normal(len(wave) + RATE // 2) * 1e-4
        quiet[RATE // 5 : RATE // 5 + len(wave)] += wave
        low = soxr.resample(quiet.astype(np.float32), RATE, 16000)
        self.decoder.start_utt()
        self.decoder.process_raw((np.clip(low, -1, 1) * 32000).astype(np.int16).tobytes(), full_utt=True)
        self.decoder.end_utt()
        hypothesis = self.decoder.hyp()
        return [re.sub(r"\(\d\)", "", word) for word in hypothesis.hypstr.split()] if hypothesis else []

    def errors(self, text: str, wave: np.ndarray) -> tuple[int, int]:
        """(word errors, words) of a spoken answer; words the dictionary lacks do not count."""
        expected = [word for word in spoken_words(text) if word in self.known]
        return edit_distance(expected, self.words(wave)), len(expected)

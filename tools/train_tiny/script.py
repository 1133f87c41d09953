"""The script of the tiny model: what it is asked, what it answers, and what it has never heard of."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
NOT_UNDERSTOOD = "Sorry, I did not understand."
BACKCHANNEL = "Mm-hm."


@dataclass(frozen=True)
class Pair:
    """One answer and every way to ask for it."""

    theme: str
    answer: str
    questions: tuple[str, ...]


def pairs() -> list[Pair]:
    """All question/answer pairs, in the order of script.txt (an answer's index is its id everywhere)."""
    theme, found = "", []
    for line in (HERE / "script.txt").read_text().splitlines():
        if line.startswith("# theme:"):
            theme = line.removeprefix("# theme:").strip()
        elif line and not line.startswith("#"):
            answer, *questions = (part.strip() for part in line.split("|"))
            found.append(Pair(theme, answer, tuple(questions)))
    return found


def answers() -> list[str]:
    """Everything Moshi can say: the answers of the script, then NOT_UNDERSTOOD, then BACKCHANNEL."""
    return [pair.answer for pair in pairs()] + [NOT_UNDERSTOOD, BACKCHANNEL]


def declines(text: str) -> bool:
    """Whether it is silence, or "not understood", perhaps begun in a pause of the user's and said once more."""
    begun = text.removesuffix(NOT_UNDERSTOOD).strip()
    return not text or (text.endswith(NOT_UNDERSTOOD) and NOT_UNDERSTOOD.startswith(begun))


def off_script(seed: int, count: int) -> list[str]:
    """`count` different sentences that are not in the script: training material for "I did not understand"."""
    lists, patterns = _grammar()
    draw, found = random.Random(seed), dict[str, None]()
    known = {question for pair in pairs() for question in pair.questions} | set(off_script_sentences("eval"))
    while len(found) < count:
        words = re.sub(r"\{(\w+)\}", lambda name: draw.choice(lists[name[1]]), draw.choice(patterns))
        if words not in known:
            found[words] = None
    return list(found)


def _grammar() -> tuple[dict[str, list[str]], list[str]]:
    """(word lists, patterns) of offscript.txt."""
    lists, patterns = dict[str, list[str]](), list[str]()
    for line in (HERE / "offscript.txt").read_text().splitlines():
        if line.startswith("@"):
            name, _, words = line[1:].partition(":")
            lists[name] = [word.strip() for word in words.split("|")]
        elif line and not line.startswith("#"):
            patterns.append(line)
    return lists, patterns


def off_script_sentences(use: str) -> list[str]:
    """Sentences written apart from the patterns: for the evaluation ("eval"), or watched in training ("watch")."""
    return [line for line in (HERE / f"offscript_{use}.txt").read_text().splitlines() if line]

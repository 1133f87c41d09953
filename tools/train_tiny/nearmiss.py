"""Sentences that begin, end or are built like a question of the script and ask something else.

The patterns of offscript.txt teach the words that they list; these teach that anything else is not the script either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from .script import off_script, off_script_sentences, pairs

_VOCABULARY = 4000  # of the most frequent English words
_FROM_SCRIPT = 0.2  # how often a word comes from another question
# other words of these kind make no other question
_UNSTRESSED = frozenset(("a", "an", "the", "is", "are", "do", "does", "please", "very", "to", "of"))


def near_misses(seed: int, count: int) -> list[str]:
    """`count` different near misses; none holds a question of the script, or a word that the evaluation alone has."""
    draw, found = random.Random(seed), dict[str, None]()
    script = [question.split() for pair in pairs() for question in pair.questions]
    others = [sentence.split() for sentence in off_script(seed, 2000)]
    while len(found) < count:
        words = _missed(draw.choice(script), draw.choice(others), draw)
        sentence = " ".join(words)
        if not _in_script(words) and sentence not in off_script_sentences("eval"):
            found[sentence] = None
    return list(found)


def _missed(question: Sequence[str], other: Sequence[str], draw: random.Random) -> list[str]:
    """A question with other words in the place of one or two, or with another beginning or end."""
    kind = draw.random()
    if kind < 0.25 and len(question) > 2:
        return [*question[: draw.randint(2, len(question) - 1)], *other[-draw.randint(1, 3) :]]
    if kind < 0.4 and len(question) > 2:
        return [*other[: draw.randint(1, 4)], *question[draw.randint(1, len(question) - 2) :]]
    stressed = [i for i, word in enumerate(question) if word not in _UNSTRESSED]
    first = draw.choice(stressed)
    last = first + (draw.random() < 0.3)
    return [*question[:first], *(_word(draw) for _ in range(draw.choice((1, 1, 1, 2)))), *question[last + 1 :]]


def _word(draw: random.Random) -> str:
    general, script = _vocabulary()
    return draw.choice(script if draw.random() < _FROM_SCRIPT else general)


@cache
def _vocabulary() -> tuple[list[str], list[str]]:
    """(frequent English words, words of the script), both without the unstressed ones."""
    from wordfreq import top_n_list  # the evaluation reads clips where it is not installed

    script = {word for pair in pairs() for question in pair.questions for word in question.split()}
    taught = script | {word for sentence in off_script(1, 3000) for word in sentence.split()}
    examined = {word for sentence in off_script_sentences("eval") for word in sentence.split()} - taught
    general = [word for word in top_n_list("en", _VOCABULARY) if word.isascii() and word.isalpha() and len(word) > 2]
    return sorted(set(general) - examined - _UNSTRESSED), sorted(script - _UNSTRESSED)


@cache
def _stressed_questions() -> list[list[str]]:
    script = [question.split() for pair in pairs() for question in pair.questions]
    return [[word for word in question if word not in _UNSTRESSED] for question in script]


def _in_script(words: Sequence[str]) -> bool:
    """Whether the words of some question come in these, in their order."""
    return any(_subsequence(question, words) for question in _stressed_questions())


def _subsequence(part: Sequence[str], words: Sequence[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in part)

"""The script of the tiny model: what it is asked, what it answers, and what it has never heard of."""

from __future__ import annotations

import random
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


_STARTS = ("", "", "", "", "i think ", "he said that ", "maybe ", "you know ", "well ", "yesterday ", "they say ")
_WHO = (
    "my sister",
    "the teacher",
    "our neighbor",
    "a doctor",
    "his friend",
    "the old man",
    "this company",
    "her mother",
    "the driver",
    "a young woman",
    "the government",
    "my uncle",
    "the team",
    "nobody",
    "the manager",
    "every student",
)
_DOES = (
    "bought",
    "painted",
    "forgot",
    "wanted to sell",
    "is looking for",
    "never finished",
    "talks about",
    "broke",
    "found",
    "will visit",
    "can not stand",
    "wrote a letter about",
    "moved",
    "paid for",
    "dreams of",
    "repaired",
)
_WHAT = (
    "a new bicycle",
    "the kitchen",
    "three wooden chairs",
    "an expensive phone",
    "the garden",
    "some old books",
    "a train ticket",
    "the last chapter",
    "their summer house",
    "a broken window",
    "the football match",
    "a bowl of soup",
    "the wrong address",
    "a yellow umbrella",
    "the piano lesson",
    "a pair of shoes",
)
_WHEN = (
    "",
    "",
    " last week",
    " on the way home",
    " before breakfast",
    " in the evening",
    " again",
    " without a reason",
    " near the station",
    " for a while",
    " next year",
    " because of the rain",
)
_ASK = (
    "where can i buy {}",
    "who wants to see {}",
    "how much does {} cost",
    "why is {} so important",
    "can i borrow {}",
    "when will we get {}",
    "what happened to {}",
    "please bring me {}",
    "do you remember {}",
    "i do not need {}",
    "is this really {}",
    "put {} on the table",
    "how do you spell {}",
    "what is the name of {}",
    "tell me about {}",
)
_NEAR = (
    "what is the capital of germany",
    "what is the capital of brazil",
    "name the capital of egypt",
    "who wrote the bible",
    "which city is the capital of canada",
    "what color is a carrot",
    "what color is my car",
    "tell me the color of coffee",
    "what is four plus nine",
    "how much is eight minus six",
    "what is nine times three",
    "what is half of eighty",
    "how many people live in london",
    "how many seconds are in a minute",
    "how many legs does a horse have",
    "which planet is the largest",
    "who wrote the odyssey",
    "who invented the telephone",
    "what do dogs eat",
    "what do horses drink",
    "can elephants swim",
    "is the water cold",
    "what comes after september",
    "how far is chicago",
    "which river is the longest",
    "what is the smallest country",
    "how do i cook rice",
    "how do i fix my car",
    "who is the president",
    "where is my phone",
    "what is your address",
    "how was the movie",
    "do you like pizza",
    "can you dance",
    "are you married",
    "where were you yesterday",
    "count to one hundred",
    "tell me the news",
    "say my name backwards",
    "play some jazz",
    "call my mother",
    "set an alarm for seven",
    "send a message to john",
    "what is a neural network",
    "what is a microphone",
    "explain gravity to me",
    "how long is a mile",
    "how big is a house",
    "good afternoon everybody",
    "happy new year",
    "i am from australia",
    "i am a dentist",
    "i feel like dancing",
)


def off_script(seed: int, count: int) -> list[str]:
    """`count` different sentences that are not in the script: training material for "I did not understand"."""
    draw, found = random.Random(seed), dict.fromkeys(_NEAR)
    known = {question for pair in pairs() for question in pair.questions}
    while len(found) < count:
        if draw.random() < 0.5:
            words = draw.choice(_ASK).format(draw.choice(_WHAT))
        else:
            words = draw.choice(_STARTS) + draw.choice(_WHO) + " " + draw.choice(_DOES)
            words += " " + draw.choice(_WHAT) + draw.choice(_WHEN)
        if words not in known:
            found[words] = None
    return list(found)[:count]


def off_script_unseen() -> list[str]:
    """Sentences for the evaluation alone, written apart from the templates above."""
    return [line for line in (HERE / "offscript_eval.txt").read_text().splitlines() if line]

"""Turn-taking of a dialogue, from the inter-pausal units of its two speakers; no other knowledge, no words.

The terms are those of the dialogue literature (Heldner and Edlund 2010; Nguyen and others 2023, dGSLM):

- unit: speech of one speaker without a silence of 200 ms or more.
- pause: silence of both between units of one speaker. gap: silence of both where the speaker changes.
- overlap: both speak. It is *between* turns if it hands over the floor, *within* if the first speaker goes on alone.
- response: how long after the end of one's speech the other begins, where the floor changes: a gap, or minus the
  overlap.
- turn: units of one speaker with pauses below 0.5 s.
- back-channel: a unit of at most 1 s inside the other's turn, which goes on for 1 s or more. It takes no floor.
- interruption: any other turn that begins inside the other's and overlaps it for 0.2 s or more; less cannot be told
  from an ordinary change of turns. The interrupted has yielded if its turn ends before the interrupter's does, or
  within 1 s; else the interrupter has. So a breath yields nothing, and to go on after it is no interruption.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .activity import ActivityParameters, Levels, Span, find_speech

SPEAKERS = {"user": "You", "moshi": "Moshi"}  # by side, as people read it
SIDES = tuple(SPEAKERS)
SLACK = 1e-6  # seconds; sums of block times are not exact


@dataclass(frozen=True)
class TurnParameters:
    """The numbers of the definitions, in seconds."""

    backchannel: float = 1.0  # the longest back-channel
    turn_pause: float = 0.5  # a pause below this belongs to a turn
    carries_on: float = 1.0  # so long the other's turn goes on after a back-channel, at least
    contested: float = 0.2  # the shortest overlap that is an interruption
    yielding: float = 1.0  # who falls silent within this after being interrupted has yielded


@dataclass(frozen=True)
class Stretch:
    """A pause, a gap or an overlap. side: who pauses, who speaks after the gap, who began the overlap second."""

    start: float
    end: float
    side: str
    kind: str  # pause, gap, between, within


@dataclass(frozen=True)
class Response:
    """`side` takes the floor at `at`, `delay` after the other fell silent (negative: before)."""

    side: str
    at: float
    delay: float


@dataclass(frozen=True)
class Interruption:
    """`side` begins at `at` while the other speaks; `yields` falls silent `after` seconds later."""

    side: str
    at: float
    yields: str
    after: float


@dataclass(frozen=True)
class TurnTaking:
    """All that was found. `units` and `backchannels` by side; the rest in the order of time."""

    seconds: float
    units: dict[str, list[Span]]
    stretches: list[Stretch]
    responses: list[Response]
    interruptions: list[Interruption]
    backchannels: dict[str, list[Span]]
    parameters: dict[str, float] = field(default_factory=dict)

    def of_kind(self, *kinds: str) -> list[Stretch]:
        """The stretches of some kinds."""
        return [stretch for stretch in self.stretches if stretch.kind in kinds]

    def summary(self) -> dict[str, Any]:
        """The figures of the report: counts, seconds, seconds a minute, medians."""
        minutes = max(self.seconds, 1e-9) / 60
        result: dict[str, Any] = {"seconds": round(self.seconds, 3)}
        overlaps = self.of_kind("between", "within")
        for name, found in (("pauses", self.of_kind("pause")), ("gaps", self.of_kind("gap")), ("overlaps", overlaps)):
            total = sum(item.end - item.start for item in found)
            result[name] = {
                "count": len(found),
                "seconds": round(total, 3),
                "seconds_per_minute": round(total / minutes, 3),
            }
        result["overlaps"]["between_turns"] = len(self.of_kind("between"))
        result["overlaps"]["within_turn"] = len(self.of_kind("within"))
        speaking = {side: sum(end - start for start, end in self.units[side]) for side in SIDES}
        either = sum(speaking.values()) - result["overlaps"]["seconds"]
        result["overlaps"]["share_of_speech"] = round(result["overlaps"]["seconds"] / either, 4) if either else 0.0
        for side in SIDES:
            delays = [response.delay for response in self.responses if response.side == side]
            cuts = [item for item in self.interruptions if item.side == side]
            won = [item.after for item in cuts if item.yields != side]
            result[side] = {
                "units": len(self.units[side]),
                "speaking_seconds": round(speaking[side], 3),
                "speaking_share": round(speaking[side] / self.seconds, 4) if self.seconds else 0.0,
                "responses": len(delays),
                "response_p50": _percentile(delays, 50),
                "response_p95": _percentile(delays, 95),
                "interruptions": len(cuts),
                "other_yields": len(won),
                "other_yields_p50": _percentile(won, 50),
                "backchannels": len(self.backchannels[side]),
            }
        return result

    def to_json(self) -> dict[str, Any]:
        """Summary, parameters and everything that was found, as plain data."""
        return {"summary": self.summary(), **asdict(self)}


def analyze_levels(levels: Levels) -> TurnTaking:
    """Levels of a stereo recording → its turn-taking; the parameters of both steps are kept in the result."""
    activity, turns = ActivityParameters(), TurnParameters()
    units = {side: find_speech(levels.level[:, lane], levels.block, activity) for lane, side in enumerate(SIDES)}
    return take_turns(units, levels.seconds, turns, {**asdict(activity), **asdict(turns), "block": levels.block})


def take_turns(
    units: dict[str, list[Span]],
    seconds: float,
    turns: TurnParameters | None = None,
    parameters: dict[str, float] | None = None,
) -> TurnTaking:
    """Units of both sides, each in order and apart → turn-taking."""
    p = turns or TurnParameters()
    backchannels: dict[str, list[Span]] = {}
    interruptions: list[Interruption] = []
    joined = {side: join_units(units[side], p.turn_pause) for side in SIDES}
    holding: dict[str, list[Span]] = {}
    for side, other in (SIDES, SIDES[::-1]):
        backchannels[side] = [
            (start, end)
            for start, end in units[side]
            if end - start <= p.backchannel + SLACK
            and any(begin < start and end + p.carries_on <= stop + SLACK for begin, stop in joined[other])
        ]
        holding[side] = [unit for unit in units[side] if unit not in backchannels[side]]
        for start, end in join_units(holding[side], p.turn_pause):
            held = next((turn for turn in joined[other] if turn[0] < start < turn[1]), None)
            if held is None or min(held[1], end) - start < p.contested - SLACK:
                continue
            yielded = held[1] <= end or held[1] - start <= p.yielding + SLACK
            after = (held[1] if yielded else end) - start
            interruptions.append(Interruption(side, start, other if yielded else side, round(after, 4)))
    interruptions.sort(key=lambda item: item.at)
    return TurnTaking(
        seconds, units, _stretches(units), _responses(holding), interruptions, backchannels, parameters or asdict(p)
    )


def join_units(units: Sequence[Span], pause: float) -> list[Span]:
    """Units → turns: what lies less than `pause` apart is one."""
    turns: list[Span] = []
    for start, end in units:
        if turns and start - turns[-1][1] < pause - SLACK:
            turns[-1] = (turns[-1][0], end)
        else:
            turns.append((start, end))
    return turns


def _states(units: dict[str, list[Span]]) -> list[tuple[float, float, frozenset[str]]]:
    """(from, to, who speaks) in order, without gaps, from the first sound to the last."""
    states: list[tuple[float, float, frozenset[str]]] = []
    at = dict.fromkeys(SIDES, 0)
    for start, end in itertools.pairwise(sorted({moment for side in SIDES for unit in units[side] for moment in unit})):
        speaking = set()
        for side in SIDES:
            while at[side] < len(units[side]) and units[side][at[side]][1] <= start:
                at[side] += 1
            if at[side] < len(units[side]) and units[side][at[side]][0] <= start:
                speaking.add(side)
        states.append((start, end, frozenset(speaking)))
    return states


def _stretches(units: dict[str, list[Span]]) -> list[Stretch]:
    """Pauses, gaps and overlaps in order. Before and after them is whoever spoke alone last, and speaks alone next."""
    states = _states(units)
    stretches: list[Stretch] = []
    before = ""
    for index, (start, end, speaking) in enumerate(states):
        if len(speaking) == 1:
            (before,) = speaking
            continue
        after = next((next(iter(who)) for _, _, who in states[index + 1 :] if len(who) == 1), before)
        following = states[index + 1][2] if index + 1 < len(states) else frozenset()
        if speaking:
            second = max(SIDES, key=lambda side: _unit_start(units[side], start))
            stretches.append(Stretch(start, end, second, "between" if following == {second} != {before} else "within"))
        elif before in following or not before:
            stretches.append(Stretch(start, end, before or after, "pause"))
        else:
            stretches.append(Stretch(start, end, after, "gap"))
    return stretches


def _responses(units: dict[str, list[Span]]) -> list[Response]:
    """Every change of the floor: someone speaks alone, and the last to do so was the other."""
    responses: list[Response] = []
    holder = ""
    fell_silent = dict.fromkeys(SIDES, 0.0)
    for start, end, speaking in _states(units):
        if len(speaking) == 1:
            (side,) = speaking
            if holder and holder != side:
                began = _unit_start(units[side], start)
                responses.append(Response(side, began, round(began - fell_silent[holder], 4)))
            holder = side
        for side in speaking:
            fell_silent[side] = end
    return responses


def _unit_start(units: Sequence[Span], at: float) -> float:
    return next(start for start, end in units if start <= at < end)


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if values else None

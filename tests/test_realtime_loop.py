"""The whole loop on a virtual clock: hostile schedules, the verbs, failures, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_kit import Run

from moshi_mlx.frame import Pcm
from tools.soak_realtime import Soak, steepest

VERBS = ["mute", "pause", "push_to_talk", "talk", "reset", "reopen"]


@pytest.mark.parametrize("ppm", [300.0, -300.0])
def test_ten_minutes_on_a_desk(ppm: float) -> None:
    """Lag that only ratchets up is the first complaint about such programs: a slow model, bursts, jitter, a device that
    vanishes and drifting clocks must all be survived, with lag back at its target 2 s after each."""
    soak = Soak(600, seed=1, ppm=ppm).run()
    assert not soak.faults
    statistics = soak.talk.statistics()
    assert statistics.reopened == 1
    assert statistics.dropped_ms > 4_000  # the slow half minute: 6 s too much
    assert statistics.frames > 7_300


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("block", [64, 441, 4_096])
def test_any_rate_and_block(rate: int, block: int) -> None:
    """Blocks larger than a frame, smaller than a millisecond, rates that are no multiple: complete and on target."""
    seconds = 3.0 if block == 64 else 8.0
    settings = {"input_rate": rate, "output_rate": rate, "input_block": block, "output_block": block}
    run = Run(lambda now: 0.1 if 1 < now < 1.6 else 0.03, **settings).until(seconds)
    played, block_ms = run.played(), 1_000 * block / rate
    late = [above for when, above in run.above if when > 3.6]
    assert all(above < 50 + block_ms for above in late)
    assert np.abs(np.diff(played)).max() < steepest(rate)
    assert run.level(seconds - 0.5, seconds) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
    assert len(run.exchanges) > (seconds - 0.7) * 12.5


@settings(max_examples=15, deadline=None)
@given(
    costs=st.lists(st.sampled_from([0.0, 0.02, 0.07, 0.09, 0.25, 1.3]), min_size=1, max_size=40),
    rates=st.tuples(*[st.sampled_from([16_000, 24_000, 44_100, 48_000])] * 2),
    blocks=st.tuples(*[st.sampled_from([160, 512, 3_000])] * 2),
    late=st.sampled_from([0.0, 0.01, 0.2]),
    gone=st.lists(st.tuples(st.floats(0.5, 5), st.floats(0.01, 2)), max_size=2),
    verbs=st.lists(st.tuples(st.floats(0, 6), st.sampled_from(VERBS), st.booleans())),
)
def test_any_schedule_keeps_the_invariants(
    costs: list[float],
    rates: tuple[int, int],
    blocks: tuple[int, int],
    late: float,
    gone: list[tuple[float, float]],
    verbs: list[tuple[float, str, bool]],
) -> None:
    """Random steps, callbacks, faults and keys at once: `audit` after every frame, a sound without steps, an end."""
    random = np.random.default_rng(0)
    turns = iter(range(10**9))
    run = Run(
        lambda now: costs[next(turns) % len(costs)],
        input_rate=rates[0],
        output_rate=rates[1],
        input_block=blocks[0],
        output_block=blocks[1],
        late=lambda: float(random.uniform(0, late)),
        gone=[(start, start + length) for start, length in gone],
    )
    for when, verb, on in verbs:
        act = getattr(run.talk, verb)
        run.device.at(
            when, (lambda act=act: act()) if verb in ("reset", "reopen") else (lambda act=act, on=on: act(on))
        )
    run.until(6)
    statistics = run.talk.statistics()
    assert statistics.state == "stopped"
    assert statistics.callback_errors == 0
    if not gone and not any(verb == "reopen" for _, verb, _ in verbs) and run.blocks:
        assert np.abs(np.diff(run.played())).max() < steepest(rates[1], cuts=5)


def test_lag_is_what_a_click_takes_from_the_microphone_to_the_loudspeaker() -> None:
    """A lag that is only a number on the screen: it must be the time a sound really takes, to a block."""

    def click(start: int, count: int) -> Pcm:
        block = np.zeros(count, np.float32)
        if start <= 3 * 48_000 < start + count:
            block[3 * 48_000 - start] = 1
        return block

    run = Run(source=click).until(5)
    heard = int(np.argmax(np.abs(run.played()))) / 48_000
    claimed = [one.lag_ms for one in run.exchanges if 2.5 < one.seconds < 3.5]
    assert 1_000 * (heard - 3) == pytest.approx(np.mean(claimed), abs=11)


def test_what_stands_is_dropped_when_the_model_is_just_fast_enough() -> None:
    """A model of 79 ms a frame that stalls once would need half a minute to catch up, and be late for all of it."""
    run = Run(lambda now: 0.38 if 3 < now < 3.1 else 0.079).until(8)
    assert all(above < 80 for when, above in run.above if when > 5.4)  # only whole frames can be dropped
    assert run.talk.statistics().dropped_ms >= 160


def test_the_log_tells_why_it_crackled() -> None:
    """Crackle without a reason cannot be mended: each underrun and drop is a line, then all numbers."""
    run = Run(lambda now: 0.1 if now < 8 else 0.02).until(10)
    lines = [json.loads(line) for line in run.talk.json_lines().splitlines()]
    kinds = {line["event"] for line in lines}
    assert {"underrun", "dropped", "summary"} <= kinds
    assert lines[-1]["underruns"] == run.talk.statistics().underruns
    assert lines[-1]["misses"] > 50

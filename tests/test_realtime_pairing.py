"""What was played belongs to what was heard, though both arrive in bursts and one may stand still."""

from __future__ import annotations

import numpy as np

from moshi_mlx.frame import RATE
from moshi_mlx.realtime.echo import BLOCK
from moshi_mlx.realtime.pairing import Pairing


def test_pairing_keeps_what_was_played_before_its_echo_in_any_bursts() -> None:
    """A reference that comes after the echo, or slides against it, cancels nothing; late bursts must not shift it."""
    random = np.random.default_rng(0)
    sound = np.arange(1, 20 * RATE, dtype=np.float32)  # each sample says where it is; none is silent
    pairing, waiting, given, offsets = Pairing(), 0, 0, []
    pairing.add(sound[:480])
    given = 480
    pairing.start(0, 960)
    for _ in range(400):
        waiting += int(random.integers(0, 500))
        while waiting >= BLOCK:
            block = pairing.take()
            waiting -= BLOCK
            known = block > 0
            index = len(offsets) * BLOCK + np.arange(BLOCK)
            offsets.append((index - block)[known])
        due = min(len(sound), len(offsets) * BLOCK + waiting + 480 + int(random.integers(-1_800, 200)))
        if due > given:
            pairing.add(sound[given:due])
            given = due
    assert len(np.unique(np.concatenate(offsets))) == 1


def test_pairing_refills_its_reserve_in_a_silence() -> None:
    """A loudspeaker whose clock is slow uses up the reserve; then every block of the reference had a hole in it."""
    pairing = Pairing()
    pairing.start(0, 480)
    for _ in range(250):  # nothing comes for a second, and nothing was heard either
        pairing.take()
    pairing.add(np.zeros(250 * BLOCK, np.float32))
    for _ in range(200):
        pairing.add(np.zeros(BLOCK, np.float32))
        pairing.take()
    sound = np.full(BLOCK, 0.5, np.float32)
    taken = []
    for _ in range(20):
        pairing.add(sound)
        taken.append(pairing.take())
    line = np.concatenate(taken)
    first = int(np.argmax(line > 0))
    assert line[first:].all()
    assert 0 < first <= 960


def test_a_reference_that_stays_away_is_found_to_be_lost() -> None:
    """A loudspeaker that stood for a while owed its blocks for ever: each that came was dropped as paid, so that the
    next was owed again, and where nothing is silent the regulator never looks."""
    pairing = Pairing()
    pairing.start(0, 480)
    for _ in range(50):
        pairing.take()
    assert not pairing.lost
    for _ in range(100):
        pairing.add(np.full(BLOCK, 0.5, np.float32))
        pairing.take()
    assert pairing.lost
    pairing.start(0, 480)
    assert not pairing.lost

"""The whole loop on a virtual clock: hostile schedules, the verbs, failures, files."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from moshi_mlx.frame import FRAME, RATE, MoshiError, Pcm, Reply, Stepper
from moshi_mlx.realtime import Conversation, Exchange, FileDevice, VirtualDevice
from tools.soak_realtime import EchoingStepper, Soak, audit, steepest, tone

VERBS = ["mute", "pause", "push_to_talk", "talk", "reset", "reopen"]


class Run:
    """A conversation with an echoing stepper on a virtual device: what was exchanged, what was played."""

    def __init__(
        self, cost: Callable[[float], float] = lambda now: 0.04, source: object = None, **settings: object
    ) -> None:
        self.rate = int(settings.get("output_rate", 48_000))  # type: ignore[call-overload]
        self.blocks: list[Pcm] = []
        self.times: list[float] = []
        self.exchanges: list[Exchange] = []
        self.above: list[tuple[float, float]] = []  # when, and the lag above its target
        self.device = VirtualDevice(
            source or tone(int(settings.get("input_rate", 48_000))),  # type: ignore[arg-type, call-overload]
            self._sink,
            **settings,  # type: ignore[arg-type]
        )
        self.stepper = EchoingStepper(self.device.sleep, lambda: cost(self.device.now()))
        self.talk = Conversation(self.device, lambda report: self.stepper, on_exchange=self._look)

    def until(self, seconds: float) -> Run:
        self.device.at(seconds, self.talk.stop)
        self.talk.start()
        assert self.talk.wait(60)
        self.talk.check()
        return self

    def played(self) -> Pcm:
        return np.concatenate(self.blocks)

    def level(self, start: float, end: float) -> float:
        sound = [block for when, block in zip(self.times, self.blocks, strict=True) if start <= when < end]
        return float(np.sqrt(np.mean(np.square(np.concatenate(sound)))))

    def _sink(self, block: Pcm) -> None:
        self.blocks.append(block)
        self.times.append(self.device.now())

    def _look(self, exchange: Exchange) -> None:
        loop = self.talk._engine.loop
        assert loop is not None
        audit(loop)
        self.exchanges.append(exchange)
        self.above.append((self.device.now(), exchange.lag_ms - loop.target_ms()))


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


def test_mute_and_push_to_talk_feed_silence_and_keep_stepping() -> None:
    """Muting that stops the model lets the GPU go cold, and the first words after it come late."""
    run = Run()
    run.device.at(2, lambda: run.talk.mute(True))
    run.device.at(4, lambda: run.talk.mute(False))
    run.device.at(6, lambda: run.talk.push_to_talk(True))
    run.device.at(8, lambda: run.talk.talk(True))
    run.until(10)
    loud = {round(one.seconds): float(np.abs(one.user).max()) > 0.2 for one in run.exchanges if one.seconds % 1 < 0.08}
    assert [loud[second] for second in (1, 3, 5, 7, 9)] == [True, False, True, False, True]
    assert len(run.exchanges) > 122
    assert max(float(np.abs(np.diff(one.user)).max()) for one in run.exchanges) < steepest(RATE, 1)


def test_pause_stops_the_clock_on_both_sides() -> None:
    """After a pause it goes on where it was: what was said meanwhile is not heard, the lag is as before."""
    run = Run()
    run.device.at(3, lambda: run.talk.pause(True))
    states: list[str] = []
    run.device.at(7, lambda: states.append(run.talk.statistics().state))
    run.device.at(13, lambda: run.talk.pause(False))
    run.until(16)
    assert states == ["paused"]
    assert not [one for one in run.exchanges if 3.2 < one.seconds < 12.9]
    assert run.level(4, 12) == 0
    assert run.exchanges[-1].lag_ms == pytest.approx(run.exchanges[20].lag_ms, abs=45)
    assert run.talk.statistics().underruns == 0
    assert run.talk.statistics().dropped_ms == 0
    assert np.abs(np.diff(run.played())).max() < steepest(48_000)


def test_reset_starts_anew_without_a_click_or_an_underrun() -> None:
    """A reset that leaves the old conversation's sound in a buffer says half a sentence more."""
    run = Run()
    run.device.at(3, run.talk.reset)
    run.until(5)
    assert run.stepper.resets == 1
    assert 0 in [one.reply.frame for one in run.exchanges if one.seconds > 2]
    assert run.talk.statistics().dropped_ms > 0  # what the user had said to the old conversation
    assert run.talk.statistics().underruns == 0
    assert np.abs(np.diff(run.played())).max() < steepest(48_000)


def test_a_vanished_device_is_reopened_and_the_conversation_kept() -> None:
    """Unplugged headphones killed the stream for ever; the model's state must survive them."""
    run = Run(gone=[(3, 6.5)])
    notices: list[tuple[str, str]] = []
    run.device.at(6, lambda: notices.append((run.talk.statistics().state, run.talk.statistics().notice)))
    run.until(10)
    assert notices[0][0] == "reopening"
    assert "gone" in notices[0][1]
    statistics = run.talk.statistics()
    assert statistics.reopened == 1
    assert statistics.notice.startswith("reopened")
    assert [one.reply.frame for one in run.exchanges] == list(range(len(run.exchanges)))
    assert run.stepper.resets == 0
    assert run.level(9, 10) > 0.2


def test_the_model_is_made_and_stepped_on_one_thread_and_warm_before_the_device_opens() -> None:
    """MLX arrays of another thread fail; a device opened during a 20 s load overflows before the first step."""
    threads: list[threading.Thread] = []
    stages: list[str] = []

    def factory(report: Callable[[str, float | None], None]) -> Stepper:
        report("load", 0.5)
        stages.append(talk.statistics().stage)
        assert not opened
        threads.append(threading.current_thread())
        return stepper

    class Device(VirtualDevice):
        def open(self) -> None:
            opened.append(True)
            stages.append(talk.statistics().stage)

    class Noting(EchoingStepper):
        def step(self, pcm: Pcm) -> Reply:
            threads.append(threading.current_thread())
            assert not gc.isenabled()  # nothing is collected during a frame
            assert sys.getswitchinterval() < 0.001
            return super().step(pcm)

    opened: list[bool] = []
    device = Device(tone(48_000), lambda block: None)
    stepper = Noting(device.sleep, lambda: 0.01)
    talk = Conversation(device, factory)
    device.at(1, talk.stop)
    before = sys.getswitchinterval()
    talk.start()
    assert talk.wait(20)
    talk.check()
    assert stages == ["load", "audio"]
    assert len(threads) > 5
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    assert gc.isenabled()
    assert sys.getswitchinterval() == before


class Broken(EchoingStepper):
    def step(self, pcm: Pcm) -> Reply:
        if self.frame == 5:
            raise RuntimeError("out of memory")
        return super().step(pcm)


class Damaged(EchoingStepper):
    def step(self, pcm: Pcm) -> Reply:
        return super().step(np.full(FRAME, np.nan, np.float32))


@pytest.mark.parametrize(
    ("stepper", "reason"), [(Broken, "frame 5: RuntimeError: out of memory"), (Damaged, "damaged")]
)
def test_a_failing_model_ends_the_conversation_with_its_reason(stepper: type[EchoingStepper], reason: str) -> None:
    """The parent once waited for ever for a child that had died; and NaN must not reach a loudspeaker."""
    played: list[Pcm] = []
    device = VirtualDevice(tone(48_000), played.append)
    talk = Conversation(device, lambda report: stepper())
    talk.start()
    assert talk.wait(20)
    statistics = talk.statistics()
    assert statistics.state == "failed"
    assert reason in (statistics.error or "")
    assert np.isfinite(np.concatenate(played)).all()
    assert statistics.callback_errors == 0
    with pytest.raises(MoshiError, match=reason):
        talk.check()


@pytest.mark.parametrize(
    "target", ["loop.Resampler.process", "loop.JitterBuffer.push", "capture.Backlog.take", "echo.Duck.process"]
)
def test_an_exception_anywhere_in_the_loop_never_reaches_a_callback(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a callback ends the stream without a word; and a loop that died must not leave noise behind."""
    blocks: list[Pcm] = []
    device = VirtualDevice(tone(48_000), blocks.append)

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError(target)

    talk = Conversation(device, lambda report: EchoingStepper(device.sleep, lambda: 0.01), echo="duck")
    device.at(1, lambda: monkeypatch.setattr(f"moshi_mlx.realtime.{target}", fail))
    talk.start()
    assert talk.wait(20)
    with pytest.raises(MoshiError, match=f"ZeroDivisionError: {target}"):
        talk.check()
    loop = talk._engine.loop
    assert loop is not None
    out = np.full((480, 1), np.nan, np.float32)
    for _ in range(100):
        loop.capture.write(np.zeros((480, 1), np.float32))
        loop.playback.fill(out)
    assert not out.any()
    assert talk.statistics().callback_errors == 0
    audit(loop)


def test_a_hook_that_fails_ends_the_conversation_with_its_reason() -> None:
    """A recorder that fails in silence loses the conversation that somebody wanted to keep."""

    def hook(exchange: Exchange) -> None:
        raise OSError("disk full")

    device = VirtualDevice(tone(48_000), lambda block: None)
    talk = Conversation(device, lambda report: EchoingStepper(device.sleep), on_exchange=hook)
    talk.start()
    assert talk.wait(20)
    with pytest.raises(MoshiError, match="OSError: disk full"):
        talk.check()


def test_a_failing_factory_and_a_missing_device_are_failures_too() -> None:
    """What fails before the first frame must end the program as well, in one line."""

    def factory(report: object) -> Stepper:
        raise MoshiError("no weights: get them")

    for make, gone, reason in ((factory, [], "no weights"), (lambda report: EchoingStepper(), [(0, 9)], "gone")):
        talk = Conversation(VirtualDevice(tone(48_000), lambda block: None, gone=gone), make)  # type: ignore[arg-type]
        talk.start()
        assert talk.wait(20)
        assert not talk.running
        with pytest.raises(MoshiError, match=reason):
            talk.check()


def test_stopping_while_the_model_loads_ends_it_at_its_next_stage() -> None:
    """Ctrl-C during a download must not wait for the whole of it."""
    entered, release = threading.Event(), threading.Event()

    def factory(report: Callable[[str, float | None], None]) -> Stepper:
        entered.set()
        release.wait(10)
        report("warm up", None)
        raise AssertionError("it went on")

    talk = Conversation(VirtualDevice(tone(48_000), lambda block: None), factory)
    talk.start()
    assert entered.wait(10)
    assert not talk.stop(0.01)
    release.set()
    assert talk.wait(10)
    talk.check()
    assert talk.statistics().state == "stopped"


def test_the_log_tells_why_it_crackled() -> None:
    """Crackle without a reason cannot be mended: each underrun and drop is a line, then all numbers."""
    run = Run(lambda now: 0.1 if now < 8 else 0.02).until(10)
    lines = [json.loads(line) for line in run.talk.json_lines().splitlines()]
    kinds = {line["event"] for line in lines}
    assert {"underrun", "dropped", "summary"} <= kinds
    assert lines[-1]["underruns"] == run.talk.statistics().underruns
    assert lines[-1]["misses"] > 50


def _speech(path: Path, rate: int) -> Pcm:
    sound = (0.2 * np.sin(2 * np.pi * 300 * np.arange(rate * 2) / rate)).astype(np.float32)
    soundfile.write(path, np.column_stack([sound, sound]), rate, subtype="FLOAT")
    return sound


def test_a_file_goes_through_the_same_loop_as_fast_as_possible(tmp_path: Path) -> None:
    """Every source is the same caller; a file's last frame and its tail must come out, and only under its name."""
    _speech(tmp_path / "in.wav", 44_100)
    device = FileDevice(tmp_path / "in.wav", tmp_path / "out.wav", tail=0.5)
    talk = Conversation(device, lambda report: EchoingStepper())
    talk.start()
    assert talk.wait(20)
    talk.check()
    assert talk.statistics().frames == 32  # 2.5 s
    assert talk.statistics().underruns == 0
    out, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == RATE
    loud = np.flatnonzero(np.abs(out) > 0.02)
    assert (loud[-1] - loud[0]) / RATE == pytest.approx(2, abs=0.01)
    assert np.sqrt(np.mean(out[loud[0] + 500 : loud[-1] - 500] ** 2)) == pytest.approx(0.2 / np.sqrt(2), rel=0.02)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.wav", "out.wav"]


def test_a_file_in_real_time_takes_its_time(tmp_path: Path) -> None:
    """In real time a file must behave as a device does: on its own thread, while the model steps."""
    soundfile.write(tmp_path / "in.wav", np.zeros(RATE // 2, np.float32), RATE)
    talk = Conversation(FileDevice(tmp_path / "in.wav", None, realtime=True), lambda report: EchoingStepper(time.sleep))
    begin = time.monotonic()
    talk.start()
    assert talk.wait(20)
    talk.check()
    assert 0.5 < time.monotonic() - begin < 10
    assert talk.statistics().frames == 7


def test_a_file_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    """Untrusted input: not a traceback."""
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    for name in ("bad.wav", "absent.wav"):
        with pytest.raises(MoshiError, match=name):
            FileDevice(tmp_path / name, None)

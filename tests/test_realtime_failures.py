"""What fails in a conversation ends it with its reason, and never in a callback."""

from __future__ import annotations

import numpy as np
import pytest

from moshi_mlx.frame import FRAME, MoshiError, Pcm, Reply, Stepper
from moshi_mlx.realtime import Conversation, Exchange, VirtualDevice
from tools.soak_realtime import EchoingStepper, audit, tone


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

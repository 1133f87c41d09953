"""Sound devices: the choice among them, and a fake PortAudio."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from portaudio_kit import ALL, HEADSET, MIC, SPEAKER, FakePortAudio

from moshi_mlx.frame import MoshiError
from moshi_mlx.realtime import AudioDevice, device, list_devices, listing
from moshi_mlx.realtime.listing import choose_device


def test_a_device_is_chosen_by_number_part_of_its_name_or_default() -> None:
    """Names differ by apostrophes and case; a loudspeaker must never be taken for a microphone."""
    assert choose_device(ALL, None, "input") is MIC
    assert choose_device(ALL, None, "output") is SPEAKER
    assert choose_device(ALL, "airpods", "input") is HEADSET
    assert choose_device(ALL, "2", "output") is HEADSET
    assert choose_device(ALL, 1, "output") is SPEAKER
    assert choose_device([replace(MIC, default_input=False)], None, "input").name == MIC.name
    for wanted in ("Speakers", 1, "nothing"):
        with pytest.raises(MoshiError, match="choose one of 0 MacBook Microphone, 2 Ann's AirPods"):
            choose_device(ALL, wanted, "input")
    with pytest.raises(MoshiError, match="there is no audio input"):
        choose_device([SPEAKER], None, "input")


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    fake = FakePortAudio()
    for module in (device, listing):
        monkeypatch.setattr(module, "portaudio", lambda: fake)
    return fake


def test_two_streams_open_at_their_own_rates_and_flags_are_counted_apart(portaudio: FakePortAudio) -> None:
    """A headset opened at 24 kHz garbles; PortAudio's overflow on macOS is no proof that we were late."""
    device, heard, played = AudioDevice("airpods", "speakers"), [], []
    device.open()
    device.start(heard.append, played.append)
    speaker, microphone = portaudio.opened
    assert (speaker.samplerate, microphone.samplerate) == (44_100, 16_000)
    assert (speaker.device, microphone.device) == (1, 2)
    assert (speaker.blocksize, microphone.blocksize) == (882, 320)  # 20 ms: "low" of Core Audio is 64 samples
    assert speaker.started
    assert microphone.started
    status = SimpleNamespace(input_underflow=False, input_overflow=True, output_underflow=False, output_overflow=False)
    when = SimpleNamespace(currentTime=100.0, inputBufferAdcTime=99.9, outputBufferDacTime=100.2)
    for _ in range(300):
        speaker.callback(np.zeros((9, 1), np.float32), 9, when, None)
    microphone.callback(np.zeros((7, 1), np.float32), 7, when, status)
    assert device.output_latency == pytest.approx(0.2, abs=0.01)  # what is measured, not what was promised
    assert (len(heard[0]), len(played[0])) == (7, 9)
    assert device.flags == {"input_underflow": 0, "input_overflow": 1, "output_underflow": 0, "output_overflow": 0}
    assert device.close(1)
    assert speaker.closed
    assert microphone.closed


def test_a_device_that_refuses_mono_is_opened_in_stereo(portaudio: FakePortAudio) -> None:
    """Some interfaces take only the channels that they have; opening failed with "invalid number of channels"."""
    portaudio.refuses_mono = True
    device = AudioDevice()
    device.open()
    device.start(lambda block: None, lambda block: None)
    assert [stream.channels for stream in portaudio.opened] == [2, 1]
    device.close(1)
    portaudio.devices[1] = replace(SPEAKER, outputs=1)
    device.open()
    with pytest.raises(MoshiError, match="cannot open MacBook Microphone and MacBook Speakers"):
        device.start(lambda block: None, lambda block: None)


def test_reopening_looks_devices_up_anew_and_falls_back_to_the_default(portaudio: FakePortAudio) -> None:
    """PortAudio's list is as old as its start: without a restart, plugged-in headphones are never found."""
    device = AudioDevice(output="airpods")
    device.open()
    device.start(lambda block: None, lambda block: None)
    assert portaudio.refreshed == 1
    device.close(1)
    portaudio.devices.remove(HEADSET)
    device.open()
    assert portaudio.refreshed == 2
    assert device.output_name == "MacBook Speakers"
    assert "airpods" in device.notice
    with pytest.raises(MoshiError, match="airpods"):
        AudioDevice(output="airpods").open()  # nobody is asked to talk to another device than the one chosen
    gone = AudioDevice(output="airpods", seen=ALL)  # but it was here when the model began to load
    gone.open()
    assert gone.output_name == "MacBook Speakers"
    assert "airpods" in gone.notice


def test_a_mac_listens_with_its_own_microphone_when_the_default_is_bluetooth(portaudio: FakePortAudio) -> None:
    """Opening the headset's microphone changed the rate of the loudspeaker stream beside it, and its sound."""
    portaudio.devices = [HEADSET, MIC, SPEAKER]
    device = AudioDevice()
    device.open()
    assert device.input_name == "MacBook Microphone"
    assert "AirPods" in device.notice
    portaudio.devices = [HEADSET, SPEAKER]
    device.open()
    assert (device.input_name, device.notice) == ("Ann's AirPods", "")
    named = AudioDevice(input="airpods")
    portaudio.devices = [MIC, HEADSET, SPEAKER]
    named.open()
    assert (named.input_name, named.notice) == ("Ann's AirPods", "")


def test_a_mac_does_not_listen_with_a_microphone_that_is_shut_in(
    portaudio: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its lid closed, and for a conference device at 16 kHz that is no Bluetooth: a working microphone was left
    for one that gives zeros or is far off."""
    portaudio.devices = [replace(HEADSET, name="Jabra SPEAK 510 USB", default_input=True), MIC, SPEAKER]
    device = AudioDevice()
    device.open()
    assert (device.input_name, device.notice) == ("Jabra SPEAK 510 USB", "")
    monkeypatch.setattr(listing, "_lid_closed", lambda: True)
    portaudio.devices = [HEADSET, MIC, SPEAKER]
    device.open()
    assert (device.input_name, device.notice) == ("Ann's AirPods", "")


def test_the_second_input_of_an_interface_is_heard(portaudio: FakePortAudio) -> None:
    """Core Audio gives the first input as mono, and the microphone was on the other: bit-exact silence."""
    portaudio.devices[0] = replace(MIC, inputs=4)
    device = AudioDevice()
    device.open()
    device.start(lambda block: None, lambda block: None)
    assert [stream.channels for stream in portaudio.opened] == [1, 2]
    device.close(1)


@pytest.mark.parametrize(("latency", "size"), [("low", 960), ("high", 1920), (0.005, 240)])
def test_latency_on_core_audio_is_a_block(portaudio: FakePortAudio, latency: str | float, size: int) -> None:
    """More milliseconds made PortAudio's buffer smaller there: it first takes off what the hardware adds."""
    device = AudioDevice(latency=latency)
    device.open()
    device.start(lambda block: None, lambda block: None)
    assert portaudio.opened[1].blocksize == size
    device.close(1)


@pytest.mark.parametrize("wish", ["1", 1])
def test_a_device_chosen_by_its_number_stays_the_same_when_numbers_change(
    portaudio: FakePortAudio, wish: str | int
) -> None:
    """Headphones that were plugged in moved the numbers, and the next reopening silently spoke to another device."""
    device = AudioDevice(input="macbook", output=wish)
    device.open()
    assert device.output_name == "MacBook Speakers"
    portaudio.devices.insert(0, HEADSET)
    device.open()
    assert device.output_name == "MacBook Speakers"
    assert device.notice == ""
    portaudio.devices = [HEADSET, MIC]
    device.open()
    assert device.output_name == "Ann's AirPods"
    assert "MacBook Speakers" in device.notice


def test_a_number_means_what_it_meant_when_it_was_chosen(portaudio: FakePortAudio) -> None:
    """Headphones that were plugged in while the model was loading took the number of the loudspeaker."""
    device = AudioDevice(input="macbook", output="1", seen=list(portaudio.devices))
    portaudio.devices.insert(0, HEADSET)
    device.open()
    assert device.output_name == "MacBook Speakers"


def test_a_number_tells_two_devices_of_one_name(portaudio: FakePortAudio) -> None:
    """The name that stood for the number meant the first of them at the next reopening."""
    portaudio.devices += [replace(portaudio.devices[-1]), replace(portaudio.devices[-1])]
    chosen = AudioDevice(output=str(len(portaudio.devices) - 1))
    for _ in range(2):
        chosen.open()
        assert chosen._output.number == len(portaudio.devices) - 1


def test_a_sound_system_that_failed_once_is_asked_again(portaudio: FakePortAudio) -> None:
    """PortAudio was terminated and did not start: from then on terminating failed, and it was never started again."""
    device = AudioDevice()
    device.open()
    portaudio.fails = 1
    with pytest.raises(MoshiError, match="does not answer: unanticipated host error"):
        device.open()
    device.open()
    assert portaudio.refreshed == 2


def test_a_stream_that_hangs_does_not_hold_up_the_end(portaudio: FakePortAudio) -> None:
    """PortAudio can hang in stop (PortAudio#1174): Ctrl-C must end the program all the same."""
    device = AudioDevice()
    device.open()
    device.start(lambda block: None, lambda block: None)
    portaudio.hangs.clear()
    begin = time.monotonic()
    assert not device.close(0.05)
    assert time.monotonic() - begin < 5
    portaudio.hangs.set()


def test_portaudio_is_not_restarted_under_a_stream_that_does_not_close(portaudio: FakePortAudio) -> None:
    """A stream that hung in stop was still alive when the devices were looked up anew: PortAudio was terminated under
    it, which crashes or hangs the process. It has to be asked again until the stream has gone."""
    device = AudioDevice()
    device.open()
    device.start(lambda block: None, lambda block: None)
    portaudio.hangs.clear()
    assert not device.close(0.05)
    with pytest.raises(MoshiError, match="do not close yet"):
        device.open()
    assert portaudio.refreshed == 1
    portaudio.hangs.set()
    assert device.close(5)
    device.open()
    assert portaudio.refreshed == 2


def test_without_portaudio_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """sounddevice raises OSError at import on a Linux without PortAudio; not everybody knows its Debian name."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr("builtins.__import__", _no_portaudio(__import__))
    with pytest.raises(MoshiError, match="libportaudio2"):
        list_devices()


def _no_portaudio(real: Any) -> Any:
    def without(name: str, *rest: Any) -> Any:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, *rest)

    return without

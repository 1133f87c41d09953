"""`moshi-mlx devices`: the list, what is remembered, and a test that measures the round trip."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pulse
import pytest
from needs import needs
from portaudio_kit import MIC, SPEAKER
from terminal_kit import ROOT

from moshi_mlx.cli.devices import _print, available, judge
from moshi_mlx.cli.settings import Settings, read_settings, settings_file, write_settings
from moshi_mlx.cli.soundcheck import CHIME_SECONDS, Checked, Chimer, check, find, make_chime
from moshi_mlx.frame import FRAME, RATE, MoshiError, Pcm
from moshi_mlx.realtime import DeviceInfo, VirtualDevice

DEVICES = (sys.executable, "-m", "moshi_mlx.cli.main", "devices")
GOOD = Checked("Mic", "Speakers", 48_000, 48_000, -30.0, 0.3, False, 150.0, 20.0, 0)


class Room:
    """A loudspeaker that the microphone hears some time later."""

    def __init__(self, delay: int, gain: float) -> None:
        self.played: Pcm = np.zeros(delay, np.float32)
        self.gain = gain
        self.noise = np.random.default_rng(0)

    def listen(self, start: int, count: int) -> Pcm:
        sound = self.gain * self.played[start : start + count] + self.noise.normal(0, 1e-3, count)
        return np.asarray(sound, np.float32)

    def play(self, block: Pcm) -> None:
        self.played = np.concatenate([self.played, block])


def test_the_round_trip_is_measured_to_the_sample() -> None:
    """The measured latency left out a frame, or counted one twice: with more delay in the room it must grow by just
    that. A chime as loud as 2 % of itself is found in noise.
    """
    trips = []
    for delay in (480, 480 + 4_800):
        room = Room(delay, 0.02)
        device = VirtualDevice(room.listen, room.play, input_rate=RATE, output_rate=RATE)
        found = check(device, listen=0.4)
        assert found.round_trip_ms is not None
        trips.append(found.round_trip_ms)
    assert trips[1] - trips[0] == pytest.approx(200.0, abs=0.1)
    assert 20 < trips[0] < 400


def test_a_device_that_gives_nothing_is_no_missing_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block at all was told as exact zeros: "allow it in System Settings"."""
    monkeypatch.setattr("moshi_mlx.cli.soundcheck.PATIENCE", 0.1)
    device = VirtualDevice(lambda start, count: np.zeros(count, np.float32), lambda block: None)
    monkeypatch.setattr(device, "wait", lambda signal, timeout: time.sleep(0.01))  # its clock stands still
    with pytest.raises(MoshiError, match="delivers no sound at all"):
        check(device, listen=0.1)


def test_silence_has_no_round_trip() -> None:
    """Correlation always has a maximum: noise was taken for the chime."""
    room = Room(480, 0.0)
    found = check(VirtualDevice(room.listen, room.play, input_rate=RATE, output_rate=RATE), listen=0.4)
    assert found.round_trip_ms is None
    assert not found.zeros
    assert find(make_chime(), np.zeros(RATE, np.float32)) is None


def test_listening_alone_plays_nothing() -> None:
    """Doctor chimed in a quiet office."""
    chimer = Chimer(0.4, chime=False)
    assert chimer.last == 5
    for _ in range(20):
        assert not chimer.step(np.zeros(FRAME, np.float32)).pcm.any()
    assert chimer.round_trip() is None


def test_the_chime_is_heard_whole_and_harms_no_ear() -> None:
    """The last part of a frame of the chime was cut off; full scale is too loud for headphones."""
    chimer = Chimer(0.0, chime=True)
    played = np.concatenate([chimer.step(np.zeros(FRAME, np.float32)).pcm for _ in range(chimer.last)])
    assert np.array_equal(played[: len(make_chime())], make_chime())
    assert np.abs(played).max() < 0.35
    assert len(make_chime()) == round(CHIME_SECONDS * RATE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "round trip 150 ms"),
        ({"zeros": True, "level": -120.0}, "exact zeros"),
        ({"level": -70.0}, "very quiet"),
        ({"peak": 1.0}, "overdriven"),
        ({"input_name": "AirPods"}, "Bluetooth"),
        ({"round_trip_ms": None}, "chime was not heard"),
        ({"underruns": 2}, "2 underruns"),
    ],
)
def test_a_test_says_what_it_means(changes: dict[str, object], says: str) -> None:
    """Numbers without a remedy."""
    known = {name: getattr(GOOD, name) for name in GOOD.__slots__}
    assert any(says in line for line in judge(Checked(**{**known, **changes}), "linux", {}))


class TestSettings:
    def test_they_live_where_the_platform_keeps_them(self) -> None:
        """A dot file in the home folder of a Mac."""
        mac = settings_file("darwin", {"HOME": "/Users/anna"})
        assert mac == Path("/Users/anna/Library/Application Support/moshi-mlx/settings.json")
        assert settings_file("linux", {"HOME": "/home/a"}) == Path("/home/a/.config/moshi-mlx/settings.json")
        assert settings_file("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/moshi-mlx/settings.json")

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        """A name with an umlaut was lost."""
        path = tmp_path / "deep" / "settings.json"
        write_settings(path, Settings("Kopfhörer", None))
        assert read_settings(path) == Settings("Kopfhörer", None)

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"input": 3, "output": ["x"]}', '"x"', "[" * 100_000])
    def test_a_damaged_file_is_no_choice(self, tmp_path: Path, text: str) -> None:
        """A settings file cut off by a full disk kept `chat` from starting."""
        path = tmp_path / "settings.json"
        path.write_text(text)
        assert read_settings(path) == Settings()

    def test_a_folder_that_cannot_be_written_is_one_line(self, tmp_path: Path) -> None:
        """A traceback from `devices --input`."""
        (tmp_path / "file").write_text("")
        with pytest.raises(MoshiError, match="cannot be written"):
            write_settings(tmp_path / "file" / "settings.json", Settings())

    def test_what_is_unplugged_is_not_missed(self) -> None:
        """A remembered headset that was left at home kept `chat` from starting."""
        here = DeviceInfo(0, "Mic", "Core Audio", 1, 0, 48_000, 5.0, 5.0, True, False)
        assert available([here], Settings("Mic", "AirPods")) == {"input": "Mic", "output": None}


def test_list_choose_and_test_on_portaudio() -> None:
    """As a person types them, on a sound system of its own: the list, a choice that lasts, a wrong name, a test
    that hears what it plays, and one that hears exact zeros.
    """
    needs(*pulse.PACKAGES)
    with pulse.sound_system() as environ:

        def devices(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*DEVICES, *words], env=environ, capture_output=True, text=True, timeout=60, cwd=ROOT)

        listed = json.loads(devices("--json").stdout)
        assert any(one["name"] == "default" and one["default_input"] for one in listed["devices"])
        assert "default input" in devices().stdout
        assert devices("--input", "defau").returncode == 0
        assert json.loads(devices("--json").stdout)["chosen"] == {"input": "default", "output": None}
        assert "chosen input" in devices().stdout
        assert devices("--forget").returncode == 0
        assert json.loads(devices("--json").stdout)["chosen"] == {"input": None, "output": None}
        wrong = devices("--output", "nothing like it")
        assert wrong.returncode == 1
        assert "choose one of" in wrong.stderr
        deaf = devices("--test")
        assert deaf.returncode == 1
        assert "exact zeros" in deaf.stdout
        loop = ["pactl", "load-module", "module-loopback", "source=spk.monitor", "sink=mic", "latency_msec=20"]
        subprocess.run(loop, env=environ, check=True, capture_output=True)
        heard = json.loads(devices("--test", "--json").stdout)
        assert not heard["zeros"]
        assert 20 < heard["round_trip_ms"] < 1500


def test_a_name_is_no_style(capsys: pytest.CaptureFixture[str]) -> None:
    """A device called "Scarlett [usb]" lost its end, and one called "[/usb]" was a traceback."""
    _print([replace(MIC, name=name) for name in ("Scarlett [usb]", "Odd [/usb]", "Mic :mute:")], Settings())
    shown = capsys.readouterr().out
    for name in ("Scarlett [usb]", "Odd [/usb]", "Mic :mute:"):
        assert name in shown


def test_a_headset_that_is_listed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """macOS lists a microphone and a loudspeaker of one name: both were marked as both, and where only the loudspeaker
    was there today, the chat ended instead of taking the default microphone."""
    ear = replace(SPEAKER, number=2, name="AirPods", default_output=False)
    mouth = replace(MIC, number=3, name="AirPods", default_input=False)
    chosen = Settings("AirPods", "AirPods")
    assert available([MIC, SPEAKER, ear], chosen) == {"input": None, "output": "AirPods"}
    _print([MIC, SPEAKER, ear, mouth], chosen)
    lines = [line for line in capsys.readouterr().out.splitlines() if "AirPods" in line]
    assert [("input" in line, "output" in line) for line in lines] == [(False, True), (True, False)]

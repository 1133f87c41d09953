"""Sound hardware for tests without any: a PulseAudio of its own with a virtual microphone and a virtual loudspeaker.

`python tests/pulse.py COMMAND …` runs a command in it, for a look by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("pulseaudio", "pulseaudio-utils", "libasound2-plugins", "libportaudio2")
_ALSA = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"


@contextmanager
def sound_system() -> Iterator[dict[str, str]]:
    """Runs a sound server; gives the environment in which PortAudio's default devices are its two sinks.

    What is played into the sink `mic` is what the microphone hears; what the loudspeaker plays can be recorded from
    `spk.monitor`.
    """
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder)
        runtime.chmod(0o700)
        (runtime / "asoundrc").write_text("</usr/share/alsa/alsa.conf>\n" + _ALSA)
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": folder,
            "HOME": folder,
            "PULSE_RUNTIME_PATH": f"{folder}/pulse",
            "ALSA_CONFIG_PATH": f"{folder}/asoundrc",
        }
        # A null sink that may rewind renders two seconds ahead, and its monitor comes in lumps: hence norewinds.
        sinks = [f"module-null-sink sink_name={name} rate=48000 norewinds=1" for name in ("mic", "spk")]
        modules = ["module-native-protocol-unix", *sinks]
        command = [
            "pulseaudio",
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--log-target=stderr",
            "--log-level=error",
        ]
        command += [part for module in modules for part in ("-L", module)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
            try:
                _wait(environment)
                for order in (("set-default-source", "mic.monitor"), ("set-default-sink", "spk")):
                    subprocess.run(["pactl", *order], env=environment, check=True)
                yield environment
            finally:
                server.terminate()


def _wait(environment: dict[str, str]) -> None:
    for _ in range(100):
        if subprocess.run(["pactl", "info"], env=environment, capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError("the sound server did not start")


if __name__ == "__main__":
    with sound_system() as env:
        sys.exit(subprocess.run(sys.argv[1:], env=env).returncode)

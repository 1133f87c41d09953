"""What `doctor` finds out about this machine. Nothing here fails: what cannot be found out is said."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..frame import MoshiError
from .machine import Machine

BACKENDS = ("mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")
PACKAGES = ("mlx", *BACKENDS, "numpy", "sounddevice", "soundfile", "livekit", "rich")
LENT = 0.75  # of the memory, where the system does not say what the GPU may use
LISTEN = 0.6  # seconds


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Of this program and of what it stands on."""
    found = {"moshi-live": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def system() -> dict[str, Any]:
    """Operating system, chip, cores, terminal."""
    mac = platform.mac_ver()[0]
    return {
        "os": f"macOS {mac}" if mac else platform.platform(),
        "arch": platform.machine(),
        "chip": _chip(),
        "cores": os.cpu_count(),
        "terminal": os.environ.get("TERM_PROGRAM", os.environ.get("TERM", "")),
    }


def kernels() -> dict[str, Any]:
    """The self-test's errors, whether they are small, and what is wrong."""
    from .kernels import complain, kernel_errors

    errors: dict[str, float] = {}
    try:
        errors = kernel_errors()
        problem = complain(errors)
    except (RuntimeError, ValueError) as error:
        problem = f"MLX cannot run its kernels here: {error}"
    return {"errors": errors, "right": not problem, "problem": problem}


def machine(processor: bool = True) -> Machine:
    """Memory, what the GPU may use of it, and the bandwidth, measured; a processor's only if asked for: it takes
    seconds and decides nothing."""
    import mlx.core as mx

    from ..models.memory import gpu_memory, gpu_name, machine_memory
    from .bench_time import copy_bandwidth

    memory, gpu = machine_memory(), gpu_name()
    bandwidth = copy_bandwidth() if gpu or processor else math.inf
    mx.clear_cache()  # half a gigabyte of copies
    return Machine(memory, gpu_memory() or round(memory * LENT), bandwidth, gpu)


def weights() -> list[str]:
    """Aliases of the known checkpoints that are whole on this disk."""
    from ..checkpoints.known import KNOWN
    from ..checkpoints.locate import on_disk

    return [known.alias for known in KNOWN if known.kind in ("moshi", "hibiki") and on_disk(known.alias)]


def disk() -> dict[str, Any]:
    """Free bytes where weights are kept."""
    from ..checkpoints import hub

    folder = Path(hub.cache())
    while not folder.exists():
        folder = folder.parent
    return {"folder": str(folder), "free": shutil.disk_usage(folder).free}


def sound() -> dict[str, Any]:
    """Devices, and whether the microphone gives anything; `said` is for a person."""
    from ..realtime import AudioDevice, list_devices
    from .devices import available
    from .hints import bluetooth_hint, is_headphone, permission_hint
    from .settings import read_settings, settings_file
    from .soundcheck import check
    from .terminal import kept_stderr

    found: dict[str, Any] = {"devices": [], "microphone": None}
    try:
        with kept_stderr(show=False):
            devices = list_devices()
            found["devices"] = [asdict(one) for one in devices]
            names = available(devices, read_settings(settings_file()))
            heard = check(AudioDevice(names["input"], names["output"]), listen=LISTEN, chime=False)
    except (MoshiError, OSError) as error:
        return {**found, "said": f"no conversation by sound: {error}"}
    found["microphone"] = asdict(heard)
    hint = (
        permission_hint(sys.platform, os.environ) if heard.zeros else bluetooth_hint(heard.input_name, heard.input_rate)
    )
    output = "headphones" if is_headphone(heard.output_name) else "taken for a loudspeaker"
    parts = [f"{heard.input_name} ({heard.level:.0f} dB), {heard.output_name} ({output})", *([hint] if hint else [])]
    return {**found, "said": "; ".join(parts)}


def _chip() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
            return answer or platform.machine()
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()

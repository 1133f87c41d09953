"""A child process for test_recording.py: records until it is killed, and publishes how many frames the recorder has
taken.

Arguments: a folder for the recordings, how many to begin. Each is made in a fork, so that Python and NumPy start but
once; the parent of the fork waits for its death. The count of recording k is in the file `k.count` (8 bytes,
little-endian).
"""

import os
import sys
from pathlib import Path

import numpy as np
from recording_kit import INFO, MockStepper

from moshi_mlx.recording.recorder import Recorder


def record_until_killed(folder: Path, count: Path) -> None:
    stepper = MockStepper(dict.fromkeys(range(0, 100_000, 3), " word"))
    descriptor = os.open(count, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, os.getpid().to_bytes(8, "little") + bytes(8), 0)
    parent = os.getppid()
    silence = np.zeros(1_920, np.float32)
    with Recorder(folder, INFO, part_limit=400_000) as recorder:
        while os.getppid() == parent:  # the test itself may have been stopped
            reply = stepper.step(silence)
            recorder.add(reply, silence, {"step_ms": 1.0})
            os.pwrite(descriptor, (reply.frame + 1).to_bytes(8, "little"), 8)


if __name__ == "__main__":
    base = Path(sys.argv[1])
    for number in range(int(sys.argv[2])):
        child = os.fork()
        if not child:
            record_until_killed(base / str(number), base / f"{number}.count")
            os._exit(0)
        os.waitpid(child, 0)

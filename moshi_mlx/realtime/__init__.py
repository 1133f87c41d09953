"""The machine room of a live conversation: rings, resamplers, echo, jitter buffer, the model's thread, honest numbers.

It imports no MLX and no session: a model is a `Stepper` that a `StepperFactory` makes on the engine's thread (see
`frame.py`).

    device = AudioDevice(input=None, output="AirPods")   # or FileDevice("in.wav", "out.wav"), or VirtualDevice(...)
    with Conversation(device, factory, echo="cancel", on_exchange=recorder.add) as talk:   # start() … stop()
        while talk.running:                              # False once it stopped, ended (a file) or failed
            now = talk.statistics()                      # a frozen snapshot, any thread, any time
            talk.mute(True); talk.pause(True); talk.push_to_talk(True); talk.talk(True); talk.reset(); talk.reopen()
    talk.check()                                         # raises MoshiError with the reason if the engine failed
    log.write(talk.json_lines())                         # events and the summary

The verbs may be called from any thread and return at once; what they ask for happens between two frames.
`on_exchange(exchange)` runs on the engine's thread once per frame and must not block: put into a queue what takes time.
`list_devices(refresh=False)` gives what `moshi-mlx devices` prints. Importing this package opens no sound system.
"""

from .conversation import Conversation
from .device import AudioDevice
from .files import FileDevice
from .listing import DeviceInfo, list_devices
from .statistics import Exchange, Statistics
from .virtual import VirtualDevice

__all__ = [
    "AudioDevice",
    "Conversation",
    "DeviceInfo",
    "Exchange",
    "FileDevice",
    "Statistics",
    "VirtualDevice",
    "list_devices",
]

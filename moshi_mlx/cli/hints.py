"""What names and numbers of a live conversation tell a person: pure functions that touch no device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..frame import FRAME_MS
from ..realtime.listing import is_bluetooth

if TYPE_CHECKING:
    from ..realtime import Statistics

HEADPHONES = (
    "airpod", "headphone", "headset", "earphone", "earpod", "earbud", "buds", "beats", "jabra", "hands-free",
    "handsfree", "wh-1000", "wf-1000", "bose q", "jbl tune", "kopfhörer", "casque", "écouteurs", "cuffie",
    "auriculares", "fones", "hörlur", "koptelefoon", "słuchawk", "наушник", "ヘッドホン", "ヘッドフォン", "耳机",
    "耳機", "헤드폰",
)  # fmt: skip
LOUDSPEAKERS = (  # of the brands that make both
    "speak", "pill", "soundbar", "boombox", "lautsprecher", "enceinte", "altavo", "スピーカー", "音箱",
)  # fmt: skip
CRACKLES = 5  # late callbacks that say nothing yet
SILENT_S = 2.0  # exact zeros for so long are no quiet room
LATE_MS = 2 * FRAME_MS  # lag beyond the target that is worth a word
SLOW_SOUND_MS = 20.0  # of resampling and echo cancellation a frame
TERMINALS = {
    "Apple_Terminal": "Terminal",
    "iTerm.app": "iTerm",
    "vscode": "Visual Studio Code",
    "ghostty": "Ghostty",
    "WezTerm": "WezTerm",
    "WarpTerminal": "Warp",
}


def is_headphone(name: str) -> bool:
    """Whether an output's name says that the microphone will not hear it."""
    folded = name.casefold()
    return any(word in folded for word in HEADPHONES) and not any(word in folded for word in LOUDSPEAKERS)


def bluetooth_hint(name: str, rate: int) -> str:
    """What a Bluetooth microphone costs; "" for any other microphone. rate 0: not known."""
    if not is_bluetooth(name, rate):
        return ""
    return "a Bluetooth microphone lowers the sound quality of both directions; choose another one with --input"


def permission_hint(platform: str, environ: Mapping[str, str], heard: bool = False) -> str:
    """Why a microphone gives exact zeros, and what to do. platform: as `sys.platform`; heard: it gave sound before."""
    zeros = "the microphone gives exact zeros: "
    if platform != "darwin" or heard:
        return zeros + "is it muted or unplugged? `d` opens it again, `moshi-mlx devices --test` listens to it"
    if "SSH_CONNECTION" in environ:
        return zeros + "macOS gives none over ssh; start this in a terminal on the Mac itself"
    if "TMUX" in environ:  # macOS asks whether the server may, which keeps what it was told when it began
        app, again = "the terminal that tmux was started from", "start tmux again after `tmux kill-server`"
    else:
        app = TERMINALS.get(environ.get("TERM_PROGRAM", ""), "this terminal")
        again = f"start {app} again"
    return (
        f"{zeros}allow it for {app} in System Settings › Privacy & Security › Microphone, then {again}; "
        "what is not in that list: try once in Terminal"
    )


def choose_echo(wish: str, output: str, installed: bool) -> tuple[str, str]:
    """The echo mode for `--echo` and the output's name ("" for a file), with the reason to show."""
    if wish != "auto":
        return wish, "as asked"
    if not output:
        return "off", "a file has no echo"
    if is_headphone(output):
        return "off", "headphones, by their name"
    if installed:
        return "cancel", "loudspeaker, by its name"
    return "duck", "loudspeaker and no echo canceller; `chat --echo cancel` says how to install one"


def slow_stage(now: Statistics) -> str:
    """Why the conversation lags, in words that name the slow stage; "" while it does not."""
    if now.frame_mean > FRAME_MS:
        return (
            f"the model takes {now.frame_mean:.0f} ms a frame and has {FRAME_MS:.0f}: too slow; close other programs, "
            "or see what `moshi-mlx doctor` says"
        )
    if now.lag_ms <= now.target_ms + LATE_MS:
        return ""
    if now.resample_ms + now.echo_ms > SLOW_SOUND_MS:
        return f"lag: sound processing takes {now.resample_ms + now.echo_ms:.0f} ms a frame; try --echo duck"
    if now.capture_ms < now.playback_ms:
        return f"lag: {now.playback_ms:.0f} ms wait for the loudspeaker"
    if now.frame_p95 > FRAME_MS:
        return f"lag: some frames take {now.frame_p95:.0f} ms; close other programs or take a lighter checkpoint"
    return f"lag: {now.capture_ms:.0f} ms wait for the model; it is catching up"


def advice(now: Statistics, live: bool, platform: str, environ: Mapping[str, str]) -> str:
    """The one thing most worth doing now; "" when all is well. live: a microphone, not a file."""
    if live and now.input_zero_s >= SILENT_S and not now.muted and not now.paused:
        return permission_hint(platform, environ, now.input_heard)
    if slow := slow_stage(now):
        return slow
    if live and now.flags.get("output_underflow", 0) > max(CRACKLES, now.seconds / 10):
        return "the loudspeaker was not served in time again and again (it crackles): try --latency 60"
    if live and now.echo == "off" and not now.push_to_talk and now.output_name and not is_headphone(now.output_name):
        return "Moshi may hear itself: use headphones, --echo cancel or --push-to-talk"
    return bluetooth_hint(now.input_name, now.input_rate) if live else ""
